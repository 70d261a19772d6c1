#include "compiler/kernels/wgmma_scores.h"

#include "compiler/kernels/wgmma_operands.h"
#include "compiler/layout/core_matrix.h"

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::RingCursor;
using ir::Value;
using ir::Var;

WgmmaScores::WgmmaScores(WgmmaBlock& block) : block_(block), b_(block.b) {}

Scores WgmmaScores::create() {
  Scores s{.tiles = {}, .form = form_of_sums(block_.variant)};
  s.tiles.resize(1);
  for (int tile = 0; tile < block_.schedule.block_n / kFragmentColumns; ++tile) {
    s.tiles[0].emplace_back();
    for (Var& x : s.tiles[0].back()) x = b_.var(score_zero(block_.variant));
  }
  return s;
}

// By multiply-adds: moves would fill the pipe, of half the rate, that maxima and conversions of the
// other warps need, while the pipes of multiply-adds idle. A finite number times 0 is 0, but no
// assembler may know that it is finite; nor that two are equal, if no two have the same factors:
// each takes another one before it, times 0 or -0, as a binary tree. Codes that are written
// directly fill the other pipes: there moves are faster.
void WgmmaScores::bias(const Scores& s, const RingCursor& kv) {
  if (block_.variant.p.direct_code) {
    for (const Var& x : s.registers()) b_.set(x, score_zero(block_.variant));
    return;
  }
  std::vector<Value> tree = {b_.emit1(Op::kF32Bits, {kv.stage()})};  // of a small integer: finite
  for (const Var& x : s.registers()) {
    const float zero = tree.size() % 2 == 0 ? 0.0f : -0.0f;
    tree.push_back(b_.fma(tree[tree.size() / 2], constant_f32(zero), constant_f32(kScoreBias)));
    b_.set(x, b_.emit1(Op::kBitsF32, {tree.back()}));
  }
}

void WgmmaScores::start(const Scores& s, Value q_rows, const RingCursor& kv) {
  if (s.is_biased()) bias(s, kv);
  const DType code = qk_operand_type(block_.variant, block_.schedule);
  const Op product = ir::wgmma_of(code, code, block_.variant.qk_accumulator);
  const int row_bytes = qk_row_bytes(block_.variant, block_.schedule);
  const Value keys =
      token_rows_descriptor(b_, block_.kv_ring.units(kv, WgmmaBlock::kKeys), row_bytes);
  for (int byte = 0; byte < row_bytes; byte += kQkStepBytes) {
    const int offset = byte / kCoreRowBytes * kCoreBytes;
    b_.wgmma(product, s.registers(), {moved(b_, q_rows, offset)}, moved(b_, keys, offset),
             {.fenced = byte == 0, .accumulate = byte > 0 || s.is_biased()});
  }
  b_.emit(Op::kWgmmaCommit, {});
}

void WgmmaScores::finish(const Scores& s, int in_flight) {
  b_.wgmma_wait(in_flight, s.registers());
}

}  // namespace sagejit
