// NVRTC, NVIDIA's run-time compiler for CUDA C++ with its assembler, loaded from a shared library
// on request.
//
// No CUDA header is needed to build this. Where the library is found is the host program's
// business.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/target/target.h"

namespace sagejit {

struct NvrtcOutput {
  std::string ptx;
  std::vector<uint8_t> cubin;  // empty unless assembled
  std::string log;
};

struct NvrtcVersion {
  int major = 0, minor = 0;
  auto operator<=>(const NvrtcVersion&) const = default;
};

// The flags of a compilation for `target` by that release of NVRTC.
std::vector<std::string> nvrtc_flags(NvrtcVersion version, const Target& target, bool assemble);

// Safe to use from several threads at once.
class Nvrtc {
 public:
  // Opens the library (a path, or a bare name the loader resolves). Throws Error{kToolchain}.
  static std::unique_ptr<Nvrtc> load(const std::string& library);
  ~Nvrtc();

  // "nvrtc 13.0": takes part in cache keys.
  const std::string& version() const;
  NvrtcVersion release() const;

  // nvrtc_flags() of this release; they take part in cache keys.
  std::vector<std::string> flags(const Target& target, bool assemble) const;

  // CUDA C++ to PTX and, if `assemble`, to a cubin, with ptxas' report in the log.
  // Throws Error{kToolchain} with NVRTC's log if it refuses.
  NvrtcOutput compile(std::string_view source, const Target& target, bool assemble) const;

 private:
  struct Api;
  explicit Nvrtc(std::unique_ptr<Api> api);
  std::unique_ptr<Api> api_;
};

}  // namespace sagejit
