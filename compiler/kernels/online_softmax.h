// The online softmax of one warp's query rows, in base 2: reference maximum, running sum, and P of
// one key tile.
//
//   grown = max_j t_j > m + threshold      m' = grown ? max_j t_j : m      t_j = x_j c
//   P_j = 2^(t_j + o), o = log2 range - m  l' = l 2^(o' - o) + sum_j P_j
//
// x is a raw score and c its dequantization: scale log2(e) dq dk. m is -inf until a row sees a key.
// With threshold 0, m is the running maximum.
//
// Scores that are kBiased become exponents by one multiply-add, (bias + x) c + (o - bias c). Its
// addend must be exact, as its error would be common to the keys of a tile: c has 22 bits and bias
// two, and o is a multiple of a grid, next below log2 range - m: of 2 2^floor(log2 c) for the
// largest c of the row, that of any key. So bias c is a multiple of as much or less, and the
// difference has no more than 24 bits where P counts, as |x| < 2^22. Rows whose largest c is too
// large for that are far: t - m is made first, as it is of codes' other scores that are too large.
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
  // The largest c of each row of the thread, in log2 units; called again wherever they are needed,
  // that they take no registers meanwhile.
  using LargestFactors = std::function<std::vector<ir::Value>()>;
  // sums_p: whether l is kept here, of P before it is rounded. largest_factors: where the plan of K
  // finds its largest scale.
  OnlineSoftmax(ir::Builder& b, const ForwardPlan& plan, int num_row_tiles, bool sums_p,
                LargestFactors largest_factors = {});

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

  // After the last step; every thread of a quad holds the same.
  std::vector<ir::Value> row_offset() const;  // log2 range - m; inf for rows without keys
  std::vector<ir::Value> row_sum() const;     // 0 for rows without keys; valid with sums_p

 private:
  using Factors = std::vector<std::vector<ir::Value>>;  // [row of the thread][run of key tiles]

  // log2 P, or the code, = x factor + offset; the rare branch of renew() changes both.
  struct Exponent {
    ir::Var factor, offset;
  };
  using Exponents = std::vector<std::vector<Exponent>>;  // [row of the thread][run of key tiles]

  Factors factors(const Dequantization& dequantization, bool biased, bool masked) const;
  Exponents exponents(const Factors& factors) const;  // their offsets are still to come
  ir::Value tile_max(const Scores& scores, int row, const std::vector<ir::Value>& factors) const;
  std::vector<ir::Value> far_rows(const std::vector<ir::Value>& largest_factors) const;
  // What P is relative to, and the exponents. Scores that are too large change.
  Rescale renew(Scores& scores, const std::vector<ir::Value>& tile_max, const Exponents& exponents,
                bool masked, const std::function<void()>& before_exponentials);
  void renew_references(const Scores& scores, const std::vector<ir::Value>& tile_max,
                        const std::vector<ir::Value>& largest_factors,
                        const std::vector<ir::Value>& far, const Rescale& rescale);
  ir::Value on_grid(ir::Value offset, ir::Value largest_factor) const;
  bool keeps_maxima() const;
  ir::Value is_large(ir::Value tile_max) const;
  float largest_maximum() const;
  void renew_far(size_t row, ir::Value row_max, const Rescale& rescale);
  void rescale_row(size_t row, ir::Value grown, ir::Value exponent, const Rescale& rescale);
  void renew_offsets(const Exponents& exponents, bool biased, bool masked) const;
  ir::Value known_offset(size_t row, bool masked) const;
  void subtract_reference(Scores& scores, size_t row, const std::vector<Exponent>& runs,
                          bool masked) const;
  void exponentials(Scores& scores, size_t row, const std::vector<Exponent>& runs);
  ir::Value in_log2_units(ir::Value t) const;
  ir::Value quad_reduce(ir::Value value, ir::Op op) const;

  ir::Builder& b_;
  bool writes_codes_;
  float unit_;  // that t, m and the threshold are counted in, for each log2 unit
  float threshold_;
  float one_, range_offset_;  // o for a P of 1 and of its range at the reference, if m is 0
  float largest_folded_;      // c of a row that is not far
  bool sums_p_;
  LargestFactors largest_factors_;
  ir::Value limit_of_one_;  // what a maximum must exceed at an o of 0; -inf in warps with far rows
  std::vector<ir::Var> offset_, sum_;  // by row of the thread: o, or of a row that is far -m; l
};

}  // namespace sagejit
