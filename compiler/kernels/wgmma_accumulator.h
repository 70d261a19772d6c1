// O, the running sum of P V of a warpgroup's 64 query rows, in the accumulator types the variant
// names:
//
//   one level, f32 or f16    O = O factor + P V
//   two levels               O = O factor + sum over intervals of (P V gathered in `inner`, f32,
//   f16
//                            or s32, from zero)
//
// Integers cannot be rescaled: their intervals end with a key tile, at the latest. And, where the
// variant sums the converted P, its row sums (wgmma_row_sum.h), to which all the same happens. The
// products run while the warpgroup does something else, between start() and finish().
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/wgmma_row_sum.h"
#include "compiler/sema/variant.h"

namespace sagejit {

class WgmmaAccumulator {
 public:
  // ones: as for WgmmaRowSum.
  WgmmaAccumulator(ir::Builder& b, const Variant& variant, int block_n, ir::Value ones);

  // P of one key tile, converted: the A operands of its products, in new variables.
  std::vector<ir::Var> convert(const Scores& p) const;

  // O times the factors, where any row needs it. No product may be running.
  void rescale(const OnlineSoftmax::Rescale& rescale);
  // Adds P V of a key tile and waits for it. values: descriptor of the V tile.
  void add(const std::vector<ir::Var>& p, ir::Value values, ir::Value key_tile);

  // The same in two steps, for tiles that an interval holds wholly.
  void start(const std::vector<ir::Var>& p, ir::Value values);
  // Waits for what start() started with P of `key_tile`, and rescales the sum. `after_softmax`:
  // what is to happen between the exponentials before this call and the wait.
  void finish(const OnlineSoftmax::Rescale& rescale, ir::Value key_tile,
              const std::function<void()>& after_softmax);
  void finish(ir::Value key_tile);

  // After the last tile: what is left of an interval goes to O.
  void close() {
    if (interval_tiles_ > 1) add_inner();
  }

  // Sums of the converted P, where the variant asks for them.
  std::vector<ir::Value> row_sum() const { return row_sum_.row_sum(); }
  // The four elements of an 8-column tile, f32.
  std::array<ir::Value, 4> elements(int column_tile) const;

 private:
  using Vars = std::vector<ir::Var>;
  static constexpr int kStepRegisters = 4;  // of P, for one product

  ir::Value zero_of(DType type) const;
  Vars new_accumulator(DType type) const;
  void products(const Vars& p, ir::Value values, int first_step, int num_steps);
  void wait() const;
  void add_inner();
  void end_interval();
  void restart_inner();
  void end_interval_after(ir::Value key_tile);
  void scale(const Vars& accumulator, bool packed, const std::vector<ir::Var>& factors);
  // What products write: O itself, or the inner accumulator.
  const Vars& target() const { return inner_.empty() ? o_ : inner_; }
  bool target_is_packed() const { return variant_.pv_accumulator.inner == DType::kF16; }
  bool has_integers() const { return variant_.pv_accumulator.inner == DType::kS32; }
  // Else the first product of an interval starts from zero by itself.
  bool starts_from_registers() const {
    return inner_.empty() || interval_tiles_ > 1 || has_integers();
  }

  ir::Builder& b_;
  const Variant& variant_;
  ir::Op product_;
  int step_keys_;       // keys of one product
  int row_bytes_;       // of a token of V
  int num_columns_;     // 8-column tiles
  int interval_steps_;  // products until `inner` goes to O; 0 with one level
  int interval_tiles_;  // the same in key tiles; 0 where a tile holds several intervals
  bool o_is_packed_;
  Vars running_;  // P that products in flight read: not to be overwritten before the wait
  WgmmaRowSum row_sum_;
  Vars o_, inner_;  // [8-column tile][register]; inner empty with one level
};

}  // namespace sagejit
