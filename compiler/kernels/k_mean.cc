#include "compiler/kernels/generators.h"
#include "compiler/kernels/prepare.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;
using ir::Var;

// One block sums one chunk of tokens of one (batch, head). Threads take rows in turn; their sums
// meet in shared memory and are added in order of the threads, so the result does not depend on
// timing.
ir::Function generate_k_mean(const ForwardPlan& plan) {
  const QuantizePlan& k = plan.k;
  Builder b("k_mean", kPrepareThreads);
  const KernelArgs args(b, *plan.find_launch("k_mean"));
  const RowLanes lanes(b, k.head_dim);
  const Value chunk = b.emit1(Op::kBlockX, {}), head = b.emit1(Op::kBlockY, {}),
              batch = b.emit1(Op::kBlockZ, {});
  const Value begin = b.mul(chunk, args["chunk_tokens"]);
  const Value end = b.min(b.add(begin, args["chunk_tokens"]), args["tokens"]);
  const Value in_row = b.less(lanes.first, constant(k.head_dim));

  std::vector<Var> sums;
  for (int i = 0; i < kLaneElements; ++i) sums.push_back(b.var(constant_f32(0)));
  const Value row_base = b.address(row_address(b, args, "k", "n", {batch, head, constant(0)}),
                                   lanes.first, bits_of(k.input) / 8);
  b.loop(b.add(begin, lanes.row), end, constant(lanes.rows_per_pass), [&](Value token) {
    const Value address = b.add64(row_base, b.mul64(b.zext(token), args["k_stride_n"]));
    const std::vector<Value> x = load_elements(b, k.input, address, in_row);
    for (int i = 0; i < kLaneElements; ++i) b.set(sums[i], b.fadd(b.get(sums[i]), x[i]));
  });

  const Value shared =
      b.smem("sums", lanes.rows_per_pass * lanes.lanes_per_row * kLaneElements * 4);
  const int row_bytes = lanes.lanes_per_row * kLaneElements * 4;
  const Value mine = b.add(shared, b.mul(b.tid(), constant(kLaneElements * 4)));
  for (int i = 0; i < kLaneElements; ++i) {
    b.emit(Op::kStSharedF32, {mine, constant(i * 4), b.get(sums[i])});
  }
  b.barrier();
  b.when(b.less(b.tid(), constant(k.head_dim)), [&] {
    const Value column = b.add(shared, b.shl(b.tid(), 2));
    Value total = constant_f32(0);
    for (int row = 0; row < lanes.rows_per_pass; ++row) {
      total = b.fadd(total, b.emit1(Op::kLdSharedF32, {column, constant(row * row_bytes)}));
    }
    const Value block_head = b.add(b.mul(batch, args["heads"]), head);
    const Value slot =
        b.add64(b.mul64(b.zext(block_head), b.zext(b.emit1(Op::kGridX, {}))), b.zext(chunk));
    const Value sums_row =
        b.add64(args["k_partial_sums"], b.mul64(slot, b.zext(constant(k.head_dim * 4))));
    b.emit(Op::kStGlobalF32, {b.address(sums_row, b.tid(), 4), constant(0), total});
  });
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
