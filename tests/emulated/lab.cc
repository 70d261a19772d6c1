#include "tests/emulated/lab.h"

#include <fmt/format.h>

#include <cstdlib>
#include <map>

#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "tests/reference/parallel.h"
#include "tests/support/catch.h"
#include "tests/support/toolchain_choice.h"

namespace sagejit::test {
namespace {

std::string device_name() {
  const char* name = std::getenv("SAGEJIT_TEST_DEVICE");
  return name && *name ? name : "emulator:sm_80";
}

}  // namespace

Variant variant_of(std::string_view body) {
  return resolve_variants("<test>", fmt::format("case {{\n{}\n}}\n", body)).front();
}

Schedule wgmma_schedule(int num_warps, int block_n, int overlap, int stages, bool ping_pong) {
  return {.wgmma = true,
          .block_m = 16 * num_warps,
          .block_n = block_n,
          .num_warps = num_warps,
          .stages = stages,
          .q_in_registers = false,
          .blocks_per_sm = 1,
          .overlap = overlap,
          .ping_pong = ping_pong};
}

Lab::Lab(const std::string& device, const std::string& schedules_of)
    : device_(open_device(device)),
      context_(ContextOptions{.disk_cache = false}, Environment::read(),
               make_jit_compiler(toolchain_options())),
      schedules_of_(find_target(schedules_of)) {}

Lab& Lab::mma_sync() {
  static Lab lab(device_name(), "sm_80");
  return lab;
}

Lab& Lab::mma_sync_e4m3() {
  const Target& target = *mma_sync().device_->info().target;
  return target.native_fp8_mma ? mma_sync() : emulated("sm_89");
}

Lab& Lab::emulated(const std::string& target) {
  static std::map<std::string, std::unique_ptr<Lab>> labs;
  std::unique_ptr<Lab>& lab = labs[target];
  if (!lab) lab.reset(new Lab("emulator:" + target, target));
  return *lab;
}

Lab& Lab::wgmma() {
  static Lab lab(mma_sync().device_->info().target->wgmma ? device_name() : "emulator:sm_90a",
                 "sm_90a");
  return lab;
}

bool Lab::ready() {
  try {
    LazyToolchain(toolchain_options()).get(device_->info().runs_machine_code);
    return true;
  } catch (const Error& error) {
    WARN("skipped: no toolchain\n" << error.what());
    return false;
  }
}

Schedule Lab::default_schedule(const Variant& variant) const {
  Schedule schedule = sagejit::default_schedule(variant, schedules_of_);
  schedule.int4_mma = schedule.int4_mma && device_->info().target->native_s4_mma;
  return schedule;
}

KernelRequest Lab::request(const Variant& variant, std::optional<Schedule> schedule) const {
  return make_request(variant, schedule ? *schedule : default_schedule(variant));
}

std::shared_ptr<const Kernel> Lab::kernel(const Variant& variant, std::string_view schedule) {
  return kernel(request(variant, parse_schedule(schedule, default_schedule(variant))));
}

std::shared_ptr<const Kernel> Lab::kernel(const KernelRequest& request) {
  return context_.get(request, device_).kernel;
}

void Lab::prefetch(const std::vector<Variant>& variants) {
  std::vector<KernelRequest> requests;
  for (const Variant& variant : variants) requests.push_back(request(variant));
  prefetch(requests);
}

void Lab::prefetch(const std::vector<KernelRequest>& requests) {
  reference::parallel_for(static_cast<int64_t>(requests.size()), [&](int64_t i) {
    try {
      kernel(requests[static_cast<size_t>(i)]);
    } catch (const Error&) {
      // Asking again fails again, where the test reports it.
    }
  });
}

}  // namespace sagejit::test
