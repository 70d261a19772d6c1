// Query heads that attend to the same K and V, packed into the same query tiles: where queries are
// few, a tile of one head's is mostly empty, and K and V are read once for each head.
//
// A pack is a (batch, K head) with all G = hq / hkv heads that attend to it; its rows are those of
// its heads one behind the other: row r is token r mod m of head r / m. Whether heads are packed is
// decided at launch (ForwardPlan::packs_heads); where they are not, a pack is one head and its row
// r is token r.
#pragma once

#include "compiler/ir/builder.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/kernels/mask_regions.h"
#include "compiler/plan/forward_plan.h"

namespace sagejit {

// Where a block or warpgroup works: rows of a pack.
struct QueryTile {
  ir::Value batch, head, kv_head;  // `head`: the first of the pack
  ir::Value first_row;             // of all its warps
};

class PackedHeads {
 public:
  // Of the attention kernel.
  PackedHeads(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args);

  ir::Value num_rows() const;  // of a pack
  // Of a row of the tile's pack, also of one behind the last: then the place may not exist.
  RowPlace place_of(const QueryTile& tile, ir::Value row) const;
  // The tokens that some of `count` rows from `first_row` on have: where heads are packed, all.
  RowRange tokens_of(ir::Value first_row, int count) const;

 private:
  ir::Builder& b_;
  const KernelArgs& args_;
  bool packs_;
};

}  // namespace sagejit
