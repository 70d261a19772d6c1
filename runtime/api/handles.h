// What the opaque handles hold, and the boundary that no exception crosses.
#pragma once

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <type_traits>

#include "compiler/support/error.h"
#include "runtime/context/context.h"
#include "runtime/device/device.h"
#include "runtime/include/sagejit/sagejit.h"
#include "runtime/launch/kernel.h"
#include "runtime/policy/policy.h"

struct sagejit_context {
  std::unique_ptr<sagejit::Context> impl;
};

struct sagejit_device {
  std::shared_ptr<sagejit::Device> impl;
  std::string target;
};

struct sagejit_variant {
  sagejit::KernelRequest request;
  std::string text;
};

struct sagejit_kernel {
  std::shared_ptr<const sagejit::Kernel> impl;
  sagejit::Origin origin;
};

struct sagejit_policy {
  sagejit::Policy impl;
};

struct sagejit_error {
  sagejit_status status;
  std::string message;
  std::string log;
};

namespace sagejit::api {

// Turns the exception in flight into a status and, if `err` is given, an error object.
sagejit_status report_exception(sagejit_error** err) noexcept;

// Runs the body of an API function. Every entry point that can fail goes through here.
template <typename Body>
sagejit_status guarded(sagejit_error** err, Body body) noexcept {
  if (err) *err = nullptr;
  try {
    body();
    return SAGEJIT_OK;
  } catch (...) {
    return report_exception(err);
  }
}

// Throws Error{kArgument} naming the parameter if it is null.
template <typename T>
T& required(T* pointer, const char* name) {
  if (!pointer) fail(ErrorKind::kArgument, "{} is null", name);
  return *pointer;
}

// Prepares an out-parameter: it is null unless the call succeeds.
template <typename T>
void clear_out(T** out) {
  required(out, "out");
  *out = nullptr;
}

inline const char* text_or(const char* text, const char* otherwise) {
  return text ? text : otherwise;
}

// A copy of a public structure of whatever length its caller knows, absent fields zero. `min_bytes`
// is the length it had in the first version of the header. Throws Error{kArgument} if struct_size
// is less, or if it is more than is known here and the rest is not zero.
template <typename Struct>
Struct read_struct(const Struct* given, size_t min_bytes, const char* name) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  const uint32_t size = required(given, name).struct_size;
  if (size < min_bytes) {
    fail(ErrorKind::kArgument, "{}.struct_size is {}: set it to sizeof the structure, {} bytes",
         name, size, sizeof(Struct));
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (size_t i = sizeof(Struct); i < size; ++i) {
    if (bytes[i] != 0) {
      fail(ErrorKind::kArgument,
           "{} has {} bytes and uses fields that this library, version {}, does not know", name,
           size, SAGEJIT_VERSION);
    }
  }
  Struct copy = {};
  std::memcpy(&copy, given, size < sizeof(Struct) ? size : sizeof(Struct));
  return copy;
}

}  // namespace sagejit::api
