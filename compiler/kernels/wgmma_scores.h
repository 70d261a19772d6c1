// S = Q K^T of a warpgroup's 64 rows: products of wgmma that run while the warpgroup does something
// else.
#pragma once

#include "compiler/kernels/scores.h"
#include "compiler/kernels/wgmma_block.h"

namespace sagejit {

class WgmmaScores {
 public:
  explicit WgmmaScores(WgmmaBlock& block);

  // Registers of one tile's scores.
  Scores create();
  // Starts the products of Q's rows, a descriptor, with the keys of the stage.
  void start(const Scores& s, ir::Value q_rows, const ir::RingCursor& kv);
  // Waits for them. in_flight: products started after these.
  void finish(const Scores& s, int in_flight);

 private:
  void bias(const Scores& s, const ir::RingCursor& kv);

  WgmmaBlock& block_;
  ir::Builder& b_;
};

}  // namespace sagejit
