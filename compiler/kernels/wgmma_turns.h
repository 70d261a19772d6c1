// Ping-pong (after FlashAttention-3, section 3.1): with schedule.ping_pong one computing warpgroup
// at a time does not compute exponentials, which all need the same unit, but has its maxima and
// products to do. Without, turns cost nothing.
//
// Every warpgroup takes a turn, used or not, for every key tile of the block. It gets it from the
// next warpgroup, which may be two turns ahead; a named barrier counts arrivals, not turns, so
// there are two for each. Of four warpgroups one may be three turns ahead: they take none.
#pragma once

#include <vector>

#include "compiler/kernels/wgmma_block.h"

namespace sagejit {

class Turns {
 public:
  explicit Turns(WgmmaBlock& block);

  void start();  // before the first: all but the last warpgroup begin with a turn
  void take();   // waits for this warpgroup's
  void pass(
      const std::vector<ir::Var>& computed = {});  // what the turn was for: it is there before
  void end();                                      // after the last: the turns that are left

 private:
  ir::Value barrier(ir::Value group, const ir::Var& parity);
  void flip(const ir::Var& parity);
  bool is_on() const { return block_.schedule.ping_pong; }

  WgmmaBlock& block_;
  ir::Builder& b_;
  ir::Var taken_, passed_;  // turns, modulo 2
};

}  // namespace sagejit
