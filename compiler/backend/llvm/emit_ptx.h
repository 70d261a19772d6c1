// LLVM IR to PTX.
#pragma once

#include <llvm/IR/Module.h>

#include <string>

namespace sagejit::llvm_backend {

// `cpu`: "sm_90a"; `features`: "+ptx80". Throws Error{kUnsupported} if LLVM does not know them
// (LLVM itself would warn and take its oldest), Error{kToolchain} with LLVM's words if it finds an
// error in the module. Safe to call from several threads, each with a module of a context of its
// own.
std::string emit_ptx(llvm::Module& module, const std::string& cpu, const std::string& features);

}  // namespace sagejit::llvm_backend
