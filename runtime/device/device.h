// Device: what runs kernels. Two implementations, a CUDA GPU and the PTX emulator; everything above
// is the same code.
//
// Addresses are uint64_t: CUDA device addresses, or host addresses on the emulator. A Stream is a
// CUstream (null: the legacy default stream); the emulator ignores it and has finished when a call
// returns. Thread safety: all members may be called from several threads at once. Errors:
// Error{kDevice} with the driver's or the emulator's words, Error{kMemory} when memory runs out.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "compiler/artifact.h"
#include "compiler/target/target.h"

namespace sagejit {

using Stream = void*;

struct DeviceInfo {
  std::string name;                // as open_device takes it: "cuda:0", "emulator:sm_80"
  std::string product;             // "NVIDIA H100 80GB HBM3", "PTX emulator"
  const Target* target = nullptr;  // what kernels for it are compiled for
  int num_sms = 0;                 // 1 on an emulator that open_device gives
  uint64_t l2_bytes = 0;           // of cache that all multiprocessors share; 0 on the emulator
  int driver_version = 0;          // 1000 * major + 10 * minor of CUDA; 0 on the emulator
  bool runs_machine_code = false;  // true: give it cubins; false: PTX is all it reads
};

// Memory that a launch touches. The emulator refuses every access outside; a GPU takes no notice.
struct MemoryRange {
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool writable = false;
  const char* name = "";  // for messages; must outlive the launch
};

// A kernel of a loaded artifact; valid as long as that.
struct KernelHandle {
  void* native = nullptr;
};

class LoadedArtifact {
 public:
  virtual ~LoadedArtifact() = default;
  // Throws Error{kInternal} if there is no such kernel.
  virtual KernelHandle kernel(const std::string& name) const = 0;
};

struct LaunchCommand {
  KernelHandle kernel;
  std::array<uint32_t, 3> grid = {1, 1, 1};
  uint32_t block_threads = 0;
  uint32_t dynamic_smem_bytes = 0;
  bool waits_for_previous = false;    // KernelLaunch
  std::span<const std::byte> params;  // packed, each parameter at its natural alignment
};

// Memory that is set to zero.
struct ClearCommand {
  uint64_t address = 0;
  uint64_t bytes = 0;
};

// All that one forward call enqueues, in this order.
struct Submission {
  Stream stream = nullptr;
  std::span<const MemoryRange> arguments;  // what the caller passed: the device must reach it
  std::span<const ClearCommand> clears;
  std::span<const LaunchCommand> launches;
  std::span<const MemoryRange> memory;  // that the launches touch
};

// Two marks on a stream and the time between them.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual void start(Stream stream) = 0;
  virtual void stop(Stream stream) = 0;
  // Waits for the second mark. GPU time; wall time on the emulator.
  virtual double elapsed_ms() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;

  // Loads the artifact's machine code, or its PTX where there is none (or the device reads only
  // PTX). Raises the limit of dynamic shared memory of every kernel that its launches ask for.
  virtual std::unique_ptr<LoadedArtifact> load(const Artifact& artifact) = 0;

  // The launch path: no allocation, lock, synchronisation or environment read of ours; capturable.
  // Throws Error{kArgument} before anything is enqueued if the device cannot reach one of the
  // arguments or another device owns it.
  virtual void submit(const Submission& submission) = 0;

  // For tools and tests. Addresses from allocate() are aligned to 256 bytes; copies return when
  // done.
  virtual uint64_t allocate(uint64_t bytes) = 0;
  virtual void free(uint64_t address) = 0;  // 0 is allowed
  virtual void copy_in(uint64_t to, const void* from, uint64_t bytes, Stream stream) = 0;
  virtual void copy_out(void* to, uint64_t from, uint64_t bytes, Stream stream) = 0;
  virtual void synchronize(Stream stream) = 0;
  virtual std::unique_ptr<Timer> make_timer() = 0;
  // The multiprocessors' clock at this moment; unset where nobody knows.
  virtual std::optional<int> sm_clock_mhz() const { return std::nullopt; }
};

// Opens a device by name:
//   "auto"              the first CUDA GPU that kernels can be compiled for, else the emulator
//   "cuda", "cuda:N"    GPU N of the driver (CUDA_VISIBLE_DEVICES applies)
//   "emulator"          the emulator as an sm_80;   "emulator:sm_90a": as that target
// `why_no_gpu`, if given, receives the reason when "auto" falls back to the emulator, else "".
// Throws Error{kArgument} for an unknown name, Error{kDevice} if the GPU cannot be used.
std::shared_ptr<Device> open_device(std::string_view name, std::string* why_no_gpu = nullptr);

}  // namespace sagejit
