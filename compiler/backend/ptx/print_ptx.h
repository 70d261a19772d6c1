// Prints kernel IR as PTX, without any compiler of NVIDIA's: what remains for a GPU is an
// assembler.
#pragma once

#include <string>

#include "compiler/ir/ir.h"
#include "compiler/target/target.h"

namespace sagejit {

// One module with one entry, in the PTX version of the target. It computes, bit for bit, what
// print_cuda's text computes when compiled with --fmad=false. Throws Error{kInternal} for a
// function that does not verify.
std::string print_ptx(const ir::Function& kernel, const Target& target);

// The same, instruction by instruction as the IR has them: without the passes of simplify.h.
std::string print_ptx_verbatim(const ir::Function& kernel, const Target& target);

}  // namespace sagejit
