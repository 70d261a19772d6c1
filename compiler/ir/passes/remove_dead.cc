#include <algorithm>
#include <utility>

#include "compiler/ir/passes/passes.h"
#include "compiler/ir/passes/walk.h"

namespace sagejit::ir {
namespace {

// Backward: every use of a register is met before its definition.
class Remover {
 public:
  explicit Remover(const Function& function)
      : used_(function.num_registers),
        live_(function.num_registers),
        first_(function.num_registers) {}

  void walk(Block& block) {
    const int number = num_blocks_++;
    Block kept;
    for (size_t i = block.size(); i-- > 0;) {
      Inst& inst = block[i];
      regions(inst);
      if (is_dead(inst) || starts_later(inst, number, kept)) continue;
      note(inst);
      if (inst.op == Op::kSet) first_[inst.operands[0].bits] = {number, kept.size()};
      kept.push_back(std::move(inst));
    }
    std::reverse(kept.begin(), kept.end());
    block = std::move(kept);
  }

 private:
  // Where a variable is mentioned first, if that is a `set`: in what is kept of a block.
  struct Mention {
    int block = -1;
    size_t at = 0;
  };

  void regions(Inst& inst) {
    if (is_loop(inst)) return loop(inst);
    if (inst.body.empty() && inst.orelse.empty()) return;
    const Numbers after = live_;
    walk(inst.body);
    const Numbers before_body = std::exchange(live_, after);
    walk(inst.orelse);
    add(before_body);
  }

  // What the body reads before it writes it is live at its end too: looked at without removing
  // anything until that is all.
  void loop(Inst& inst) {
    if (inst.op == Op::kWhile) live_[inst.operands[0].bits] = true;
    Numbers at_end = live_;
    for (bool grows = true; grows;) {
      const Numbers used = used_;
      Block copy = inst.body;
      walk(copy);
      used_ = used;
      add(at_end);
      grows = live_ != at_end;
      at_end = live_;
    }
    walk(inst.body);
    add(at_end);
  }

  // A variable whose first value nothing reads, and that a write of the same block is the next to
  // mention, begins there.
  bool starts_later(const Inst& inst, int block, Block& kept) {
    if (inst.op != Op::kVar || live_[inst.results[0].bits]) return false;
    const Mention& first = first_[inst.results[0].bits];
    if (first.block != block) return false;
    Inst& set = kept[first.at];
    set = {Op::kVar, {set.operands[0]}, {set.operands[1]}, {}, {}, {}};
    return true;
  }

  void add(const Numbers& live) {
    for (size_t i = 0; i < live.size(); ++i) live_[i] = live_[i] || live[i];
  }

  bool is_dead(const Inst& inst) const {
    const auto is_used = [&](Value result) { return used_[result.bits]; };
    const bool has_uses = std::any_of(inst.results.begin(), inst.results.end(), is_used);
    switch (inst.op) {
      case Op::kParam:
      case Op::kSmem:
      case Op::kGet:
        return !has_uses;
      case Op::kVar:
        return !used_[inst.results[0].bits];
      case Op::kSet:
        return !live_[inst.operands[0].bits];
      case Op::kIf:
      case Op::kIfUniform:
        return inst.body.empty() && inst.orelse.empty();
      default:
        break;
    }
    if (!is_operation(inst)) return false;
    const Effect effect = info(inst.op).effect;
    return !has_uses && (effect == Effect::kPure || effect == Effect::kRead);
  }

  // Of variables: whether one is mentioned at all, and whether its value here is read.
  void note(const Inst& inst) {
    for (const Value& operand : inst.operands) {
      if (operand.is_const()) continue;
      used_[operand.bits] = true;
      first_[operand.bits] = {};
    }
    if (inst.op == Op::kVar) live_[inst.results[0].bits] = false;
    if (inst.op == Op::kSet) {
      live_[inst.operands[0].bits] = false;
      return;
    }
    for (const Value& operand : inst.operands) {
      if (operand.kind == Value::Kind::kVariable) live_[operand.bits] = true;
    }
  }

  Numbers used_;  // registers and variables that are operands of what is kept
  Numbers live_;  // variables whose value is read further down
  std::vector<Mention> first_;
  int num_blocks_ = 0;
};

}  // namespace

Function remove_dead(Function function) {
  Remover(function).walk(function.body);
  return function;
}

}  // namespace sagejit::ir
