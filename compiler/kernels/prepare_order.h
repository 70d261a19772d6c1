// The order in which blocks take the items of `prepare`:
//
//   the statistics of the first `lag` heads;
//   rounds: the statistics of a head, then the tiles of K and V of the head `lag` before it;
//   the tiles of the last `lag` heads, and those of Q.
//
// Statistics and tiles are each in order of the heads. A tile of a head thus has a larger number
// than all its statistics, and not a much larger one: K and V are still in the L2 cache.
#pragma once

#include "compiler/ir/builder.h"

namespace sagejit {

class PrepareOrder {
 public:
  struct Sizes {
    ir::Value heads;            // (batch, K head)
    ir::Value head_statistics;  // items of a head
    ir::Value head_tiles;
    ir::Value lag;  // <= heads
  };

  PrepareOrder(ir::Builder& b, const Sizes& sizes) : b_(b), sizes_(sizes) {}

  // How many of the first `count` items are statistics; the others are tiles. i32; a constant where
  // everything is.
  ir::Value statistics_among(ir::Value count) const;

 private:
  ir::Builder& b_;
  Sizes sizes_;
};

}  // namespace sagejit
