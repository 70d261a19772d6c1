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

namespace sagejit {

class PrepareOrder {
 public:
  struct Sizes {
    ir::Value heads;            // (batch, K head)
    ir::Value head_statistics;  // items of a head, at least 1
    ir::Value head_tiles;
    ir::Value lag;  // <= heads
  };

  PrepareOrder(ir::Builder& b, const Sizes& sizes);

  struct Place {
    ir::Value exists;         // pred: there is an item of that number
    ir::Value is_statistics;  // pred
    ir::Value head, index;    // (batch, K head); of its statistics or tiles
  };
  // The numbers that a thread asks for ascend: it goes on where it was.
  Place find(ir::Value number);

 private:
  ir::Value has_statistics(ir::Value round) const;
  ir::Value round_size(ir::Value round) const;

  ir::Builder& b_;
  Sizes sizes_;
  ir::Var round_, first_;  // where it is, and the number of the round's first item
};

}  // namespace sagejit
