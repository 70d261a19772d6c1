// Which keys a block of query rows sees, as runs of key tiles: masked, full, masked. Tiles nobody
// sees are not visited; full tiles need no mask.
#pragma once

#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/sema/variant.h"

namespace sagejit {

struct TileRun {
  ir::Value begin, end;  // i32, key tiles
  bool masked;
};

// The query rows that a block or warpgroup computes, i32; of rows that do not exist, the nearest
// that do.
struct RowRange {
  ir::Value first, last;
  ir::Value exists;  // 0 if none of the rows does, else 1
};
// Those of `count` rows from `first` on that are among the first `num_rows`.
RowRange existing_rows(ir::Builder& b, ir::Value first, int count, ir::Value num_rows);

// The visible keys of query row i are j with low(i) <= j <= high(i), j < n:
//   causal top_left      high = i
//   causal bottom_right  high = i + n - m
//   window               low = i + n - m - left, high = i + n - m + right
// A range of rows that do not exist sees no key tile.
class MaskRegions {
 public:
  MaskRegions(ir::Builder& b, const Mask& mask, ir::Value m, ir::Value n, const RowRange& rows,
              int tile_keys);

  const std::vector<TileRun>& runs() const { return runs_; }
  ir::Value first_tile() const { return runs_.front().begin; }
  ir::Value end_tile() const { return runs_.back().end; }

  // The last and first key that `row` sees; `low` is none where the mask has no lower bound.
  struct Bounds {
    ir::Value low, high;
  };
  Bounds bounds_of(ir::Value row) const;

 private:
  ir::Builder& b_;
  Mask mask_;
  ir::Value n_, offset_;
  std::vector<TileRun> runs_;
};

}  // namespace sagejit
