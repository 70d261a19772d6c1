#include "compiler/kernels/wgmma_turns.h"

namespace sagejit {

using ir::constant;
using ir::Op;
using ir::Value;
using ir::Var;

namespace {

constexpr int kThreads = 2 * kWarpgroupThreads;  // who takes and who passes

}  // namespace

Turns::Turns(WgmmaBlock& block)
    : block_(block), b_(block.b), taken_(b_.var(constant(0))), passed_(b_.var(constant(0))) {}

// 0 is the barrier of the whole block.
Value Turns::barrier(Value group, const Var& parity) {
  return b_.add(b_.add(b_.mul(group, constant(2)), constant(1)), b_.get(parity));
}

void Turns::flip(const Var& parity) {
  b_.set(parity, b_.bit_xor(b_.get(parity), constant(1)));
}

void Turns::take() {
  if (!is_on()) return;
  b_.emit(Op::kNamedBarrierSync, {barrier(block_.group, taken_), constant(kThreads)});
  flip(taken_);
}

void Turns::pass(const std::vector<Var>& computed) {
  if (!is_on()) return;
  if (!computed.empty()) b_.tie(computed);
  const Value is_first = b_.equal(block_.group, constant(0));
  const Value last = constant(block_.num_consumers - 1);
  const Value previous = b_.select(is_first, last, b_.sub(block_.group, constant(1)));
  b_.emit(Op::kNamedBarrierArrive, {barrier(previous, passed_), constant(kThreads)});
  flip(passed_);
}

void Turns::start() {
  if (!is_on()) return;
  b_.when(b_.less(constant(0), block_.group), [&] { pass(); });
}

void Turns::end() {
  if (!is_on()) return;
  b_.when(b_.less(block_.group, constant(block_.num_consumers - 1)), [&] { take(); });
}

}  // namespace sagejit
