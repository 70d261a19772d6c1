// The row sums of P as it is multiplied, of a warpgroup's 64 query rows, by the tensor core: P
// times ones.
//
//   of a key tile   sum = P 1, from zero          beside P V
//   of a row        l = l factor + sum            in f32
//
// The products of one tile alone add up in the tensor core, whose sums of 8-bit floats lose what
// grows with the row (specs/numerics.md, 4.2). P is of floats: codes of integers carry no NaN.
#pragma once

#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/online_softmax.h"
#include "compiler/sema/variant.h"

namespace sagejit {

class WgmmaRowSum {
 public:
  // ones: descriptor of 8 columns; none where rows are summed exactly, elsewhere, and nothing here
  // does anything.
  WgmmaRowSum(ir::Builder& b, const Variant& variant, ir::Value ones);

  // One product's keys, behind the first of P V's. a: P; is_first: the sum starts from zero.
  void product(const std::vector<ir::Value>& a, bool is_first) const;
  // What products in flight write.
  const std::vector<ir::Var>& in_flight() const { return tile_; }
  // After the products since the first: their sum goes to the row's.
  void add() const;
  // The row's sum times the factors; with those in flight, whose products must be done.
  void rescale(const OnlineSoftmax::Rescale& rescale, bool with_tile) const;

  std::vector<ir::Value> row_sum() const;  // by row of the thread

 private:
  ir::Builder& b_;
  ir::Op product_ = ir::Op::kCount;  // with ones
  ir::Value ones_;
  // The thread's fragment of 8 columns, all alike, two of each of its rows; and its rows' sums.
  std::vector<ir::Var> tile_, rows_;
};

}  // namespace sagejit
