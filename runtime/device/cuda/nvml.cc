#include "runtime/device/cuda/nvml.h"

#include <dlfcn.h>

#include <array>

namespace sagejit::cuda {
namespace {

constexpr int kNvmlSuccess = 0;
constexpr int kNvmlClockSm = 1;

template <typename Function>
bool find_symbol(void* library, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, symbol));
  return function != nullptr;
}

}  // namespace

Nvml Nvml::load() {
  Nvml nvml;
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  nvml.ready_ = library && find_symbol(library, "nvmlInit_v2", nvml.init_) &&
                find_symbol(library, "nvmlDeviceGetHandleByPciBusId_v2", nvml.device_at_) &&
                find_symbol(library, "nvmlDeviceGetClockInfo", nvml.clock_) &&
                find_symbol(library, "nvmlSystemGetDriverVersion", nvml.release_) &&
                nvml.init_() == kNvmlSuccess;
  return nvml;
}

const Nvml* Nvml::find() {
  static const Nvml nvml = load();
  return nvml.ready_ ? &nvml : nullptr;
}

Nvml::Handle Nvml::device_at(const std::string& pci_bus_id) const {
  Handle device = nullptr;
  return device_at_(pci_bus_id.c_str(), &device) == kNvmlSuccess ? device : nullptr;
}

std::optional<int> Nvml::sm_clock_mhz(Handle device) const {
  unsigned mhz = 0;
  if (clock_(device, kNvmlClockSm, &mhz) != kNvmlSuccess) return std::nullopt;
  return static_cast<int>(mhz);
}

std::string Nvml::driver_release() const {
  std::array<char, 96> text{};
  return release_(text.data(), text.size()) == kNvmlSuccess ? text.data() : "";
}

}  // namespace sagejit::cuda
