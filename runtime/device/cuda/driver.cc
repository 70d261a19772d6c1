#include "runtime/device/cuda/driver.h"

#include <dlfcn.h>

#include "compiler/support/error.h"

namespace sagejit::cuda {
namespace {

struct LoadResult {
  Driver driver;
  std::string error;  // empty: the driver is ready
};

// The library stays loaded until the process ends: kernels may still be unloaded by static
// destructors.
LoadResult load_driver() {
  LoadResult result;
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    result.error = fmt::format("no CUDA driver: {}", dlerror());
    return result;
  }
#define DRIVER(member, symbol, params)                                                             \
  result.driver.member = reinterpret_cast<decltype(result.driver.member)>(dlsym(library, symbol)); \
  if (!result.driver.member) {                                                                     \
    result.error = "the CUDA driver has no " symbol ": install a driver for CUDA 12 or newer";     \
    return result;                                                                                 \
  }
#include "runtime/device/cuda/driver.def"
#undef DRIVER
  if (const int code = result.driver.init(0); code != kSuccess) {
    result.error =
        fmt::format("the CUDA driver cannot be initialised: {}", result.driver.describe(code));
  }
  return result;
}

}  // namespace

std::string Driver::describe(int result) const {
  const char* name = nullptr;
  const char* text = nullptr;
  if (error_name(result, &name) != kSuccess || !name) return fmt::format("CUDA error {}", result);
  if (error_string(result, &text) != kSuccess || !text) return name;
  return fmt::format("{}: {}", name, text);
}

void Driver::check(int result, std::string_view device, std::string_view what) const {
  if (result == kSuccess) return;
  const ErrorKind kind = result == kErrorOutOfMemory ? ErrorKind::kMemory : ErrorKind::kDevice;
  fail(kind, "{}: {}: {}", device, what, describe(result));
}

const Driver* find_driver(std::string& why_not) {
  static const LoadResult* const result = new LoadResult(load_driver());
  why_not = result->error;
  return result->error.empty() ? &result->driver : nullptr;
}

}  // namespace sagejit::cuda
