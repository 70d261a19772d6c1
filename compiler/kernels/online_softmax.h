// The online softmax of one warp's query rows, in base 2: reference maximum, running sum, and P of
// one key tile.
//
//   grown = max_j t_j > m + threshold      m' = grown ? max_j t_j : m      t_j = x_j c
//   P_j = 2^(t_j - m' + log2 range)        l' = l 2^(m - m') + sum_j P_j
//
// x is a raw score and c its dequantization: scale log2(e) dq dk. m is -inf until a row sees a key.
// With threshold 0, m is the running maximum.
#pragma once

#include <functional>
#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/scores.h"

namespace sagejit {

class OnlineSoftmax {
 public:
  // sums_p: whether l is kept here, of P before it is rounded.
  OnlineSoftmax(ir::Builder& b, const Variant& variant, int num_row_tiles, bool sums_p);

  // What O and l of the last steps must be multiplied by, where any row of the warp needs it.
  struct Rescale {
    ir::Value any;                 // pred, the same for the whole warp
    std::vector<ir::Var> factors;  // by row of the thread
  };
  // Scores become P, in the same registers. `masked`: scores may be -inf, and rows may see no key
  // at all. `before_exponentials`: what is to happen between the maxima and the exponentials.
  Rescale step(Scores& scores, const Dequantization& dequantization, bool masked,
               const std::function<void()>& before_exponentials = {});

  // After the last step; every thread of a quad holds the same.
  std::vector<ir::Value> row_max() const;  // log2 units; -inf for rows without keys
  std::vector<ir::Value> row_sum() const;  // 0 for rows without keys; valid with sums_p
  // What P and the sums are multiplied by: log2 of the range of P.
  float range_log2() const { return range_log2_; }

 private:
  using Factors = std::vector<std::vector<ir::Value>>;  // [row of the thread][run of key tiles]

  Factors factors(const Dequantization& dequantization, bool masked) const;
  ir::Value tile_max(const Scores& scores, int row, const std::vector<ir::Value>& factors) const;
  struct Renewal {
    Rescale rescale;
    ir::Value bias;  // f32, still in the scores; none if they were numbers from the start
  };
  Renewal renew(Scores& scores, const std::vector<ir::Value>& tile_max, const Factors& factors,
                const std::function<void()>& before_exponentials);
  ir::Value limit(size_t row) const;  // what a maximum must exceed to become the reference
  void renew_maxima(const std::vector<ir::Value>& tile_max, const Rescale& rescale);
  void take_off_bias(Scores& scores, const ir::Var& bias) const;
  Factors offsets(const Factors& factors, ir::Value bias, bool masked) const;
  ir::Value exponentials(Scores& scores, size_t row, const std::vector<ir::Value>& factors,
                         const std::vector<ir::Value>& offsets) const;
  ir::Value quad_reduce(ir::Value value, ir::Op op) const;

  ir::Builder& b_;
  float threshold_, range_log2_;
  bool sums_p_;
  std::vector<ir::Var> max_, sum_;
};

}  // namespace sagejit
