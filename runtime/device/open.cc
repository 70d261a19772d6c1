#include <charconv>

#include "compiler/support/error.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/device.h"
#include "runtime/device/emulated_device.h"

namespace sagejit {
namespace {

constexpr std::string_view kEmulatorTarget = "sm_80";

[[noreturn]] void unknown_name(std::string_view name) {
  fail(ErrorKind::kArgument,
       "device '{}' is not known: use 'auto', 'cuda', 'cuda:N', 'emulator' or 'emulator:TARGET'",
       name);
}

std::shared_ptr<Device> open_emulator(std::string_view target) {
  return std::make_shared<EmulatedDevice>(find_target(target));
}

int parse_ordinal(std::string_view name, std::string_view digits) {
  int ordinal = -1;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), ordinal);
  if (code != std::errc() || end != digits.data() + digits.size() || ordinal < 0) {
    unknown_name(name);
  }
  return ordinal;
}

}  // namespace

std::shared_ptr<Device> open_device(std::string_view name, std::string* why_no_gpu) {
  if (why_no_gpu) why_no_gpu->clear();
  if (name == "auto") {
    std::string reason;
    if (auto device = open_first_cuda_device(reason)) return device;
    if (why_no_gpu) *why_no_gpu = reason;
    return open_emulator(kEmulatorTarget);
  }
  if (name == "emulator") return open_emulator(kEmulatorTarget);
  constexpr std::string_view kEmulator = "emulator:", kCuda = "cuda:";
  if (name.starts_with(kEmulator)) return open_emulator(name.substr(kEmulator.size()));
  if (name == "cuda") return open_cuda_device(0);
  if (name.starts_with(kCuda))
    return open_cuda_device(parse_ordinal(name, name.substr(kCuda.size())));
  unknown_name(name);
}

}  // namespace sagejit
