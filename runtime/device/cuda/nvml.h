// The driver's management library, libnvidia-ml.so.1, as far as a GPU's clock and the driver's
// release go; loaded on first use. Whoever has no such library knows neither.
//
// Names and numbers are those of the NVML API reference (nvmlDeviceGetClockInfo, nvmlClockType_t,
// nvmlSystemGetDriverVersion).
#pragma once

#include <optional>
#include <string>

namespace sagejit::cuda {

class Nvml {
 public:
  using Handle = struct NvmlDeviceTag*;

  // Null where the library is missing, too old or refuses to start.
  static const Nvml* find();

  // Null for a GPU that the library does not show. NVML numbers GPUs otherwise than the driver
  // does: only the place on the bus, as cuDeviceGetPCIBusId gives it, means the same to both.
  Handle device_at(const std::string& pci_bus_id) const;

  // Of the multiprocessors, at this moment.
  std::optional<int> sm_clock_mhz(Handle device) const;

  // "580.65.06"; "" if the library does not say.
  std::string driver_release() const;

 private:
  static Nvml load();

  int (*init_)() = nullptr;
  int (*device_at_)(const char* pci_bus_id, Handle* device) = nullptr;
  int (*clock_)(Handle device, int type, unsigned* mhz) = nullptr;
  int (*release_)(char* text, unsigned bytes) = nullptr;
  bool ready_ = false;
};

}  // namespace sagejit::cuda
