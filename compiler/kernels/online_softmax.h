// The online softmax of one warp's query rows, in base 2: reference maximum, running sum, and P of
// one key tile.
//
//   grown = max_j t_j > m + threshold      m' = grown ? max_j t_j : m      t_j = x_j c
//   P_j = 2^(t_j - m' + log2 range)        l' = l 2^(m - m') + sum_j P_j
//
// x is a raw score and c its dequantization: scale log2(e) dq dk. m is -inf until a row sees a key.
// With threshold 0, m is the running maximum.
//
// Where P's code is written directly there is no exponential. The code of 2^u in e4m3 is 8 (u + 7)
// where u is an integer, and between two of them the mantissa 2^f - 1 of a fraction f is taken as
// f:
//
//   code_j = rint(8 (t_j - m' + log2 range + 7) + kCodeOffset), at least 0
//
// One multiply-add, if t is counted in codes. Its result is counted in f16's least steps of 2^-24,
// so that the conversion to f16 rounds to whole codes and leaves them, and 0 for what is negative,
// in the low bytes of halves.
#pragma once

#include <functional>
#include <numbers>
#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/scores.h"

namespace sagejit {

// The mean over a fraction f of 8 (2^f - 1 - f), what the line f adds to a code: 8 (1/ln 2 - 3/2).
inline constexpr double kCodeOffset = 8 * (1 / std::numbers::ln2 - 1.5);

class OnlineSoftmax {
 public:
  // sums_p: whether l is kept here, of P before it is rounded.
  OnlineSoftmax(ir::Builder& b, const Variant& variant, int num_row_tiles, bool sums_p);

  // What O and l of the last steps must be multiplied by, where any row of the warp needs it.
  struct Rescale {
    ir::Value any;                 // pred, the same for the whole warp
    std::vector<ir::Var> factors;  // by row of the thread
  };
  // Scores become P, or its codes in f16's least steps, in the same registers. `masked`: scores may
  // be -inf, and rows may see no key at all. `before_exponentials`: what is to happen between the
  // maxima and the exponentials.
  Rescale step(Scores& scores, const Dequantization& dequantization, bool masked,
               const std::function<void()>& before_exponentials = {});

  // The same for a tile without a mask, whose exponentials do not wait for its maxima: they are
  // relative to what P was relative to before, and the maxima of P, found beside them, tell whether
  // that was right. Where a row outgrew it, or factors are too large for one multiply-add (as they
  // are with Q and K of twice the deviation of N(0, 1)), the warp takes its P back and starts
  // again: `repeat_scores` puts the scores back, `rescale_values` is to do what the result of
  // step() asks for. Every bit is as step() makes it.
  void speculate(Scores& scores, const Dequantization& dequantization,
                 const std::function<void()>& repeat_scores,
                 const std::function<void(const Rescale&)>& rescale_values);

  // After the last step; every thread of a quad holds the same.
  std::vector<ir::Value> row_max() const;  // log2 units; -inf for rows without keys
  std::vector<ir::Value> row_sum() const;  // 0 for rows without keys; valid with sums_p
  // What P and the sums are multiplied by: log2 of the range of P.
  float range_log2() const { return static_cast<float>(range_log2_); }

 private:
  using Factors = std::vector<std::vector<ir::Value>>;  // [row of the thread][run of key tiles]

  // log2 P, or the code, = x factor + offset; the rare branch of refer() changes both.
  struct Exponent {
    ir::Var factor, offset;
  };
  using Exponents = std::vector<std::vector<Exponent>>;  // [row of the thread][run of key tiles]
  // Of P of the keys of a row that this thread holds; what is not asked for is not there.
  struct RowTotals {
    std::array<ir::Value, 2> sums;  // of alternate tiles: two short chains, not a long one
    ir::Value largest_bits;
  };

  Factors factors(const Dequantization& dequantization, bool masked) const;
  Exponents exponents(const Factors& factors) const;  // their offsets are still to come
  ir::Value tile_max(const Scores& scores, int row, const std::vector<ir::Value>& factors) const;
  ir::Value reference(size_t row, bool masked) const;
  ir::Value limit(size_t row) const;  // what a maximum must exceed to become the reference
  bool may_be_large(const Scores& scores) const;
  ir::Value is_large(const Scores& scores, ir::Value tile_max, const std::vector<Exponent>& runs,
                     bool masked) const;
  // What P is relative to, and the exponents. Scores that are too large change.
  Rescale refer(Scores& scores, const Factors& factors, const Exponents& exponents, bool masked,
                const std::function<void()>& before_exponentials);
  Rescale renew(Scores& scores, const std::vector<ir::Value>& tile_max, const Exponents& exponents,
                bool masked, const std::function<void()>& before_exponentials);
  void renew_maxima(const std::vector<ir::Value>& tile_max, const Rescale& rescale);
  void renew_offsets(const Exponents& exponents, bool biased, bool masked) const;
  void subtract_reference(Scores& scores, size_t row, const std::vector<Exponent>& runs,
                          bool masked) const;
  RowTotals exponentials(Scores& scores, size_t row, const std::vector<Exponent>& runs,
                         bool finds_largest) const;
  ir::Value has_large_factor(const std::vector<Exponent>& runs) const;
  int32_t largest_speculated_bits() const;
  void add(size_t row, const std::array<ir::Value, 2>& sums) const;
  ir::Value in_log2_units(ir::Value t) const;
  ir::Value quad_reduce(ir::Value value, ir::Op op) const;

  ir::Builder& b_;
  bool writes_codes_;
  float unit_;  // that t, m and the threshold are counted in, for each log2 unit
  double range_log2_;
  float threshold_, offset_;  // offset_: of what x c - m becomes
  bool sums_p_;
  std::vector<ir::Var> max_, sum_;
};

}  // namespace sagejit
