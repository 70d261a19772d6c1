#include "compiler/kernels/online_softmax.h"

#include <limits>

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

}  // namespace

OnlineSoftmax::OnlineSoftmax(ir::Builder& b, int num_row_tiles, bool sums_p)
    : b_(b), sums_p_(sums_p) {
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

Value OnlineSoftmax::factor(const Dequantization& dequantization, int row, size_t run,
                            bool masked) const {
  Value c = dequantization.row_factors[row];
  if (!dequantization.key_factors.empty()) c = b_.fmul(c, dequantization.key_factors[run]);
  // A masked score is -inf: a factor of 0 (a group of zeros) would make it NaN.
  return masked ? b_.fmax(c, constant_f32(std::numeric_limits<float>::min())) : c;
}

OnlineSoftmax::Step OnlineSoftmax::step(Scores& scores, const Dequantization& dequantization,
                                        bool masked) {
  const size_t num_key_tiles = scores[0].size();
  const size_t num_runs = std::max<size_t>(1, dequantization.key_factors.size());
  const size_t run_tiles = num_key_tiles / num_runs;
  Step result;
  for (size_t row = 0; row < max_.size(); ++row) {
    std::vector<std::vector<Value>>& tiles = scores[row / 2];
    const int first = 2 * static_cast<int>(row % 2);
    Value tile_max;
    std::vector<Value> factors;
    for (size_t run = 0; run < num_runs; ++run) {
      Value run_max;
      for (size_t tile = run * run_tiles; tile < (run + 1) * run_tiles; ++tile) {
        for (int e = first; e < first + 2; ++e) {
          run_max = run_max ? b_.fmax(run_max, tiles[tile][e]) : tiles[tile][e];
        }
      }
      factors.push_back(factor(dequantization, static_cast<int>(row), run, masked));
      run_max = b_.fmul(run_max, factors.back());
      tile_max = tile_max ? b_.fmax(tile_max, run_max) : run_max;
    }
    const Value old_max = b_.get(max_[row]);
    const Value new_max = b_.fmax(old_max, quad_reduce(tile_max, Op::kMaxF32));
    b_.set(max_[row], new_max);
    Value reference = new_max;
    if (masked) {  // no key seen yet: any finite reference gives P = 0
      const Value none = b_.emit1(Op::kEqF32, {new_max, constant_f32(kNegativeInfinity)});
      reference = b_.select(none, constant_f32(0), new_max);
    }
    const Value shrink = b_.ex2(b_.fsub(old_max, reference));
    const Value bias = b_.fneg(reference);
    Value sum;
    for (size_t tile = 0; tile < num_key_tiles; ++tile) {
      for (int e = first; e < first + 2; ++e) {
        const Value p = b_.ex2(b_.fma(tiles[tile][e], factors[tile / run_tiles], bias));
        tiles[tile][e] = p;
        sum = sum ? b_.fadd(sum, p) : p;
      }
    }
    if (sums_p_) b_.set(sum_[row], b_.fma(b_.get(sum_[row]), shrink, sum));
    result.shrink.push_back(shrink);
  }
  return result;
}

std::vector<Value> OnlineSoftmax::row_max() const {
  std::vector<Value> result;
  for (const ir::Var& variable : max_) result.push_back(b_.get(variable));
  return result;
}

std::vector<Value> OnlineSoftmax::row_sum() const {
  std::vector<Value> result;
  for (const ir::Var& variable : sum_) result.push_back(quad_reduce(b_.get(variable), Op::kAddF32));
  return result;
}

}  // namespace sagejit
