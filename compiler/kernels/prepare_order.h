// The order in which teams take the items of `prepare`: in rounds, one after the other.
//
//   round r:  the statistics of head r, if there is such a head;
//             then the tiles of head r - lag, if there is: of K and V, and of the Q that attends to
//             them.
//
// Statistics and tiles are each in order of the heads. A tile of a head thus has a larger number
// than all its statistics, by several rounds: they are done when the tile's turn comes.
#pragma once

#include "compiler/ir/builder.h"
#include "compiler/kernels/divisor.h"

namespace sagejit {

class PrepareOrder {
 public:
  struct Sizes {
    ir::Value heads;          // (batch, K head)
    Divisor head_statistics;  // items of a head, at least 1
    Divisor head_tiles;       // likewise
    Divisor head_items;       // both together
    ir::Value lag;            // <= heads
    ir::Value lag_items;      // lag head_statistics
    ir::Value heads_ahead;    // heads - lag
  };

  PrepareOrder(ir::Builder& b, const Sizes& sizes) : b_(b), sizes_(sizes) {}

  struct Place {
    ir::Value exists;         // pred: there is an item of that number
    ir::Value is_statistics;  // pred
    ir::Value head, index;    // (batch, K head); of its statistics or tiles
  };
  Place find(ir::Value number) const;

 private:
  ir::Builder& b_;
  Sizes sizes_;
};

}  // namespace sagejit
