#include "compiler/kernels/online_softmax.h"

#include <bit>
#include <cmath>
#include <limits>

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;
using ir::Var;

namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
// Largest c, for each log2 unit, at which the bias of the scores may go through the multiply-add
// that scales them: its rounding then moves t by less than 0.75 c, under 2^-11.
constexpr float kLargestFoldedFactor = 0x1p-11f;
// Largest t, in log2 units, at which t - m may be one multiply-add: m is off by 2^-24 t.
constexpr float kLargestFoldedScore = 0x1p16f;

// e4m3's codes, for each log2 unit and at 2^0.
constexpr double kCodesPerLog2 = 8, kCodeOfOne = 56;
constexpr double kLeastF16 = 0x1p-24;

}  // namespace

OnlineSoftmax::OnlineSoftmax(ir::Builder& b, const Variant& variant, int num_row_tiles, bool sums_p)
    : b_(b),
      writes_codes_(variant.p.direct_code),
      unit_(writes_codes_ ? static_cast<float>(kCodesPerLog2 * kLeastF16) : 1.0f),
      range_log2_(std::log2(variant.p.range)),
      threshold_(static_cast<float>(variant.rescale_threshold) * unit_),
      offset_(writes_codes_
                  ? static_cast<float>((kCodesPerLog2 * range_log2_ + kCodeOfOne + kCodeOffset) *
                                       kLeastF16)
                  : static_cast<float>(range_log2_)),
      sums_p_(sums_p) {
  for (int row = 0; row < rows_of_thread(num_row_tiles); ++row) {
    max_.push_back(b.var(constant_f32(kNegativeInfinity)));
    sum_.push_back(b.var(constant_f32(0)));
  }
}

Value OnlineSoftmax::quad_reduce(Value value, Op op) const {
  for (const int distance : {1, 2}) {
    value = b_.emit1(op, {value, b_.emit1(Op::kShflXorF32, {value, constant(distance)})});
  }
  return value;
}

OnlineSoftmax::Factors OnlineSoftmax::factors(const Dequantization& dequantization,
                                              bool masked) const {
  Factors result;
  for (const Value row_factor : dequantization.row_factors) {
    const Value row = unit_ == 1 ? row_factor : b_.fmul(row_factor, constant_f32(unit_));
    std::vector<Value> runs;
    for (const Value key : dequantization.key_factors) runs.push_back(b_.fmul(row, key));
    if (runs.empty()) runs.push_back(row);
    // A masked score is -inf: a factor of 0 (a group of zeros) would make it NaN.
    for (Value& c : runs) {
      if (masked) c = b_.fmax(c, constant_f32(std::numeric_limits<float>::min()));
    }
    result.push_back(runs);
  }
  return result;
}

// max_j x_j c over the keys of a row that this thread holds.
Value OnlineSoftmax::tile_max(const Scores& scores, int row,
                              const std::vector<Value>& factors) const {
  const int run_tiles = scores.num_key_tiles() / static_cast<int>(factors.size());
  const int first = 2 * (row % 2);
  Value result;
  for (size_t run = 0; run < factors.size(); ++run) {
    // Biased scores are compared as integers, two new ones at a time (the assembler has a maximum
    // of three).
    Value run_max;
    for (int tile = 0; tile < run_tiles; ++tile) {
      for (int e = first; e < first + 2; ++e) {
        const int key_tile = static_cast<int>(run) * run_tiles + tile;
        const Var& element = scores.tiles[row / 2][key_tile][e];
        const Value x = scores.is_biased() ? b_.get(element) : get_score(b_, element);
        run_max = !run_max ? x : scores.is_biased() ? b_.max(run_max, x) : b_.fmax(run_max, x);
      }
    }
    if (scores.is_biased()) {
      run_max = b_.fsub(b_.emit1(Op::kF32Bits, {run_max}), constant_f32(kScoreBias));
    }
    run_max = b_.fmul(run_max, factors[run]);
    result = result ? b_.fmax(result, run_max) : run_max;
  }
  return result;
}

Value OnlineSoftmax::limit(size_t row) const {
  const Value m = b_.get(max_[row]);
  return threshold_ == 0 ? m : b_.fadd(m, constant_f32(threshold_));
}

void OnlineSoftmax::renew_maxima(const std::vector<Value>& tile_max, const Rescale& rescale) {
  for (size_t row = 0; row < max_.size(); ++row) {
    const Value m = b_.get(max_[row]);
    const Value row_max = quad_reduce(tile_max[row], Op::kMaxF32);
    const Value grown = b_.emit1(Op::kLtF32, {limit(row), row_max});
    const Value factor =
        b_.select(grown, b_.ex2(in_log2_units(b_.fsub(m, row_max))), constant_f32(1));
    b_.set(max_[row], b_.select(grown, row_max, m));
    if (sums_p_) b_.set(sum_[row], b_.fmul(b_.get(sum_[row]), factor));
    b_.set(rescale.factors[row], factor);
  }
}

// What P is relative to. `masked`: while no key was seen, any finite number gives P = 0.
Value OnlineSoftmax::reference(size_t row, bool masked) const {
  const Value m = b_.get(max_[row]);
  if (!masked) return m;
  const Value none = b_.emit1(Op::kEqF32, {m, constant_f32(kNegativeInfinity)});
  return b_.select(none, constant_f32(0), m);
}

// log2 range - m, and the scores' bias taken off.
void OnlineSoftmax::renew_offsets(const Exponents& exponents, bool biased, bool masked) const {
  for (size_t row = 0; row < max_.size(); ++row) {
    const Value m = reference(row, masked);
    const Value of_row = offset_ == 0 ? b_.fneg(m) : b_.fsub(constant_f32(offset_), m);
    for (const Exponent& run : exponents[row]) {
      b_.set(run.offset,
             biased ? b_.fma(constant_f32(-kScoreBias), b_.get(run.factor), of_row) : of_row);
    }
  }
}

// A row's t - m in two roundings, as m itself was made: the largest is exactly 0, and none is above
// the threshold.
void OnlineSoftmax::subtract_reference(Scores& scores, size_t row,
                                       const std::vector<Exponent>& runs, bool masked) const {
  const Value m = reference(row, masked);
  const int run_tiles = scores.num_key_tiles() / static_cast<int>(runs.size());
  for (int tile = 0; tile < scores.num_key_tiles(); ++tile) {
    const Value factor = b_.get(runs[tile / run_tiles].factor);
    for (size_t e = 2 * (row % 2); e < 2 * (row % 2) + 2; ++e) {
      const Var& element = scores.tiles[row / 2][tile][e];
      Value x = get_score(b_, element);
      if (scores.is_biased()) x = b_.fsub(x, constant_f32(kScoreBias));
      const Value above = b_.fsub(b_.fmul(x, factor), m);
      const Value exceeds = b_.emit1(Op::kLtF32, {constant_f32(threshold_), above});
      const Value bounded = b_.select(exceeds, constant_f32(threshold_), above);
      set_score(b_, element, bounded);
    }
  }
  for (const Exponent& run : runs) {
    b_.set(run.factor, constant_f32(1));
    b_.set(run.offset, constant_f32(offset_));
  }
}

// Without a bias too large scores are a matter of codes alone, which have no infinity to saturate
// at.
bool OnlineSoftmax::may_be_large(const Scores& scores) const {
  return scores.is_biased() || writes_codes_;
}

// Whether a row's scores are too large for x c - m - bias c in one multiply-add: biased scores by
// their factors alone.
Value OnlineSoftmax::has_large_factor(const std::vector<Exponent>& runs) const {
  Value any;
  for (const Exponent& run : runs) {
    const Value large =
        b_.emit1(Op::kLtF32, {constant_f32(kLargestFoldedFactor * unit_), b_.get(run.factor)});
    any = any ? b_.either(any, large) : large;
  }
  return any;
}

Value OnlineSoftmax::is_large(const Scores& scores, Value tile_max,
                              const std::vector<Exponent>& runs, bool masked) const {
  if (!scores.is_biased()) {
    const Value large = b_.emit1(
        Op::kLtF32, {constant_f32(kLargestFoldedScore * unit_), b_.emit1(Op::kAbsF32, {tile_max})});
    if (!masked) return large;  // a tile without keys is none
    return b_.both(large, b_.emit1(Op::kLtF32, {constant_f32(kNegativeInfinity), tile_max}));
  }
  return has_large_factor(runs);
}

// The two rare cases behind one branch: maxima that were outgrown, and scores so large that they
// must be taken relative to them first. A row outgrew its limit if any thread's keys did, so
// threads need to meet in the rare case alone. Rows are independent of one another: which ones
// share a warp changes no bit.
OnlineSoftmax::Rescale OnlineSoftmax::renew(Scores& scores, const std::vector<Value>& tile_max,
                                            const Exponents& exponents, bool masked,
                                            const std::function<void()>& before_exponentials) {
  Rescale rescale;
  std::vector<Value> large;
  for (size_t row = 0; row < max_.size(); ++row) {
    const Value grown = b_.emit1(Op::kLtF32, {limit(row), tile_max[row]});
    rescale.any = rescale.any ? b_.either(rescale.any, grown) : grown;
    rescale.factors.push_back(b_.var(constant_f32(1)));
    if (!may_be_large(scores)) continue;
    large.push_back(is_large(scores, tile_max[row], exponents[row], masked));
    rescale.any = b_.either(rescale.any, large[row]);
  }
  rescale.any = b_.emit1(Op::kAnySync, {rescale.any});
  // In front of the branch, which the assembler moves no arithmetic across.
  if (before_exponentials) before_exponentials();
  b_.when(rescale.any, [&] {
    renew_maxima(tile_max, rescale);
    if (may_be_large(scores)) renew_offsets(exponents, scores.is_biased(), masked);
    for (size_t row = 0; row < large.size(); ++row) {
      b_.when(large[row], [&] { subtract_reference(scores, row, exponents[row], masked); });
    }
  });
  return rescale;
}

// P of one row, or its codes; and the sums of P, if they are kept here.
OnlineSoftmax::RowTotals OnlineSoftmax::exponentials(Scores& scores, size_t row,
                                                     const std::vector<Exponent>& runs,
                                                     bool finds_largest) const {
  const int run_tiles = scores.num_key_tiles() / static_cast<int>(runs.size());
  RowTotals totals;
  for (int tile = 0; tile < scores.num_key_tiles(); ++tile) {
    const Value factor = b_.get(runs[tile / run_tiles].factor);
    const Value offset = b_.get(runs[tile / run_tiles].offset);
    for (size_t e = 2 * (row % 2); e < 2 * (row % 2) + 2; ++e) {
      const Var& element = scores.tiles[row / 2][tile][e];
      const Value x = get_score(b_, element);
      const Value exponent = b_.fma(x, factor, offset);
      const Value p = writes_codes_ ? exponent : b_.ex2(exponent);
      set_score(b_, element, p);
      if (finds_largest) {
        const Value bits = b_.emit1(Op::kBitsF32, {p});
        totals.largest_bits = totals.largest_bits ? b_.max(totals.largest_bits, bits) : bits;
      }
      if (!sums_p_) continue;
      Value& sum = totals.sums[tile % 2];
      sum = sum ? b_.fadd(sum, p) : p;
    }
  }
  return totals;
}

void OnlineSoftmax::add(size_t row, const std::array<Value, 2>& sums) const {
  if (!sums_p_) return;
  const Value sum = sums[1] ? b_.fadd(sums[0], sums[1]) : sums[0];
  b_.set(sum_[row], b_.fadd(b_.get(sum_[row]), sum));
}

OnlineSoftmax::Exponents OnlineSoftmax::exponents(const Factors& factors) const {
  Exponents result;
  for (const std::vector<Value>& row : factors) {
    result.emplace_back();
    for (const Value factor : row) {
      result.back().push_back({b_.var(factor), b_.var(constant_f32(0))});
    }
  }
  return result;
}

OnlineSoftmax::Rescale OnlineSoftmax::refer(Scores& scores, const Factors& factors,
                                            const Exponents& exponents, bool masked,
                                            const std::function<void()>& before_exponentials) {
  std::vector<Value> maxima;
  for (const std::vector<Value>& row : factors) {
    maxima.push_back(tile_max(scores, static_cast<int>(maxima.size()), row));
  }
  // The branch changes them for scores that are too large; else they can wait for it, and take no
  // registers meanwhile.
  if (may_be_large(scores)) renew_offsets(exponents, scores.is_biased(), masked);
  Rescale rescale = renew(scores, maxima, exponents, masked, before_exponentials);
  if (!may_be_large(scores)) renew_offsets(exponents, scores.is_biased(), masked);
  return rescale;
}

OnlineSoftmax::Rescale OnlineSoftmax::step(Scores& scores, const Dequantization& dequantization,
                                           bool masked,
                                           const std::function<void()>& before_exponentials) {
  const Factors of_scores = factors(dequantization, masked);
  const Exponents of_p = exponents(of_scores);
  Rescale rescale = refer(scores, of_scores, of_p, masked, before_exponentials);
  // A row's sum right behind its exponentials: the order that was measured.
  for (size_t row = 0; row < max_.size(); ++row) {
    add(row, exponentials(scores, row, of_p[row], false).sums);
  }
  return rescale;
}

// The assembler has the maxima and the sums run between the exponentials, as all of them are asked
// for in front of the branch; what nobody asks for there it puts behind.
void OnlineSoftmax::speculate(Scores& scores, const Dequantization& dequantization,
                              const std::function<void()>& repeat_scores,
                              const std::function<void(const Rescale&)>& rescale_values) {
  const Factors of_scores = factors(dequantization, false);
  const Exponents of_p = exponents(of_scores);
  renew_offsets(of_p, scores.is_biased(), false);
  std::vector<RowTotals> totals;
  std::vector<std::vector<Var>> sums(max_.size());
  Value failed, all = constant_f32(0);
  for (size_t row = 0; row < max_.size(); ++row) {
    totals.push_back(exponentials(scores, row, of_p[row], true));
    for (const Value sum : totals[row].sums) {
      if (sum) sums[row].push_back(b_.var(sum));
    }
  }
  for (size_t row = 0; row < max_.size(); ++row) {
    const Value grown = b_.less(constant(largest_speculated_bits()), totals[row].largest_bits);
    failed = failed ? b_.either(failed, grown) : grown;
    failed = b_.either(failed, has_large_factor(of_p[row]));
    for (const Var& sum : sums[row]) all = b_.fadd(all, b_.get(sum));
  }
  // No P is negative, which no compiler knows: it must have the sums in front of the branch.
  const Value never = b_.emit1(Op::kLtF32, {all, constant_f32(0)});
  b_.when(b_.emit1(Op::kAnySync, {b_.either(failed, never)}), [&] {
    repeat_scores();
    const Exponents again = exponents(of_scores);
    const Rescale rescale = refer(scores, of_scores, again, false, {});
    for (size_t row = 0; row < max_.size(); ++row) {
      const RowTotals of_row = exponentials(scores, row, again[row], false);
      for (size_t i = 0; i < sums[row].size(); ++i) b_.set(sums[row][i], of_row.sums[i]);
    }
    rescale_values(rescale);
  });
  for (size_t row = 0; row < max_.size() && sums_p_; ++row) {
    add(row, {b_.get(sums[row][0]), b_.get(sums[row][1])});
  }
}

// P above which a score may have outgrown the limit, as bits, which order as P does: none is
// negative. A little less than 2^threshold times the range, for what ex2.approx, the offset of the
// multiply-add in front of it, the reference and its limit round: less than 2^-11.2 of P.
int32_t OnlineSoftmax::largest_speculated_bits() const {
  constexpr double kRounding = 0x1p-10;
  const double largest = std::exp2(threshold_ + range_log2_) * (1 - kRounding);
  return std::bit_cast<int32_t>(static_cast<float>(largest));
}

Value OnlineSoftmax::in_log2_units(Value t) const {
  return unit_ == 1 ? t : b_.fmul(t, constant_f32(1 / unit_));
}

std::vector<Value> OnlineSoftmax::row_max() const {
  std::vector<Value> result;
  for (const Var& variable : max_) result.push_back(in_log2_units(b_.get(variable)));
  return result;
}

std::vector<Value> OnlineSoftmax::row_sum() const {
  std::vector<Value> result;
  for (const Var& variable : sum_) result.push_back(quad_reduce(b_.get(variable), Op::kAddF32));
  return result;
}

}  // namespace sagejit
