#include "compiler/kernels/wgmma_accumulator.h"

#include "compiler/kernels/pv_operands.h"
#include "compiler/kernels/wgmma_operands.h"
#include "compiler/schedule/schedule.h"

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;
using ir::Var;

WgmmaAccumulator::WgmmaAccumulator(ir::Builder& b, const Variant& variant, int block_n, Value ones)
    : b_(b),
      variant_(variant),
      product_(ir::wgmma_of(variant.p.type, variant.v.type, variant.pv_accumulator.inner)),
      step_keys_(keys_of_product(variant.p.type)),
      row_bytes_(padded_value_head_dim(variant) * bits_of(variant.v.type) / 8),
      num_columns_(padded_value_head_dim(variant) / kFragmentColumns),
      interval_steps_(variant.pv_accumulator.interval / step_keys_),
      interval_tiles_(variant.pv_accumulator.interval / block_n),
      o_is_packed_(!variant.pv_accumulator.outer && target_is_packed()),
      row_sum_(b, variant, ones) {
  const Accumulator& pv = variant.pv_accumulator;
  o_ = new_accumulator(pv.outer.value_or(pv.inner));
  if (pv.outer) inner_ = new_accumulator(pv.inner);
}

Value WgmmaAccumulator::zero_of(DType type) const {
  if (type == DType::kF32) return constant_f32(0);
  return constant(type == DType::kS32 ? kBiasedZero : 0);
}

WgmmaAccumulator::Vars WgmmaAccumulator::new_accumulator(DType type) const {
  Vars result;
  for (int i = 0; i < num_columns_ * (type == DType::kF16 ? 2 : 4); ++i) {
    result.push_back(b_.var(zero_of(type)));
  }
  return result;
}

std::vector<Var> WgmmaAccumulator::convert(const Scores& p) const {
  Vars result;
  for (int key = 0; key < p.num_key_tiles() * kFragmentColumns; key += step_keys_) {
    for (const Value value : p_fragment(b_, variant_, p, 0, key)) result.push_back(b_.var(value));
  }
  return result;
}

void WgmmaAccumulator::products(const Vars& p, Value values, int first_step, int num_steps) {
  for (int step = first_step; step < first_step + num_steps; ++step) {
    std::vector<Value> a;
    for (int i = 0; i < kStepRegisters; ++i) a.push_back(b_.get(p[step * kStepRegisters + i]));
    b_.wgmma(product_, target(), a, moved(b_, values, step * step_keys_ * row_bytes_),
             {.fenced = step == first_step,
              .accumulate = step != first_step || starts_from_registers()});
    row_sum_.product(a, step == first_step);
  }
  b_.emit(Op::kWgmmaCommit, {});
  running_ = p;
}

void WgmmaAccumulator::wait() const {
  Vars registers = target();
  for (const Vars& more : {row_sum_.in_flight(), running_}) {
    registers.insert(registers.end(), more.begin(), more.end());
  }
  b_.wgmma_wait(0, registers);
}

void WgmmaAccumulator::add_inner() {
  for (size_t i = 0; i < inner_.size(); ++i) {
    if (!target_is_packed()) {
      const Value inner = b_.get(inner_[i]);
      b_.set(o_[i], b_.fadd(b_.get(o_[i]), has_integers() ? unbias(b_, inner) : inner));
      continue;
    }
    const std::vector<Value> pair = b_.emit(Op::kUnpackF16, {b_.get(inner_[i])});
    for (size_t e = 0; e < 2; ++e) {
      b_.set(o_[2 * i + e], b_.fadd(b_.get(o_[2 * i + e]), pair[e]));
    }
  }
}

void WgmmaAccumulator::end_interval() {
  add_inner();
  restart_inner();
}

void WgmmaAccumulator::restart_inner() {
  if (!starts_from_registers()) return;
  for (const Var& x : inner_) b_.set(x, zero_of(variant_.pv_accumulator.inner));
}

// Intervals are counted from key 0 on.
void WgmmaAccumulator::end_interval_after(Value key_tile) {
  if (interval_tiles_ == 0) return;
  if (interval_tiles_ == 1) return end_interval();
  const Value left = b_.rem(b_.add(key_tile, constant(1)), constant(interval_tiles_));
  b_.when(b_.equal(left, constant(0)), [&] { end_interval(); });
}

// Registers alternate between the thread's two rows: one by one if packed, else in pairs.
void WgmmaAccumulator::scale(const Vars& accumulator, bool packed,
                             const std::vector<Var>& factors) {
  for (size_t i = 0; i < accumulator.size(); ++i) {
    const Value factor = b_.get(factors[packed ? i % 2 : i / 2 % 2]);
    const Value old = b_.get(accumulator[i]);
    b_.set(accumulator[i],
           packed ? b_.emit1(Op::kMulF16x2, {old, b_.emit1(Op::kPackF16, {factor, factor})})
                  : b_.fmul(old, factor));
  }
}

void WgmmaAccumulator::rescale(const OnlineSoftmax::Rescale& rescale) {
  b_.when(rescale.any, [&] {
    scale(o_, o_is_packed_, rescale.factors);
    if (interval_tiles_ > 1) scale(inner_, target_is_packed(), rescale.factors);
    row_sum_.rescale(rescale, false);
  });
}

void WgmmaAccumulator::add(const Vars& p, Value values, Value key_tile) {
  const int num_steps = static_cast<int>(p.size()) / kStepRegisters;
  if (interval_steps_ == 0 || interval_steps_ >= num_steps) {
    start(p, values);
    return finish(key_tile);
  }
  for (int step = 0; step < num_steps; step += interval_steps_) {
    products(p, values, step, interval_steps_);
    wait();
    row_sum_.add();
    end_interval();
  }
}

void WgmmaAccumulator::start(const Vars& p, Value values) {
  products(p, values, 0, static_cast<int>(p.size()) / kStepRegisters);
}

// The assembler moves a wait above the arithmetic of its basic block, which would then no longer
// run beside the products. The rare rescaling ends the block; hence it waits by itself.
void WgmmaAccumulator::finish(const OnlineSoftmax::Rescale& rescale, Value key_tile,
                              const std::function<void()>& after_softmax) {
  b_.when(rescale.any, [&] {
    wait();
    if (has_integers()) end_interval();
    scale(o_, o_is_packed_, rescale.factors);
    if (!inner_.empty() && !has_integers()) scale(inner_, target_is_packed(), rescale.factors);
    row_sum_.rescale(rescale, true);
  });
  if (after_softmax) after_softmax();
  finish(key_tile);
}

void WgmmaAccumulator::finish(Value key_tile) {
  wait();
  row_sum_.add();
  end_interval_after(key_tile);
}

std::array<Value, 4> WgmmaAccumulator::elements(int column_tile) const {
  std::array<Value, 4> e;
  for (int i = 0; i < 4 && !o_is_packed_; ++i) e[i] = b_.get(o_[4 * column_tile + i]);
  for (int i = 0; i < 2 && o_is_packed_; ++i) {
    const std::vector<Value> pair = b_.emit(Op::kUnpackF16, {b_.get(o_[2 * column_tile + i])});
    e[2 * i] = pair[0], e[2 * i + 1] = pair[1];
  }
  return e;
}

}  // namespace sagejit
