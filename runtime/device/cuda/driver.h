// The CUDA driver, loaded from libcuda.so.1 on first use; no CUDA header is needed to build this.
//
// Numbers and structures are those of the CUDA Driver API reference (CUdevice_attribute,
// CUjit_option, CUfunction_attribute, CUpointer_attribute, CUlaunchConfig), whose binary interface
// is stable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sagejit::cuda {

using Context = struct ContextTag*;
using Module = struct ModuleTag*;
using Function = struct FunctionTag*;
using Event = struct EventTag*;
using CudaStream = void*;

inline constexpr int kSuccess = 0;
inline constexpr int kErrorInvalidValue = 1;
inline constexpr int kErrorOutOfMemory = 2;
inline constexpr int kErrorDeinitialized = 4;

inline constexpr int kAttributeNumSms = 16;
inline constexpr int kAttributeL2Bytes = 38;
inline constexpr int kAttributeComputeMajor = 75;
inline constexpr int kAttributeComputeMinor = 76;
inline constexpr int kAttributePageableMemoryAccess = 88;
inline constexpr int kFunctionSharedBytes = 1;
inline constexpr int kFunctionLocalBytes = 3;
inline constexpr int kFunctionNumRegisters = 4;
inline constexpr int kFunctionMaxDynamicSmem = 8;
inline constexpr int kPointerDeviceOrdinal = 9;
inline constexpr int kJitInfoLogBuffer = 3;
inline constexpr int kJitInfoLogBytes = 4;
inline constexpr int kJitErrorLogBuffer = 5;
inline constexpr int kJitErrorLogBytes = 6;
inline constexpr int kJitLogVerbose = 12;

inline void* const kParamEnd = nullptr;
inline void* const kParamBuffer = reinterpret_cast<void*>(1);
inline void* const kParamBufferBytes = reinterpret_cast<void*>(2);

// CUlaunchAttribute: an identifier and 64 bytes of value, of which the ones used here take the
// first.
struct LaunchAttribute {
  int id = 0;
  int padding = 0;
  int value = 0;
  int rest[15] = {};
};
inline constexpr int kProgrammaticStreamSerialization = 6;

struct LaunchConfig {
  unsigned grid[3];
  unsigned block[3];
  unsigned dynamic_smem_bytes;
  CudaStream stream;
  LaunchAttribute* attributes;
  unsigned num_attributes;
};

// All functions are non-null once driver() has returned one.
struct Driver {
#define DRIVER(member, symbol, params) int(*member) params = nullptr;
#include "runtime/device/cuda/driver.def"
#undef DRIVER

  // "CUDA_ERROR_INVALID_VALUE: invalid argument"
  std::string describe(int result) const;
  // Throws Error{kDevice}, or Error{kMemory} when memory ran out: "cuda:0: launching K:
  // CUDA_ERROR_...".
  void check(int result, std::string_view device, std::string_view what) const;
};

// The driver, loaded and initialised once per process, or null with the reason in `why_not`.
const Driver* find_driver(std::string& why_not);

}  // namespace sagejit::cuda
