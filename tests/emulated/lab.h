// Where the suites get their devices and kernels: a device with a context, one for each family of
// kernels, for the whole process.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/schedule/schedule.h"
#include "compiler/sema/variant.h"
#include "compiler/target/target.h"
#include "runtime/context/context.h"
#include "runtime/device/device.h"

namespace sagejit::test {

// The variant of a body such as "head_dim = 64; lse = on". Throws Error{kSpec}.
Variant variant_of(std::string_view body);

// A schedule of the wgmma kernel with so many computing warps.
Schedule wgmma_schedule(int num_warps, int block_n, int overlap = 0, int stages = 2,
                        bool ping_pong = false);

class Lab {
 public:
  // Kernels of the mma.sync family, whatever the device that SAGEJIT_TEST_DEVICE names would rather
  // run. Throws Error{kDevice} if it cannot be opened.
  static Lab& mma_sync();
  // The same with e4m3 P and V: on that device if its target has such products by mma.sync, else on
  // emulator:sm_89.
  static Lab& mma_sync_e4m3();
  // On the emulator of that target.
  static Lab& emulated(const std::string& target);
  // Kernels of the wgmma family: on that device if its target has wgmma, else on emulator:sm_90a.
  static Lab& wgmma();

  // False, with the reason printed by Catch's WARN, where the toolchain that is asked for is not
  // here (tests/support/toolchain_choice.h).
  bool ready();
  const std::shared_ptr<Device>& device() const { return device_; }
  bool is_emulated() const { return device_->info().name.starts_with("emulator"); }

  // What the family runs unless told otherwise.
  Schedule default_schedule(const Variant& variant) const;
  KernelRequest request(const Variant& variant, std::optional<Schedule> schedule = {}) const;

  // From memory if the variant was asked for before. `schedule` is a line of key=value pairs on top
  // of the default. Throws as Context::get.
  std::shared_ptr<const Kernel> kernel(const Variant& variant, std::string_view schedule = "");
  std::shared_ptr<const Kernel> kernel(const KernelRequest& request);
  // Compiles on all cores what a table is about to ask for; errors are left to kernel().
  void prefetch(const std::vector<KernelRequest>& requests);
  void prefetch(const std::vector<Variant>& variants);

 private:
  Lab(const std::string& device, const std::string& schedules_of);
  std::shared_ptr<Device> device_;
  Context context_;
  const Target& schedules_of_;  // whose default schedules are this family's
};

}  // namespace sagejit::test
