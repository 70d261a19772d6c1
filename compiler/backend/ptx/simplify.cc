#include "compiler/backend/ptx/simplify.h"

#include "compiler/ir/passes/passes.h"

namespace sagejit {
namespace {

// A tie keeps a compiler from moving code; an assembler is given none.
void remove_ties(ir::Block& block) {
  std::erase_if(block, [](ir::Inst& inst) {
    remove_ties(inst.body);
    remove_ties(inst.orelse);
    return inst.op == ir::Op::kTie;
  });
}

}  // namespace

ir::Function simplify(ir::Function kernel) {
  remove_ties(kernel.body);
  kernel = ir::forward_variables(std::move(kernel));
  kernel = ir::fold_constants(std::move(kernel));
  kernel = ir::merge_common(std::move(kernel));
  kernel = ir::fold_addresses(std::move(kernel));
  return ir::remove_dead(std::move(kernel));
}

}  // namespace sagejit
