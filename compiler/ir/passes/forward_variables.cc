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
        for_each_written(*block, [&](Value variable) { known_[variable.bits] = {}; });
      }
    };
    if (is_loop(inst)) forget();
    const std::vector<Value> before = known_;
    walk(inst.body);
    known_ = before;
    walk(inst.orelse);
    known_ = before;
    forget();
  }

  void learn(const Inst& inst) {
    if (inst.op == Op::kGet) known_[inst.operands[0].bits] = inst.results[0];
    for_each_written(inst, [&](Value variable) { known_[variable.bits] = {}; });
    if (inst.op == Op::kVar) known_[inst.results[0].bits] = inst.operands[0];
    if (inst.op == Op::kSet) known_[inst.operands[0].bits] = inst.operands[1];
  }

  Replacements replacements_;
  std::vector<Value> known_;  // of variables, by number; none: not known
};

}  // namespace

Function forward_variables(Function function) {
  Forwarder(function).walk(function.body);
  return function;
}

}  // namespace sagejit::ir
