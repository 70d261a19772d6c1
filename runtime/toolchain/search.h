// Finds NVRTC. Order: the caller's option, $SAGEJIT_NVRTC (either of these is final), the dynamic
// loader's own places, $CUDA_HOME, $CUDA_PATH, /usr/local/cuda*, and the private folder that the
// set-up fills with
//   pip install --target .deps/nvrtc nvidia-cuda-nvrtc
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "compiler/backend/cuda/nvrtc.h"
#include "runtime/environment.h"

namespace sagejit {

// One candidate that was tried.
struct ToolchainPlace {
  std::string origin;   // "SAGEJIT_NVRTC", "dynamic loader", ...
  std::string library;  // a path or a bare library name
  std::string outcome;  // "" if it was taken, else why not
};

struct ToolchainSearch {
  std::vector<ToolchainPlace> places;  // in order; the last one was taken if `library` is not empty
  std::string library;                 // "" if nothing was found

  // What to tell a user without NVRTC: every place and the command that installs it.
  std::string failure_message() const;
};

struct ToolchainOptions {
  std::string library;    // the caller's option; "" for none
  std::string cuda_home;  // $CUDA_HOME and the like; "" for none
  std::string cuda_path;
  std::string variable;                      // $SAGEJIT_NVRTC
  std::vector<std::string> private_dirs;     // pip targets: DIR/nvidia/cuNN/lib is looked at
  std::string system_prefix = "/usr/local";  // of cuda*/lib64

  static ToolchainOptions from(const Environment& environment, std::string library);
};

// Tries the places in order. Does not throw; leaves the library that is found loaded in the
// process.
ToolchainSearch search_toolchain(const ToolchainOptions& options);

// A Toolchain that is searched for and loaded when it is first needed. Thread-safe.
class LazyToolchain {
 public:
  explicit LazyToolchain(ToolchainOptions options) : options_(std::move(options)) {}

  // Throws Error{kToolchain} with failure_message() if there is none; then the next call searches
  // again.
  Toolchain& get();
  // Null if there is none that works.
  Toolchain* get_if_any();

 private:
  const ToolchainOptions options_;
  std::mutex mutex_;
  std::unique_ptr<Toolchain> toolchain_;
};

}  // namespace sagejit
