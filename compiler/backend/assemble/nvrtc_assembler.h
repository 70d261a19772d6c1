// NVRTC as an assembler, in process and without a toolkit: the PTX goes to its ptxas inside a stub
// of CUDA C++ (stub_kernel.h).
#pragma once

#include <memory>

#include "compiler/backend/assemble/assembler.h"
#include "compiler/backend/cuda/nvrtc.h"

namespace sagejit {

std::shared_ptr<const Assembler> make_nvrtc_assembler(std::shared_ptr<const Nvrtc> nvrtc);

}  // namespace sagejit
