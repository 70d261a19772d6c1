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

Scores WgmmaScores::create_from_zero() {
  return create(sums_are_biased(block_.variant) ? ScoreForm::kInteger : ScoreForm::kNumber);
}

Scores WgmmaScores::create(ScoreForm form) {
  const bool are_integers = form != ScoreForm::kNumber;
  Scores s{.tiles = {}, .form = form};
  s.tiles.resize(1);
  for (int tile = 0; tile < block_.schedule.block_n / kFragmentColumns; ++tile) {
    s.tiles[0].emplace_back();
    for (Var& x : s.tiles[0].back()) x = b_.var(are_integers ? constant(0) : constant_f32(0));
  }
  return s;
}

void WgmmaScores::start(const Scores& s, Value q_rows, const RingCursor& kv) {
  if (s.is_biased()) {
    for (const Var& x : s.registers()) b_.set(x, score_zero(block_.variant));
  }
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

void WgmmaScores::take(const Scores& to, const Scores& from) {
  const std::vector<Var> taken = to.registers(), registers = from.registers();
  for (size_t i = 0; i < taken.size(); ++i) {
    const Value x = b_.get(registers[i]);
    b_.set(taken[i], from.form == ScoreForm::kInteger ? b_.add(x, constant(kBiasedZero)) : x);
  }
}

}  // namespace sagejit
