// The key tiles of a warpgroup's rows, two at a time (schedule.overlap = 2): the exponentials of
// one beside the maxima of the next, and the products of both beside other exponentials, so that
// the unit that computes exponentials has something to do at all times.
//
//   maxima of tile t        beside   the second half of P of tile t - 1
//   P V of tile t - 1,
//   Q K^T of tile t + 1     beside   the first half of P of tile t
//
// Q K^T starts from zero, in registers of its own; from there scores are taken into others, and it
// may start again. Every step begins with nothing in flight: across a loop's edge the assembler
// moves no arithmetic, which it would else put in front of the wait. A stage of the ring holds K of
// one tile and V of the tile two before it.
#pragma once

#include <functional>
#include <vector>

#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/wgmma_accumulator.h"
#include "compiler/kernels/wgmma_scores.h"

namespace sagejit {

class WgmmaPipeline {
 public:
  // What a warpgroup has of its rows. q_rows: descriptor.
  struct Rows {
    const QueryRows& rows;
    const KeyScales& key_scales;
    ir::Value q_rows;
    OnlineSoftmax& softmax;
    WgmmaAccumulator& o;
  };
  WgmmaPipeline(WgmmaBlock& block, const Rows& rows, ir::RingCursor& kv);

  // All key tiles of the regions, from the cursor on.
  void run(const MaskRegions& regions);

 private:
  void begin_first(ir::Value key_tile);
  void other_tiles(const MaskRegions& regions, ir::Value first, ir::Value last);
  void step(ir::Value key_tile, bool masked, bool is_last);
  OnlineSoftmax::Tile maxima(ir::Value key_tile, bool masked);
  void first_half(bool is_last, const std::function<void()>& finish_values);
  void second_half();
  void load_scales(ir::Value stage);

  WgmmaBlock& block_;
  ir::Builder& b_;
  WgmmaScores scores_;
  const Rows state_;
  ir::RingCursor& kv_;
  Scores next_, s_;                  // of the tile whose products run; of the one before, and its P
  int half_ = 0;                     // 8-key tiles
  std::vector<ir::Var> key_scales_;  // of next_
  OnlineSoftmax::Exponents exponents_;  // of s_
  OnlineSoftmax::Sums sums_;
  std::vector<ir::Var> p_;  // converted
};

}  // namespace sagejit
