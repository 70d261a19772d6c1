// Prints kernel IR as CUDA C++: the reference back end, and what a person reads to see what a
// kernel does.
#pragma once

#include <span>
#include <string>

#include "compiler/ir/ir.h"

namespace sagejit {

// One translation unit with an `extern "C" __global__` function per kernel; it includes no header.
// Operations with a native CUDA spelling are printed so; hardware operations become inline
// assembly.
std::string print_cuda(std::span<const ir::Function> kernels);

}  // namespace sagejit
