// Scale factors of fp4 products as the threads of a quad hold them for mma.sync (ir/fragment.h):
// each thread those of another tile, so that one register serves four tiles of B, or two of A.
#pragma once

#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/kernels/scores.h"
#include "compiler/plan/forward_plan.h"

namespace sagejit {

// Tiles of 8 columns of B whose scale factors one register holds: thread t has tile t's.
inline constexpr int kScaledTiles = 4;

// Of 32 columns of B, 8 t + lane / 4: the one whose scale factors the thread has.
ir::Value scale_factor_row(ir::Builder& b);

// `bytes`, a multiple of 16, from global to shared memory, as TileLoader does.
void copy_bytes(ir::Builder& b, ir::Value shared, ir::Value global, int bytes);

// Of K: rows of words in shared memory, in the order of the codes' rows.
class KeyScaleFactors {
 public:
  KeyScaleFactors(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                  const QueryTile& tile);

  // Starts the copies of a key tile; by the whole block.
  void load(ir::Value address, ir::Value first_key) const;
  // [group of four 8-key tiles][step of 64 channels]
  std::vector<std::vector<ir::Value>> read(ir::Value address) const;

 private:
  ir::Builder& b_;
  const ForwardPlan& plan_;
  ir::Value head_address_;
};

// Of Q, for the warp's `num_row_tiles` from row `first_row` of the head on: [two 16-row tiles][step
// of 64 channels]. Rows behind the last have that one's.
std::vector<std::vector<ir::Value>> load_query_scale_factors(
    ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args, const QueryTile& tile,
    ir::Value first_row, int num_row_tiles);

}  // namespace sagejit
