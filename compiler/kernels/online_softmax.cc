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

// max_j x_j c over the row, in this thread's keys and then the quad's.
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
  return quad_reduce(result, Op::kMaxF32);
}

// Renews the maxima that were outgrown. Rows are independent of one another: which ones share a
// warp changes no bit.
OnlineSoftmax::Rescale OnlineSoftmax::renew(const std::vector<Value>& tile_max) {
  Rescale result;
  std::vector<Value> grown;
  for (size_t row = 0; row < max_.size(); ++row) {
    const Value m = b_.get(max_[row]);
    const Value limit = threshold_ == 0 ? m : b_.fadd(m, constant_f32(threshold_));
    grown.push_back(b_.emit1(Op::kLtF32, {limit, tile_max[row]}));
    result.any = result.any ? b_.either(result.any, grown[row]) : grown[row];
    result.factors.push_back(b_.var(constant_f32(1)));
  }
  result.any = b_.emit1(Op::kAnySync, {result.any});
  b_.when(result.any, [&] {
    for (size_t row = 0; row < max_.size(); ++row) {
      const Value shrunk = b_.ex2(b_.fsub(b_.get(max_[row]), tile_max[row]));
      const Value factor = b_.select(grown[row], shrunk, constant_f32(1));
      b_.set(max_[row], b_.select(grown[row], tile_max[row], b_.get(max_[row])));
      if (sums_p_) b_.set(sum_[row], b_.fmul(b_.get(sum_[row]), factor));
      b_.set(result.factors[row], factor);
    }
  });
  return result;
}

// With large factors the bias is subtracted from the scores themselves, exactly. Returns what is
// still in them.
Var OnlineSoftmax::take_off_bias(Scores& scores, const Factors& factors) const {
  const Var bias = b_.var(constant_f32(kScoreBias));
  Value largest;
  for (const std::vector<Value>& runs : factors) {
    for (const Value c : runs) largest = largest ? b_.fmax(largest, c) : c;
  }
  b_.when(b_.emit1(Op::kLtF32, {constant_f32(kLargestFoldedFactor), largest}), [&] {
    b_.set(bias, constant_f32(0));
    for (auto& row : scores.tiles) {
      for (auto& tile : row) {
        for (const Var& x : tile) {
          const Value number =
              b_.fsub(b_.emit1(Op::kF32Bits, {b_.get(x)}), constant_f32(kScoreBias));
          b_.set(x, b_.emit1(Op::kBitsF32, {number}));
        }
      }
    }
  });
  return bias;
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
Value OnlineSoftmax::exponentials(const Scores& scores, size_t row,
                                  const std::vector<Value>& factors,
                                  const std::vector<Value>& offsets, Probabilities& p) const {
  const int run_tiles = scores.num_key_tiles() / static_cast<int>(factors.size());
  // Sums of alternate tiles: two short chains of additions instead of a long one.
  std::array<Value, 2> sums;
  for (int tile = 0; tile < scores.num_key_tiles(); ++tile) {
    for (size_t e = 2 * (row % 2); e < 2 * (row % 2) + 2; ++e) {
      const Value x = b_.emit1(Op::kF32Bits, {b_.get(scores.tiles[row / 2][tile][e])});
      const Value t = b_.fma(x, factors[tile / run_tiles], offsets[tile / run_tiles]);
      const Value probability = b_.ex2(t);
      p[row / 2][tile][e] = probability;
      Value& sum = sums[tile % 2];
      sum = sum ? b_.fadd(sum, probability) : probability;
    }
  }
  return sums[1] ? b_.fadd(sums[0], sums[1]) : sums[0];
}

OnlineSoftmax::Rescale OnlineSoftmax::step(Scores& scores, const Dequantization& dequantization,
                                           bool masked, Probabilities& p) {
  const Factors c = factors(dequantization, masked);
  std::vector<Value> maxima;
  for (size_t row = 0; row < max_.size(); ++row) {
    maxima.push_back(tile_max(scores, static_cast<int>(row), c[row]));
  }
  const Rescale rescale = renew(maxima);
  const Value bias = scores.biased ? b_.get(take_off_bias(scores, c)) : Value{};
  const Factors offset = offsets(c, bias, masked);
  p.assign(scores.tiles.size(), std::vector<std::array<Value, 4>>(scores.tiles[0].size()));
  for (size_t row = 0; row < max_.size(); ++row) {
    const Value sum = exponentials(scores, row, c[row], offset[row], p);
    if (sums_p_) b_.set(sum_[row], b_.fadd(b_.get(sum_[row]), sum));
  }
  return rescale;
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
