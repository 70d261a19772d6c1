// A CUDA GPU as a Device, through the driver API.
//
// Context: the caller's current context if it belongs to the GPU when the device is opened (the
// caller keeps it alive), else the GPU's primary context, which the device retains. Every call
// makes that context current for its duration and leaves the caller's as it was.
#pragma once

#include <memory>
#include <string>

#include "runtime/device/device.h"

namespace sagejit {

// Throws Error{kDevice} without driver or GPU, Error{kUnsupported} for a GPU below compute
// capability 8.0.
std::shared_ptr<Device> open_cuda_device(int ordinal);

// The first GPU that kernels can be compiled for; null with the reason in `why_not` if there is
// none.
std::shared_ptr<Device> open_first_cuda_device(std::string& why_not);

}  // namespace sagejit
