#include "tools/cli/exit_code.h"

#include <cstdio>
#include <new>

namespace sagejit::cli {

ExitCode exit_code_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kArgument:
    case ErrorKind::kSpec:
    case ErrorKind::kIo:
      return kUserError;
    case ErrorKind::kUnsupported:
      return kUnsupported;
    case ErrorKind::kNotFound:
    case ErrorKind::kToolchain:
    case ErrorKind::kDevice:
    case ErrorKind::kMemory:
      return kEnvironment;
    case ErrorKind::kInternal:
      return kInternal;
  }
  return kInternal;
}

ExitCode report_error(const Error& error) {
  if (error.kind() == ErrorKind::kSpec) {
    fmt::print(stderr, "{}\nsagejit: error: the variant text cannot be used\n", error.message());
  } else {
    fmt::print(stderr, "sagejit: error: {}{}\n",
               error.kind() == ErrorKind::kInternal ? "internal: " : "", error.message());
  }
  if (!error.log().empty()) {
    fmt::print(stderr, "--- log of the toolchain ---\n{}\n", error.log());
  }
  return exit_code_of(error.kind());
}

ExitCode report_current_exception() {
  try {
    throw;
  } catch (const Error& error) {
    return report_error(error);
  } catch (const std::bad_alloc&) {
    return report_error(Error(ErrorKind::kMemory, "memory ran out; use a smaller shape"));
  } catch (const std::exception& error) {
    return report_error(Error(ErrorKind::kInternal, error.what()));
  }
}

}  // namespace sagejit::cli
