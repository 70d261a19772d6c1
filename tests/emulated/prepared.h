// The launches of a plan that prepare attention's operands, alone: for tests of what they write.
#pragma once

#include <memory>
#include <string_view>

#include "compiler/sema/variant.h"
#include "runtime/device/device.h"
#include "runtime/launch/kernel.h"

namespace sagejit::test {

// Throws Error{kUnsupported} for what the target cannot have, Error{kToolchain}. `schedule` is a
// whole schedule but for fields that keep their defaults.
std::shared_ptr<const Kernel> preparing_kernel(const std::shared_ptr<Device>& device,
                                               const Variant& variant, std::string_view schedule);

}  // namespace sagejit::test
