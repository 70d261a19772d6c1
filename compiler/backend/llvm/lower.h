// Kernel IR as LLVM IR.
//
// Arithmetic becomes LLVM's own, with no fast-math flag, so that nothing is contracted or
// approximated (of a NaN the bits may differ, which PTX does not specify either); every other
// operation becomes inline assembly of its row in ops.def, mma.def or wgmma.def. All memory is
// accessed by the latter, in the kernel's order. Variables become allocas, which mem2reg turns into
// registers.
#pragma once

#include <llvm/IR/LLVMContext.h>
#include <llvm/IR/Module.h>

#include <memory>

#include "compiler/ir/ir.h"

namespace sagejit::llvm_backend {

// One module with the kernel as its only definition; the target's data layout is still to be set.
// Throws Error{kInternal} for a kernel that does not verify.
std::unique_ptr<llvm::Module> lower(const ir::Function& kernel, llvm::LLVMContext& context);

}  // namespace sagejit::llvm_backend
