#include "tests/emulated/lab.h"

#include <fmt/format.h>

#include <cstdlib>

#include "compiler/schedule/schedule.h"
#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "runtime/toolchain/search.h"
#include "tests/reference/parallel.h"
#include "tests/support/catch.h"

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

Lab::Lab()
    : device_(open_device(device_name())),
      context_(ContextOptions{.disk_cache = false}, Environment::read()) {}

Lab& Lab::get() {
  static Lab lab;
  return lab;
}

bool Lab::ready() {
  static const ToolchainSearch search =
      search_toolchain(ToolchainOptions::from(Environment::read(), ""));
  if (!search.library.empty()) return true;
  WARN("skipped: no NVRTC\n" << search.failure_message());
  return false;
}

std::shared_ptr<const Kernel> Lab::kernel(const Variant& variant, std::string_view schedule) {
  if (schedule.empty()) return context_.get(make_request(variant), device_).kernel;
  const Schedule base = default_schedule(variant, *device_->info().target);
  return context_.get(make_request(variant, parse_schedule(schedule, base)), device_).kernel;
}

void Lab::prefetch(const std::vector<Variant>& variants) {
  reference::parallel_for(static_cast<int64_t>(variants.size()), [&](int64_t i) {
    try {
      kernel(variants[static_cast<size_t>(i)]);
    } catch (const Error&) {
      // Asking again fails again, where the test reports it.
    }
  });
}

}  // namespace sagejit::test
