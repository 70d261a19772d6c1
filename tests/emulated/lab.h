// Where the suites get their devices and kernels: one lab, a device with a context, for the whole
// process, and one more where that device has no wgmma.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/schedule/schedule.h"
#include "compiler/sema/variant.h"
#include "runtime/context/context.h"
#include "runtime/device/device.h"

namespace sagejit::test {

// The variant of a body such as "head_dim = 64; lse = on". Throws Error{kSpec}.
Variant variant_of(std::string_view body);

// A schedule of the wgmma kernel with so many computing warps.
Schedule wgmma_schedule(int num_warps, int block_n, bool overlap = false, int stages = 2);

class Lab {
 public:
  // Throws Error{kDevice} if the device that SAGEJIT_TEST_DEVICE names cannot be opened.
  static Lab& get();
  // The same if its target has wgmma, else one with emulator:sm_90a.
  static Lab& wgmma();

  // False, with the reason printed by Catch's WARN, where NVRTC is nowhere.
  bool ready();
  const std::shared_ptr<Device>& device() const { return device_; }
  bool is_emulated() const { return device_->info().name.starts_with("emulator"); }

  // From memory if the variant was asked for before. `schedule` is a line of key=value pairs on top
  // of the default. Throws as Context::get.
  std::shared_ptr<const Kernel> kernel(const Variant& variant, std::string_view schedule = "");
  std::shared_ptr<const Kernel> kernel(const KernelRequest& request);
  // Compiles on all cores what a table is about to ask for; errors are left to kernel().
  void prefetch(const std::vector<KernelRequest>& requests);
  void prefetch(const std::vector<Variant>& variants);

 private:
  explicit Lab(const std::string& device);
  std::shared_ptr<Device> device_;
  Context context_;
};

}  // namespace sagejit::test
