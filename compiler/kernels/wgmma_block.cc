#include "compiler/kernels/wgmma_block.h"

#include "compiler/kernels/pv_operands.h"

namespace sagejit {

using ir::constant;
using ir::Op;
using ir::Value;

namespace {

constexpr int kOnesAlignment = 128;

}  // namespace

WgmmaBlock::WgmmaBlock(const ForwardPlan& forward_plan)
    : plan(forward_plan),
      variant(plan.variant),
      schedule(plan.schedule),
      num_consumers(schedule.num_warps / kGroupWarps),
      b("attention", (num_consumers + 1) * kWarpgroupThreads, 1),
      args(b, *plan.find_launch("attention"),
           plan.attends_by_head() ? KernelArgs::Start::kWaitsByPiece : KernelArgs::Start::kWaits),
      q_ring(b, "q",
             {num_query_stages(), {{"q", q_bytes()}}, wgmma_query_words(variant), kGroupWarps}),
      kv_ring(b, "kv", {schedule.stages, kv_pieces(), schedule.block_n, schedule.num_warps}),
      ones(wgmma_ones_bytes(variant) ? b.smem("ones", wgmma_ones_bytes(variant), kOnesAlignment)
                                     : Value{}),
      group(b.emit1(Op::kShflI32, {b.shr(b.tid(), 7), constant(0)})) {}

std::vector<ir::BulkRing::Piece> WgmmaBlock::kv_pieces() const {
  std::vector<ir::BulkRing::Piece> pieces = {{"k", k_bytes()}, {"v", v_bytes()}};
  if (plan.mean_scores.exists) {
    pieces.push_back({"mean_scores", schedule.block_n * 4, num_consumers});
  }
  return pieces;
}

void WgmmaBlock::initialize() {
  b.when(b.equal(b.tid(), constant(0)), [&] {
    q_ring.initialize();
    kv_ring.initialize();
    b.emit(Op::kMbarrierInitFence, {});
  });
  if (ones) {
    b.when(b.less(b.tid(), constant(wgmma_ones_bytes(variant) / 4)), [&] {
      const Value word = b.add(ones, b.mul(b.tid(), constant(4)));
      b.emit(Op::kStSharedI32, {word, constant(0), constant(packed_ones(variant.v.type))});
      b.emit(Op::kFenceAsyncShared, {});
    });
  }
  b.barrier();
}

}  // namespace sagejit
