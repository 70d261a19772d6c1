#include <algorithm>

#include "compiler/ir/passes/passes.h"
#include "compiler/ir/passes/walk.h"

namespace sagejit::ir {
namespace {

class Hoister {
 public:
  explicit Hoister(const Function& function) : varies_(function) {}

  // Inner loops first: what leaves one may leave the loop around it, too.
  void walk(Block& block) {
    Block kept;
    for (Inst& inst : block) {
      walk(inst.body);
      walk(inst.orelse);
      if (is_loop(inst)) hoist(inst, kept);
      kept.push_back(std::move(inst));
    }
    block = std::move(kept);
  }

 private:
  // Moves what is computed in every iteration, not under a condition, out of the body.
  void hoist(Inst& loop, Block& before) {
    mark(loop);
    Block kept;
    for (Inst& inst : loop.body) {
      if (!is_invariant(inst)) {
        kept.push_back(std::move(inst));
        continue;
      }
      for (const Value& result : inst.results) varies_.erase(result);
      before.push_back(std::move(inst));
    }
    loop.body = std::move(kept);
  }

  void mark(const Inst& inst) {
    for (const Value& result : inst.results) varies_.insert(result);
    for (const Block* block : {&inst.body, &inst.orelse}) {
      for (const Inst& inner : *block) mark(inner);
    }
  }

  bool is_invariant(const Inst& inst) const {
    return is_integer_computation(inst) &&
           std::none_of(inst.operands.begin(), inst.operands.end(), [&](const Value& operand) {
             return !operand.is_const() && varies_.has(operand);
           });
  }

  NumberSet varies_;  // registers and variables that the loop at hand defines
};

}  // namespace

Function hoist_invariants(Function function) {
  Hoister(function).walk(function.body);
  return function;
}

}  // namespace sagejit::ir
