#include "compiler/backend/ptx/simplify.h"

#include "compiler/ir/passes/passes.h"

namespace sagejit {
namespace {

// A tie keeps a compiler from moving code; an assembler is given none.
void remove_ties(ir::Block& block) {
  ir::Block kept;
  for (ir::Inst& inst : block) {
    if (inst.op == ir::Op::kTie) continue;
    remove_ties(inst.body);
    remove_ties(inst.orelse);
    kept.push_back(std::move(inst));
  }
  block = std::move(kept);
}

}  // namespace

ir::Function simplify(ir::Function kernel) {
  remove_ties(kernel.body);
  kernel = ir::forward_variables(std::move(kernel));
  kernel = ir::fold_constants(std::move(kernel));
  kernel = ir::merge_common(std::move(kernel));
  kernel = ir::hoist_invariants(std::move(kernel));
  kernel = ir::fold_addresses(std::move(kernel));
  return ir::remove_dead(std::move(kernel));
}

}  // namespace sagejit
