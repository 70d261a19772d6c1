// Exit codes of the command line, and how errors end in them.
#pragma once

#include <exception>

#include "compiler/support/error.h"

namespace sagejit::cli {

enum ExitCode : int {
  kSuccess = 0,
  kUserError = 1,    // bad option, bad variant text, file that cannot be read or written
  kUnsupported = 2,  // valid, but beyond a limit
  kEnvironment = 3,  // driver, GPU, NVRTC or cache: missing or failing
  kInternal = 4,     // a defect of sagejit
  kInaccurate = 5,   // `run` finished, and the output misses a bar
};

ExitCode exit_code_of(ErrorKind kind);

// Prints "sagejit: error: ..." to stderr, with a toolchain's log beneath it. The diagnostics of a
// variant text are printed as they are, so that editors can follow their file:line:column.
ExitCode report_error(const Error& error);
// The same for any exception in flight; what is no Error of ours is a defect.
ExitCode report_current_exception();

}  // namespace sagejit::cli
