// Which PTX ISA version a kernel takes, and which one a CUDA release's tools read. Versions are
// numbers: 84 is 8.4.
#pragma once

#include <string>

#include "compiler/ir/ir.h"
#include "compiler/target/target.h"

namespace sagejit {

// The least that has the target and the kernel's instructions.
int ptx_version_for(const ir::Function& kernel, const Target& target);

// The least that has all that any kernel for the target may use.
int ptx_version_for_any_kernel(const Target& target);

// The newest that tools of that CUDA release read; 0 for releases before 12.0.
int ptx_version_of_cuda(int major, int minor);

// What tools that read nothing newer than that version refuse, "sm_120 takes PTX 8.7 (CUDA 12.8),
// some kernels for sm_89 take PTX 8.7 (CUDA 12.8)"; "" if nothing. For people.
std::string kernels_beyond(int ptx_version, const Target& target);
std::string kernels_beyond(int ptx_version);  // of all targets

}  // namespace sagejit
