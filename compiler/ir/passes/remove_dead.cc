#include <algorithm>
#include <map>
#include <utility>

#include "compiler/ir/passes/passes.h"
#include "compiler/ir/passes/walk.h"

namespace sagejit::ir {
namespace {

// Backward: every use of a register is met before its definition.
class Remover {
 public:
  explicit Remover(const Function& function)
      : empty_(function), used_(function), live_(function), first_(function.num_registers) {}

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
    const NumberSet after = live_;
    walk(inst.body);
    const NumberSet before_body = std::exchange(live_, after);
    walk(inst.orelse);
    live_.insert(before_body);
  }

  void loop(Inst& inst) {
    const NumberSet used = used_;
    const NumberSet& at_end = look_at_loop(inst);
    used_ = used;
    live_ = at_end;
    walk(inst.body);
    live_.insert(at_end);
  }

  // What is live at the end of the body: what is read behind the loop, or first in the body. Found
  // by looking until that is all; what was found before, from further out, is where to begin.
  const NumberSet& look_at_loop(const Inst& inst) {
    if (inst.op == Op::kWhile) live_.insert(inst.operands[0]);
    NumberSet& at_end = at_end_.try_emplace(&inst, empty_).first->second;
    for (bool grows = true; grows;) {
      live_.insert(at_end);
      at_end = live_;
      look(inst.body);
      live_.insert(at_end);
      grows = live_ != at_end;
    }
    return at_end;
  }

  // As walk(), but removes nothing.
  void look(const Block& block) {
    for (size_t i = block.size(); i-- > 0;) {
      const Inst& inst = block[i];
      if (is_loop(inst)) {
        look_at_loop(inst);
      } else if (!inst.body.empty() || !inst.orelse.empty()) {
        const NumberSet after = live_;
        look(inst.body);
        const NumberSet before_body = std::exchange(live_, after);
        look(inst.orelse);
        live_.insert(before_body);
      }
      if (!is_dead(inst)) note(inst);
    }
  }

  // A variable whose first value nothing reads, and that a write of the same block is the next to
  // mention, begins there.
  bool starts_later(const Inst& inst, int block, Block& kept) {
    if (inst.op != Op::kVar || live_.has(inst.results[0])) return false;
    const Mention& first = first_[inst.results[0].bits];
    if (first.block != block) return false;
    Inst& set = kept[first.at];
    set = {Op::kVar, {set.operands[0]}, {set.operands[1]}, {}, {}, {}};
    return true;
  }

  bool is_dead(const Inst& inst) const {
    const auto is_used = [&](Value result) { return used_.has(result); };
    const bool has_uses = std::any_of(inst.results.begin(), inst.results.end(), is_used);
    switch (inst.op) {
      case Op::kParam:
      case Op::kSmem:
      case Op::kGet:
        return !has_uses;
      case Op::kVar:
        return !used_.has(inst.results[0]);
      case Op::kSet:
        return !live_.has(inst.operands[0]);
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
      used_.insert(operand);
      first_[operand.bits] = {};
    }
    if (inst.op == Op::kVar) live_.erase(inst.results[0]);
    if (inst.op == Op::kSet) {
      live_.erase(inst.operands[0]);
      return;
    }
    for (const Value& operand : inst.operands) {
      if (operand.kind == Value::Kind::kVariable) live_.insert(operand);
    }
  }

  const NumberSet empty_;
  NumberSet used_;  // registers and variables that are operands of what is kept
  NumberSet live_;  // variables whose value is read further down
  std::map<const Inst*, NumberSet> at_end_;  // of loops
  std::vector<Mention> first_;
  int num_blocks_ = 0;
};

}  // namespace

Function remove_dead(Function function) {
  Remover(function).walk(function.body);
  return function;
}

}  // namespace sagejit::ir
