#include "compiler/ir/passes/passes.h"
#include "compiler/ir/passes/walk.h"

namespace sagejit::ir {
namespace {

class Forwarder {
 public:
  explicit Forwarder(const Function& function)
      : replacements_(function), known_(function.num_registers) {}

  void walk(Block& block) {
    Block kept;
    for (Inst& inst : block) {
      replacements_.apply(inst);
      if (inst.op == Op::kGet && known_[inst.operands[0].bits]) {
        replacements_.set(inst.results[0], known_[inst.operands[0].bits]);
        continue;
      }
      regions(inst);
      learn(inst);
      kept.push_back(std::move(inst));
    }
    block = std::move(kept);
  }

 private:
  // A loop's body may begin with what its end leaves; behind any region, what it wrote is unknown.
  void regions(Inst& inst) {
    if (inst.body.empty() && inst.orelse.empty()) return;
    const auto forget = [&] {
      for (const Block* block : {&inst.body, &inst.orelse}) {
        for_each_written(*block, [&](Value variable) { know(variable, {}); });
      }
    };
    if (is_loop(inst)) forget();
    for (Block* block : {&inst.body, &inst.orelse}) {
      const size_t before = changes_.size();
      walk(*block);
      undo(before);
    }
    forget();
  }

  void learn(const Inst& inst) {
    if (inst.op == Op::kGet) know(inst.operands[0], inst.results[0]);
    for_each_written(inst, [&](Value variable) { know(variable, {}); });
    if (inst.op == Op::kVar) know(inst.results[0], inst.operands[0]);
    if (inst.op == Op::kSet) know(inst.operands[0], inst.operands[1]);
  }

  void know(Value variable, Value value) {
    changes_.emplace_back(variable.bits, known_[variable.bits]);
    known_[variable.bits] = value;
  }
  void undo(size_t to) {
    for (; changes_.size() > to; changes_.pop_back()) {
      known_[changes_.back().first] = changes_.back().second;
    }
  }

  Replacements replacements_;
  std::vector<Value> known_;                         // of variables, by number; none: not known
  std::vector<std::pair<uint64_t, Value>> changes_;  // of known_: the variable, and what was known
};

}  // namespace

Function forward_variables(Function function) {
  Forwarder(function).walk(function.body);
  return function;
}

}  // namespace sagejit::ir
