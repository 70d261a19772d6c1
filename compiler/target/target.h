// A compilation target and the limits of its streaming multiprocessor; rows of targets.def.
#pragma once

#include <span>
#include <string_view>

namespace sagejit {

struct Target {
  std::string_view name;  // "sm_80", "sm_90a", ...
  int sm;                 // 80, 90, ...
  int smem_per_block;     // bytes of shared memory one block may ask for
  int smem_per_sm;        // bytes; a resident block costs what it asks for plus 1024
  int regs_per_sm;        // 32-bit registers
  int max_threads_per_sm;
  bool native_s4_mma, native_fp8_mma, wgmma, fp4_mma;
  int ptx_version;  // the least that kernels are printed in, 80: PTX ISA 8.0; some take a newer one
};

// Of every target.
inline constexpr int kMaxThreadsPerBlock = 1024;

std::span<const Target> all_targets();

// The target of that name; throws Error{kUnsupported} listing the known ones.
const Target& find_target(std::string_view name);

// The best target of targets.def for a device of compute capability major.minor:
// the architecture-specific one ("a") where there is one. Throws Error{kUnsupported} for devices
// below 8.0.
const Target& target_for_device(int major, int minor);

}  // namespace sagejit
