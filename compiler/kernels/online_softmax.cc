#include "compiler/kernels/online_softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;
using ir::Var;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Largest m, in log2 units, at which t + o may be one multiply-add: m and o are off by up to 2^-10
// each then, and P of up to 255.35 is still rounded to 255.
constexpr double kLargestFoldedMaximum = 0x1p15;
// Largest factor that o may have a grid for: P of the reference may be smaller than its range by
// twice that, in log2 units.
constexpr double kLargestGriddedFactor = 0x1p-4;
// Bits of an f32 that are its exponent; those of its mantissa that a factor has not.
constexpr int32_t kExponentBits = 0x7f800000, kDroppedBits = 3;

// e4m3's codes, for each log2 unit and at 2^0.
constexpr double kCodesPerLog2 = 8, kCodeOfOne = 56;
constexpr double kLeastF16 = 0x1p-24;

// o of a reference of 0.
float offset_of_range(const Variant& variant) {
  const double range_log2 = std::log2(variant.p.range);
  if (!variant.p.direct_code) return static_cast<float>(range_log2);
  return static_cast<float>((kCodesPerLog2 * range_log2 + kCodeOfOne + kCodeOffset) * kLeastF16);
}

// The largest factor, a power of 2, at which one multiply-add is enough for any score.
float largest_folded_factor(const ForwardPlan& plan) {
  const double largest_score = double{plan.q.code_max} * plan.k.code_max * plan.q.head_dim;
  const double factor = std::min(kLargestGriddedFactor, kLargestFoldedMaximum / largest_score);
  return static_cast<float>(std::exp2(std::floor(std::log2(factor))));
}

}  // namespace

OnlineSoftmax::OnlineSoftmax(ir::Builder& b, const ForwardPlan& plan, int num_row_tiles,
                             bool sums_p, LargestFactors largest_factors)
    : b_(b),
      writes_codes_(plan.variant.p.direct_code),
      unit_(writes_codes_ ? static_cast<float>(kCodesPerLog2 * kLeastF16) : 1.0f),
      threshold_(static_cast<float>(plan.variant.rescale_threshold) * unit_),
      one_(writes_codes_ ? static_cast<float>((kCodeOfOne + kCodeOffset) * kLeastF16) : 0.0f),
      range_offset_(offset_of_range(plan.variant)),
      largest_folded_(largest_folded_factor(plan)),
      sums_p_(sums_p),
      largest_factors_(std::move(largest_factors)) {
  for (int row = 0; row < rows_of_thread(num_row_tiles); ++row) {
    offset_.push_back(b.var(constant_f32(kInfinity)));
    sum_.push_back(b.var(constant_f32(0)));
  }
  limit_of_one_ = constant_f32(keeps_maxima() ? threshold_ : threshold_ + range_offset_);
  if (!largest_factors_) return;
  Value any;
  for (const Value far : far_rows(largest_factors_())) any = any ? b.either(any, far) : far;
  any = b.emit1(Op::kAnySync, {any});
  limit_of_one_ = b.select(any, constant_f32(-kInfinity), limit_of_one_);
}

// By row of the thread: those that one multiply-add is not enough for.
std::vector<Value> OnlineSoftmax::far_rows(const std::vector<Value>& largest_factors) const {
  std::vector<Value> far;
  for (const Value c : largest_factors) {
    far.push_back(b_.emit1(Op::kLtF32, {constant_f32(largest_folded_), c}));
  }
  return far;
}

Value OnlineSoftmax::quad_reduce(Value value, Op op) const {
  for (const int distance : {1, 2}) {
    value = b_.emit1(op, {value, b_.emit1(Op::kShflXorF32, {value, constant(distance)})});
  }
  return value;
}

OnlineSoftmax::Factors OnlineSoftmax::factors(const Dequantization& dequantization, bool biased,
                                              bool masked) const {
  Factors result;
  for (const Value row_factor : dequantization.row_factors) {
    const Value row = unit_ == 1 ? row_factor : b_.fmul(row_factor, constant_f32(unit_));
    std::vector<Value> runs;
    for (const Value key : dequantization.key_factors) runs.push_back(b_.fmul(row, key));
    if (runs.empty()) runs.push_back(row);
    for (Value& c : runs) {
      if (biased) {
        const Value bits = b_.bit_and(b_.emit1(Op::kBitsF32, {c}), constant(~kDroppedBits));
        c = b_.emit1(Op::kF32Bits, {bits});
      }
      // A masked score is -inf: a factor of 0 (a group of zeros) would make it NaN.
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

void OnlineSoftmax::renew_references(const Scores& scores, const std::vector<Value>& tile_max,
                                     const std::vector<Value>& largest_factors,
                                     const std::vector<Value>& far, const Rescale& rescale) {
  for (size_t row = 0; row < offset_.size(); ++row) {
    const Value row_max = quad_reduce(tile_max[row], Op::kMaxF32);
    const auto renew_near = [&] {
      const Value before = b_.get(offset_[row]);
      const Value limit = b_.fsub(constant_f32(threshold_ + range_offset_), before);
      const Value grown = b_.emit1(Op::kLtF32, {limit, row_max});
      Value o = b_.fsub(constant_f32(range_offset_), row_max);
      if (scores.is_biased()) o = on_grid(o, largest_factors[row]);
      rescale_row(row, grown, b_.fsub(o, before), rescale);
      b_.set(offset_[row], b_.select(grown, o, before));
    };
    if (keeps_maxima()) {
      renew_far(row, row_max, rescale);
    } else if (far.empty()) {
      renew_near();
    } else {
      b_.when(
          far[row], [&] { renew_far(row, row_max, rescale); }, renew_near);
    }
  }
}

void OnlineSoftmax::rescale_row(size_t row, Value grown, Value exponent, const Rescale& rescale) {
  const Value factor = b_.select(grown, b_.ex2(in_log2_units(exponent)), constant_f32(1));
  if (sums_p_) b_.set(sum_[row], b_.fmul(b_.get(sum_[row]), factor));
  b_.set(rescale.factors[row], factor);
}

// The multiple next below of the grid of a row's largest factor.
Value OnlineSoftmax::on_grid(Value offset, Value largest_factor) const {
  constexpr float kRounding = kScoreBias;  // x + kRounding - x is x rounded to an integer
  const Value exponent =
      b_.bit_and(b_.emit1(Op::kBitsF32, {largest_factor}), constant(kExponentBits));
  const Value grid = b_.fmul(b_.emit1(Op::kF32Bits, {exponent}), constant_f32(2 * unit_));
  const Value shift = b_.fmul(grid, constant_f32(kRounding));
  const Value nearest = b_.fsub(b_.fadd(offset, shift), shift);
  const Value is_above = b_.emit1(Op::kLtF32, {offset, nearest});
  return b_.select(is_above, b_.fsub(nearest, grid), nearest);
}

// A row that is far keeps -m in the place of o, which would lose bits of it. So do all rows whose
// scores are not integers where codes have no infinity to saturate at: no factor says how large
// such scores are, as they have the mean's in them, or K's scales.
bool OnlineSoftmax::keeps_maxima() const {
  return writes_codes_ && !largest_factors_;
}
Value OnlineSoftmax::is_large(Value tile_max) const {
  const Value large =
      b_.emit1(Op::kLtF32, {constant_f32(largest_maximum()), b_.emit1(Op::kAbsF32, {tile_max})});
  // A tile without keys is none.
  return b_.both(large, b_.emit1(Op::kLtF32, {constant_f32(-kInfinity), tile_max}));
}
float OnlineSoftmax::largest_maximum() const {
  return static_cast<float>(kLargestFoldedMaximum) * unit_;
}
void OnlineSoftmax::renew_far(size_t row, Value row_max, const Rescale& rescale) {
  const Value before = b_.fneg(b_.get(offset_[row]));
  const Value limit = b_.fadd(before, constant_f32(threshold_));
  const Value grown = b_.emit1(Op::kLtF32, {limit, row_max});
  const Value m = b_.select(grown, row_max, before);
  rescale_row(row, grown, b_.fsub(before, m), rescale);
  b_.set(offset_[row], b_.fneg(m));
}

// While no key was seen, any finite number gives P = 0.
Value OnlineSoftmax::known_offset(size_t row, bool masked) const {
  const Value o = b_.get(offset_[row]);
  if (!masked) return o;
  const Value none = b_.emit1(Op::kEqF32, {o, constant_f32(kInfinity)});
  return b_.select(none, constant_f32(0), o);
}

// What is added to a score, the scores' bias taken off.
void OnlineSoftmax::renew_offsets(const Exponents& exponents, bool biased, bool masked) const {
  for (size_t row = 0; row < offset_.size(); ++row) {
    Value o = known_offset(row, masked);
    if (keeps_maxima()) o = b_.fadd(o, constant_f32(range_offset_));
    for (const Exponent& run : exponents[row]) {
      b_.set(run.offset, biased ? b_.fma(constant_f32(-kScoreBias), b_.get(run.factor), o) : o);
    }
  }
}

// t - m of a row that is far, in two roundings, as m itself was made: the largest is exactly 0, and
// none is above the threshold.
void OnlineSoftmax::subtract_reference(Scores& scores, size_t row,
                                       const std::vector<Exponent>& runs, bool masked) const {
  const Value m = b_.fneg(known_offset(row, masked));
  const int run_tiles = scores.num_key_tiles() / static_cast<int>(runs.size());
  for (int tile = 0; tile < scores.num_key_tiles(); ++tile) {
    const Value factor = b_.get(runs[tile / run_tiles].factor);
    for (size_t e = 2 * (row % 2); e < 2 * (row % 2) + 2; ++e) {
      const Var& element = scores.tiles[row / 2][tile][e];
      Value x = get_score(b_, element);
      if (scores.is_biased()) x = b_.fsub(x, constant_f32(kScoreBias));
      const Value above = b_.fsub(b_.fmul(x, factor), m);
      const Value exceeds = b_.emit1(Op::kLtF32, {constant_f32(threshold_), above});
      set_score(b_, element, b_.select(exceeds, constant_f32(threshold_), above));
    }
  }
  for (const Exponent& run : runs) {
    b_.set(run.factor, constant_f32(1));
    b_.set(run.offset, constant_f32(range_offset_));
  }
}

// The rare cases behind one branch: maxima that were outgrown, and rows that are far, which go
// there with every tile. A row outgrew its limit if any thread's keys did, so threads need to meet
// in the rare case alone. Rows are independent of one another: which ones share a warp changes no
// bit.
OnlineSoftmax::Rescale OnlineSoftmax::renew(Scores& scores, const std::vector<Value>& tile_max,
                                            const Exponents& exponents, bool masked,
                                            const std::function<void()>& before_exponentials) {
  Rescale rescale;
  for (size_t row = 0; row < offset_.size(); ++row) {
    const Value limit = b_.fsub(limit_of_one_, b_.get(offset_[row]));
    const Value grown = b_.emit1(Op::kLtF32, {limit, tile_max[row]});
    rescale.any = rescale.any ? b_.either(rescale.any, grown) : grown;
    if (keeps_maxima()) rescale.any = b_.either(rescale.any, is_large(tile_max[row]));
    rescale.factors.push_back(b_.var(constant_f32(1)));
  }
  rescale.any = b_.emit1(Op::kAnySync, {rescale.any});
  // In front of the branch, which the assembler moves no arithmetic across.
  if (before_exponentials) before_exponentials();
  b_.when(rescale.any, [&] {
    std::vector<Value> largest;
    if (largest_factors_) largest = largest_factors_();
    std::vector<Value> far = far_rows(largest);
    renew_references(scores, tile_max, largest, far, rescale);
    for (size_t row = 0; row < offset_.size() && keeps_maxima(); ++row) {
      far.push_back(is_large(tile_max[row]));
    }
    if (far.empty()) return;
    renew_offsets(exponents, scores.is_biased(), masked);
    for (size_t row = 0; row < far.size(); ++row) {
      b_.when(far[row], [&] { subtract_reference(scores, row, exponents[row], masked); });
    }
  });
  return rescale;
}

// P of one row, or its codes; and the sum of P, if it is kept here: in two short chains.
void OnlineSoftmax::exponentials(Scores& scores, size_t row, const std::vector<Exponent>& runs) {
  const int run_tiles = scores.num_key_tiles() / static_cast<int>(runs.size());
  std::array<Value, 2> sums;
  for (int tile = 0; tile < scores.num_key_tiles(); ++tile) {
    const Value factor = b_.get(runs[tile / run_tiles].factor);
    const Value offset = b_.get(runs[tile / run_tiles].offset);
    for (size_t e = 2 * (row % 2); e < 2 * (row % 2) + 2; ++e) {
      const Var& element = scores.tiles[row / 2][tile][e];
      const Value exponent = b_.fma(get_score(b_, element), factor, offset);
      const Value p = writes_codes_ ? exponent : b_.ex2(exponent);
      set_score(b_, element, p);
      Value& sum = sums[tile % 2];
      if (sums_p_) sum = sum ? b_.fadd(sum, p) : p;
    }
  }
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

OnlineSoftmax::Rescale OnlineSoftmax::step(Scores& scores, const Dequantization& dequantization,
                                           bool masked,
                                           const std::function<void()>& before_exponentials) {
  const Factors of_scores = factors(dequantization, scores.is_biased(), masked);
  std::vector<Value> maxima;
  for (const std::vector<Value>& row : of_scores) {
    maxima.push_back(tile_max(scores, static_cast<int>(maxima.size()), row));
  }
  const Exponents of_p = exponents(of_scores);
  // The branch changes them for scores that are too large; else they can wait for it, and take no
  // registers meanwhile.
  const bool may_be_far = largest_factors_ || keeps_maxima();
  if (may_be_far) renew_offsets(of_p, scores.is_biased(), masked);
  Rescale rescale = renew(scores, maxima, of_p, masked, before_exponentials);
  if (!may_be_far) renew_offsets(of_p, scores.is_biased(), masked);
  for (size_t row = 0; row < offset_.size(); ++row) exponentials(scores, row, of_p[row]);
  return rescale;
}

Value OnlineSoftmax::in_log2_units(Value t) const {
  return unit_ == 1 ? t : b_.fmul(t, constant_f32(1 / unit_));
}

std::vector<Value> OnlineSoftmax::row_offset() const {
  std::vector<Value> far, result;
  if (largest_factors_) far = far_rows(largest_factors_());
  for (size_t row = 0; row < offset_.size(); ++row) {
    Value o = b_.get(offset_[row]);
    if (!far.empty()) o = b_.select(far[row], b_.fadd(o, constant_f32(range_offset_)), o);
    if (keeps_maxima()) o = b_.fadd(o, constant_f32(range_offset_));
    result.push_back(one_ == 0 ? o : in_log2_units(b_.fsub(o, constant_f32(one_))));
  }
  return result;
}

std::vector<Value> OnlineSoftmax::row_sum() const {
  std::vector<Value> result;
  for (const Var& variable : sum_) result.push_back(quad_reduce(b_.get(variable), Op::kAddF32));
  return result;
}

}  // namespace sagejit
