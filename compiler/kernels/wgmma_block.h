// What the loading and the computing warpgroups of the wgmma kernel share: the rings between them,
// the words that travel with tiles, and which key tiles query rows see.
#pragma once

#include "compiler/ir/builder.h"
#include "compiler/ir/bulk_ring.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/kernels/mask_regions.h"
#include "compiler/kernels/packed_heads.h"
#include "compiler/plan/forward_plan.h"

namespace sagejit {

inline constexpr int kGroupWarps = 4;

// Shared memory: two stages of Q for each computing warpgroup, and a ring of K and V tiles; all as
// core matrices (core_matrix.h). With a Q tile come, as words, where it lies and the scale factors
// of its rows, and V's scales and means; with a K tile the scales of its keys. So nobody who
// computes waits for global memory before its rows are stored. With smoothed Q, a K tile also comes
// with the mean scores of its keys, a part for each computing warpgroup. Where rows are summed by
// the tensor core, ones (wgmma_row_sum.h).
struct WgmmaBlock {
  explicit WgmmaBlock(const ForwardPlan& forward_plan);

  const ForwardPlan& plan;
  const Variant& variant;
  const Schedule& schedule;
  int num_consumers;  // computing warpgroups; the loading one comes behind them
  ir::Builder b;
  KernelArgs args;
  ir::BulkRing q_ring, kv_ring;
  ir::Value ones;   // address of wgmma_ones_bytes; none where rows are summed exactly
  ir::Value group;  // this thread's warpgroup, the same register in all lanes

  std::vector<ir::BulkRing::Piece> kv_pieces() const;

  // What nobody brings: barriers, and ones. By the whole block, before anything else.
  void initialize();

  // A stage of kv_ring holds K of one tile and V of the tile so far behind it: what the computing
  // warpgroups use together.
  int value_lag() const { return schedule.overlap > 0 ? 1 : 0; }
  enum Piece { kKeys, kValues, kMeanScores };

  int num_query_stages() const { return kQueryStages * num_consumers; }
  int q_bytes() const { return kWarpgroupRows * qk_row_bytes(variant, schedule); }
  int k_bytes() const { return schedule.block_n * qk_row_bytes(variant, schedule); }
  int v_bytes() const { return schedule.block_n * value_row_bytes(); }
  int value_row_bytes() const {
    return padded_value_head_dim(variant) * bits_of(variant.v.type) / 8;
  }

  // --- words of a Q stage, in bytes from their start
  static constexpr int kPlaceBytes = 0;  // batch (or kNoTile), head, kv_head, first row
  static constexpr int kRowFactorBytes = 16;
  static constexpr int kValueScaleBytes = kRowFactorBytes + kWarpgroupRows * 4;

  int largest_key_scale_bytes() const { return kValueScaleBytes + value_scale_words(variant) * 4; }

  static constexpr int kNoTile = -1;  // no tile is left

  // A value that is the same in all lanes, computed here and kept: what the assembler can derive
  // from other uniform registers, it derives again in every iteration.
  ir::Value once(ir::Value x) { return b.emit1(ir::Op::kShflI32, {x, ir::constant(0)}); }

  // Key tiles that `num_rows` query rows from `first_row` on see.
  MaskRegions regions_of(ir::Value first_row, int num_rows) {
    return MaskRegions(b, variant.mask, args["m"], args["n"],
                       PackedHeads(b, plan, args).tokens_of(first_row, num_rows), schedule.block_n);
  }
};

}  // namespace sagejit
