// The one exception type of compiler/ and runtime/: what went wrong, whose fault it is, how to mend
// it.
//
// Every failure carries a kind, so that the C API can turn it into a status, the command line into
// an exit code, and a reader into a decision about who must act. Nothing but the API boundary
// catches it.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string>
#include <utility>

namespace sagejit {

enum class ErrorKind {
  kArgument,     // the caller passed something wrong: null, misaligned, shapes that do not fit
  kSpec,         // the variant text is wrong; the message holds file:line:column and a caret
  kUnsupported,  // valid, but beyond a limit, which the message names with the nearest thing that
                 // works
  kNotFound,     // the kernel is nowhere, and building it is disabled
  kToolchain,    // NVRTC or an assembler is missing or refused the kernel; `log` holds its output
  kDevice,       // the GPU driver or the emulator reported a fault
  kIo,           // a file could not be read or written
  kMemory,       // host or device memory ran out
  kInternal,     // a defect of sagejit
};

class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message, std::string log = "")
      : kind_(kind), message_(std::move(message)), log_(std::move(log)) {}

  ErrorKind kind() const noexcept { return kind_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& log() const noexcept { return log_; }  // the toolchain's output; often empty
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorKind kind_;
  std::string message_;
  std::string log_;
};

// Formats and throws: fail(ErrorKind::kArgument, "head_dim {} is ...", d).
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace sagejit
