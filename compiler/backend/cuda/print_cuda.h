// Prints kernel IR as CUDA C++: the reference back end, and what a person reads to see what a
// kernel does.
#pragma once

#include <string>

#include "compiler/ir/ir.h"

namespace sagejit {

// One translation unit with one `extern "C" __global__` function; it includes no header.
// Operations with a native CUDA spelling are printed so; hardware operations become inline
// assembly.
std::string print_cuda(const ir::Function& kernel);

}  // namespace sagejit
