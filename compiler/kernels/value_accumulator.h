// O, the running sum of P V for one warp's query rows, in the accumulator types the variant names:
//
//   one level, f32 or f16    O = O factor + P V
//   two levels               O = O factor + sum over intervals of (P V gathered in `inner`, f32,
//   f16
//                            or s32, from zero)
//
// and, where the variant sums the converted P, the row sums by the same tensor core: P times ones.
// Those of e4m3 P are of one key tile, from zero, and add up in f32.
#pragma once

#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/value_tiles.h"
#include "compiler/sema/variant.h"

namespace sagejit {

class ValueAccumulator {
 public:
  ValueAccumulator(ir::Builder& b, const Variant& variant, int num_row_tiles, int num_column_tiles);

  // O and the row sums times the factors, where any row of the warp needs it.
  void rescale(const OnlineSoftmax::Rescale& rescale);

  // Adds P V for one key tile. p: as OnlineSoftmax left it, converted to the variant's type here;
  // v_tile: from values.at().
  void accumulate(const Scores& p, const ValueTiles& values, const ValueTiles::Tile& v_tile);

  // O's elements in C-fragment order, f32.
  std::array<ir::Value, 4> elements(int row_tile, int column_tile) const;
  bool sums_p() const { return !sums_.empty(); }
  std::vector<ir::Value> row_sum() const;  // by row of the thread

 private:
  using Fragment =
      std::vector<ir::Value>;  // registers of one mma operand; of fp4 P its scales, too
  using Vars = std::vector<ir::Var>;

  // An accumulator of a product into `type`, and what it holds as f32.
  static Fragment zeros(DType type);
  std::vector<ir::Value> to_f32(DType type, const Fragment& registers) const;
  Fragment current(int row_tile, int column_tile) const;
  // a: P's fragments, [row tile][key step]; key steps [first_step, end_step) of a group of column
  // tiles.
  void add_columns(const std::vector<std::vector<Fragment>>& a, int first_step, int end_step,
                   int first_column, const ValueTiles& values, const ValueTiles::Tile& v_tile);
  void add_row_sums(const std::vector<std::vector<Fragment>>& a);
  void add_inner(int row_tile, int column_tile, const Fragment& inner);

  ir::Builder& b_;
  const Variant& variant_;
  int num_row_tiles_, num_column_tiles_;
  int step_keys_;                     // keys of one product
  DType inner_;                       // that products add up in
  DType o_type_;                      // that O is kept in: inner_, or f32 with two levels
  std::vector<std::vector<Vars>> o_;  // [row tile][column tile][register]
  std::vector<Vars> sums_;            // [row tile][element]; empty unless P is summed here
};

}  // namespace sagejit
