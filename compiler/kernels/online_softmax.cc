#include "compiler/kernels/online_softmax.h"

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
// Largest c at which the bias of the scores may go through the multiply-add that scales them: its
// rounding then moves t by less than 0.75 c, under 2^-11.
constexpr float kLargestFoldedFactor = 0x1p-11f;

}  // namespace

OnlineSoftmax::OnlineSoftmax(ir::Builder& b, const Variant& variant, int num_row_tiles, bool sums_p)
    : b_(b),
      threshold_(static_cast<float>(variant.rescale_threshold)),
      range_log2_(static_cast<float>(std::log2(variant.p.range))),
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
  for (const Value row : dequantization.row_factors) {
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
        Value x = b_.get(scores.tiles[row / 2][key_tile][e]);
        if (!scores.biased) x = b_.emit1(Op::kF32Bits, {x});
        run_max = !run_max ? x : scores.biased ? b_.max(run_max, x) : b_.fmax(run_max, x);
      }
    }
    if (scores.biased) {
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
    const Value factor = b_.select(grown, b_.ex2(b_.fsub(m, row_max)), constant_f32(1));
    b_.set(max_[row], b_.select(grown, row_max, m));
    if (sums_p_) b_.set(sum_[row], b_.fmul(b_.get(sum_[row]), factor));
    b_.set(rescale.factors[row], factor);
  }
}

void OnlineSoftmax::take_off_bias(Scores& scores, const Var& bias) const {
  b_.set(bias, constant_f32(0));
  for (const Var& x : scores.registers()) {
    const Value number = b_.fsub(b_.emit1(Op::kF32Bits, {b_.get(x)}), constant_f32(kScoreBias));
    b_.set(x, b_.emit1(Op::kBitsF32, {number}));
  }
}

// The two rare cases behind one branch: maxima that were outgrown, and factors so large that the
// bias must be subtracted from the scores themselves, exactly. A row outgrew its limit if any
// thread's keys did, so threads need to meet in the rare case alone. Rows are independent of one
// another: which ones share a warp changes no bit.
OnlineSoftmax::Renewal OnlineSoftmax::renew(Scores& scores, const std::vector<Value>& tile_max,
                                            const Factors& factors,
                                            const std::function<void()>& before_exponentials) {
  Rescale rescale;
  Value large;
  for (size_t row = 0; row < max_.size(); ++row) {
    const Value grown = b_.emit1(Op::kLtF32, {limit(row), tile_max[row]});
    rescale.any = rescale.any ? b_.either(rescale.any, grown) : grown;
    rescale.factors.push_back(b_.var(constant_f32(1)));
    for (size_t run = 0; scores.biased && run < factors[row].size(); ++run) {
      const Value is_large =
          b_.emit1(Op::kLtF32, {constant_f32(kLargestFoldedFactor), factors[row][run]});
      large = large ? b_.either(large, is_large) : is_large;
    }
  }
  rescale.any = b_.emit1(Op::kAnySync, {large ? b_.either(rescale.any, large) : rescale.any});
  const Var bias = b_.var(constant_f32(kScoreBias));
  // In front of the branch, which the assembler moves no arithmetic across.
  if (before_exponentials) before_exponentials();
  b_.when(rescale.any, [&] {
    renew_maxima(tile_max, rescale);
    if (large) b_.when(large, [&] { take_off_bias(scores, bias); });
  });
  return {rescale, scores.biased ? b_.get(bias) : Value{}};
}

// What is added to x c in the exponent, by row and run: log2 range - m, and the scores' bias taken
// off.
OnlineSoftmax::Factors OnlineSoftmax::offsets(const Factors& factors, Value bias,
                                              bool masked) const {
  Factors result;
  for (size_t row = 0; row < max_.size(); ++row) {
    Value reference = b_.get(max_[row]);
    if (masked) {  // no key seen yet: any finite reference gives P = 0
      const Value none = b_.emit1(Op::kEqF32, {reference, constant_f32(kNegativeInfinity)});
      reference = b_.select(none, constant_f32(0), reference);
    }
    const Value offset =
        range_log2_ == 0 ? b_.fneg(reference) : b_.fsub(constant_f32(range_log2_), reference);
    std::vector<Value> runs(factors[row].size(), offset);
    for (size_t run = 0; bias && run < runs.size(); ++run) {
      runs[run] = b_.fma(b_.fneg(bias), factors[row][run], offset);
    }
    result.push_back(runs);
  }
  return result;
}

// P of one row; returns its sum.
Value OnlineSoftmax::exponentials(Scores& scores, size_t row, const std::vector<Value>& factors,
                                  const std::vector<Value>& offsets) const {
  const int run_tiles = scores.num_key_tiles() / static_cast<int>(factors.size());
  // Sums of alternate tiles: two short chains of additions instead of a long one.
  std::array<Value, 2> sums;
  for (int tile = 0; tile < scores.num_key_tiles(); ++tile) {
    for (size_t e = 2 * (row % 2); e < 2 * (row % 2) + 2; ++e) {
      const Var& element = scores.tiles[row / 2][tile][e];
      const Value x = b_.emit1(Op::kF32Bits, {b_.get(element)});
      const Value p = b_.ex2(b_.fma(x, factors[tile / run_tiles], offsets[tile / run_tiles]));
      b_.set(element, b_.emit1(Op::kBitsF32, {p}));
      Value& sum = sums[tile % 2];
      sum = sum ? b_.fadd(sum, p) : p;
    }
  }
  return sums[1] ? b_.fadd(sums[0], sums[1]) : sums[0];
}

OnlineSoftmax::Rescale OnlineSoftmax::step(Scores& scores, const Dequantization& dequantization,
                                           bool masked,
                                           const std::function<void()>& before_exponentials) {
  const Factors c = factors(dequantization, masked);
  std::vector<Value> maxima;
  for (size_t row = 0; row < max_.size(); ++row) {
    maxima.push_back(tile_max(scores, static_cast<int>(row), c[row]));
  }
  const Renewal renewal = renew(scores, maxima, c, before_exponentials);
  const Factors offset = offsets(c, renewal.bias, masked);
  for (size_t row = 0; row < max_.size(); ++row) {
    const Value sum = exponentials(scores, row, c[row], offset[row]);
    if (sums_p_) b_.set(sum_[row], b_.fadd(b_.get(sum_[row]), sum));
  }
  return renewal.rescale;
}

std::vector<Value> OnlineSoftmax::row_max() const {
  std::vector<Value> result;
  for (const Var& variable : max_) result.push_back(b_.get(variable));
  return result;
}

std::vector<Value> OnlineSoftmax::row_sum() const {
  std::vector<Value> result;
  for (const Var& variable : sum_) result.push_back(quad_reduce(b_.get(variable), Op::kAddF32));
  return result;
}

}  // namespace sagejit
