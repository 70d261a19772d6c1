// What several passes ask of instructions.
#pragma once

#include <algorithm>
#include <vector>

#include "compiler/ir/ir.h"

namespace sagejit::ir {

// A set of registers and variables.
class NumberSet {
 public:
  explicit NumberSet(const Function& function)
      : words_((static_cast<size_t>(function.num_registers) + 63) / 64) {}

  bool has(Value value) const { return words_[value.bits / 64] >> value.bits % 64 & 1; }
  void insert(Value value) { words_[value.bits / 64] |= uint64_t{1} << value.bits % 64; }
  void erase(Value value) { words_[value.bits / 64] &= ~(uint64_t{1} << value.bits % 64); }
  void insert(const NumberSet& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  }
  bool operator==(const NumberSet&) const = default;

 private:
  std::vector<uint64_t> words_;
};

// Calls `visit` for the variables that `inst` itself writes, not what it contains: of var, set,
// products and waits, which end the writing, and tie, which hides what was written.
template <typename Visit>
void for_each_written(const Inst& inst, Visit visit) {
  if (inst.op == Op::kVar) return visit(inst.results[0]);
  if (inst.op == Op::kSet) return visit(inst.operands[0]);
  if (inst.op != Op::kTie && inst.op != Op::kWgmmaWait && !find_wgmma(inst.op)) return;
  for (const Value& operand : inst.operands) {
    if (operand.kind == Value::Kind::kVariable) visit(operand);
  }
}

// The same for all that a block contains.
template <typename Visit>
void for_each_written(const Block& block, Visit visit) {
  for (const Inst& inst : block) {
    for_each_written(inst, visit);
    for_each_written(inst.body, visit);
    for_each_written(inst.orelse, visit);
  }
}

// What registers are replaced by, for instructions that follow in the text.
class Replacements {
 public:
  explicit Replacements(const Function& function) : values_(function.num_registers) {}

  void set(Value result, Value value) { values_[result.bits] = value; }
  void apply(Inst& inst) const {
    for (Value& operand : inst.operands) {
      const bool is_register = operand.kind == Value::Kind::kRegister;
      if (is_register && values_[operand.bits]) operand = values_[operand.bits];
    }
  }

 private:
  std::vector<Value> values_;  // by register; none: itself
};

inline bool is_loop(const Inst& inst) {
  return inst.op == Op::kFor || inst.op == Op::kWhile;
}

// A pure operation, or what stands for a constant of the launch, whose results may be kept for
// later: no floats, of which kernels have so many that a few more cost registers.
inline bool is_integer_computation(const Inst& inst) {
  if (inst.op == Op::kParam || inst.op == Op::kSmem) return true;
  return inst.op < Op::kParam && info(inst.op).effect == Effect::kPure &&
         std::none_of(inst.results.begin(), inst.results.end(),
                      [](Value result) { return result.type == Type::kF32; });
}

// An operation of the tables, without a region and without variables.
inline bool is_operation(const Inst& inst) {
  return inst.op < Op::kParam;
}

}  // namespace sagejit::ir
