#include <array>

#include "runtime/api/handles.h"

namespace sagejit::api {
namespace {

// Indexed by sagejit_status.
constexpr std::array kStatusNames = {
    "SAGEJIT_OK",          "SAGEJIT_E_ARGUMENT",  "SAGEJIT_E_SPEC",   "SAGEJIT_E_UNSUPPORTED",
    "SAGEJIT_E_NOT_FOUND", "SAGEJIT_E_TOOLCHAIN", "SAGEJIT_E_DEVICE", "SAGEJIT_E_IO",
    "SAGEJIT_E_MEMORY",    "SAGEJIT_E_INTERNAL"};

// The two enumerations run in parallel, but for SAGEJIT_OK.
constexpr sagejit_status status_of(ErrorKind kind) {
  return static_cast<sagejit_status>(static_cast<int>(kind) + 1);
}
static_assert(status_of(ErrorKind::kArgument) == SAGEJIT_E_ARGUMENT);
static_assert(status_of(ErrorKind::kSpec) == SAGEJIT_E_SPEC);
static_assert(status_of(ErrorKind::kUnsupported) == SAGEJIT_E_UNSUPPORTED);
static_assert(status_of(ErrorKind::kNotFound) == SAGEJIT_E_NOT_FOUND);
static_assert(status_of(ErrorKind::kToolchain) == SAGEJIT_E_TOOLCHAIN);
static_assert(status_of(ErrorKind::kDevice) == SAGEJIT_E_DEVICE);
static_assert(status_of(ErrorKind::kIo) == SAGEJIT_E_IO);
static_assert(status_of(ErrorKind::kMemory) == SAGEJIT_E_MEMORY);
static_assert(status_of(ErrorKind::kInternal) == SAGEJIT_E_INTERNAL);

// The status alone survives where there is no memory for an error object.
sagejit_status report(sagejit_error** err, sagejit_status status, const char* message,
                      const char* log) noexcept {
  if (!err) return status;
  try {
    *err = new sagejit_error{status, message, log};
  } catch (const std::bad_alloc&) {
    *err = nullptr;
  }
  return status;
}

}  // namespace

sagejit_status report_exception(sagejit_error** err) noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return report(err, status_of(error.kind()), error.message().c_str(), error.log().c_str());
  } catch (const std::bad_alloc&) {
    return report(err, SAGEJIT_E_MEMORY, "host memory ran out", "");
  } catch (const std::exception& error) {
    return report(err, SAGEJIT_E_INTERNAL, error.what(), "");
  } catch (...) {
    return report(err, SAGEJIT_E_INTERNAL, "an exception of unknown type", "");
  }
}

}  // namespace sagejit::api

extern "C" {

uint32_t sagejit_version(void) {
  return SAGEJIT_VERSION;
}

const char* sagejit_status_name(sagejit_status status) {
  const auto index = static_cast<size_t>(status);
  const auto& names = sagejit::api::kStatusNames;
  return index < names.size() ? names[index] : "unknown status";
}

sagejit_status sagejit_error_status(const sagejit_error* error) {
  return error ? error->status : SAGEJIT_OK;
}

const char* sagejit_error_message(const sagejit_error* error) {
  return error ? error->message.c_str() : "";
}

const char* sagejit_error_log(const sagejit_error* error) {
  return error ? error->log.c_str() : "";
}

void sagejit_error_destroy(sagejit_error* error) {
  delete error;
}

}  // extern "C"
