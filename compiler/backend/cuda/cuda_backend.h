// The reference back end: kernels as CUDA C++ (print_cuda.h), compiled to PTX by NVRTC.
#pragma once

#include <memory>

#include "compiler/backend/backend.h"
#include "compiler/backend/cuda/nvrtc.h"

namespace sagejit {

std::shared_ptr<const Backend> make_cuda_backend(std::shared_ptr<const Nvrtc> nvrtc);

// "cuda nvrtc 13.0"
std::string cuda_backend_name(const Nvrtc& nvrtc);

}  // namespace sagejit
