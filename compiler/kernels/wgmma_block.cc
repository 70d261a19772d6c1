#include "compiler/kernels/wgmma_block.h"

namespace sagejit {

using ir::constant;
using ir::Op;

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
      kv_ring(b, "kv",
              {schedule.stages,
               {{"k", k_bytes()}, {"v", v_bytes()}},
               schedule.block_n,
               schedule.num_warps}),
      group(b.emit1(Op::kShflI32, {b.shr(b.tid(), 7), constant(0)})) {}

}  // namespace sagejit
