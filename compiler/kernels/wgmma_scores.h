// S = Q K^T of a warpgroup's 64 query rows and one key tile.
#pragma once

#include "compiler/kernels/scores.h"
#include "compiler/kernels/wgmma_block.h"

namespace sagejit {

class WgmmaScores {
 public:
  explicit WgmmaScores(WgmmaBlock& block);

  // Registers of one tile's scores, whose products start from the bias, if they are integers
  // (scores.h), or from zero all the same.
  Scores create() { return create(form_of_sums(block_.variant)); }
  Scores create_from_zero();
  // Starts the products of Q's rows, a descriptor, with the keys of the stage.
  void start(const Scores& s, ir::Value q_rows, const ir::RingCursor& kv);
  // Waits for them. in_flight: products started after these.
  void finish(const Scores& s, int in_flight);
  // Scores that products left in `from` go to others' registers, biased if they are integers.
  void take(const Scores& to, const Scores& from);

 private:
  Scores create(ScoreForm form);

  WgmmaBlock& block_;
  ir::Builder& b_;
};

}  // namespace sagejit
