#include "runtime/device/emulated_device.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

template <typename T>
T* host_pointer(uint64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

// Runs `body`; the emulator's own error becomes ours, with its whole report. `what` was at work; if
// nothing is named, the kernel that failed.
template <typename Body>
auto translate_errors(Body body, std::string_view what = "") {
  try {
    return body();
  } catch (const emulator::Error& error) {
    throw Error(
        ErrorKind::kDevice,
        fmt::format("emulator: {}: {}", what.empty() ? error.info().kernel : what, error.what()));
  }
}

struct EmulatedKernel {
  emulator::Program program;
  std::string name;
};

class EmulatedArtifact final : public LoadedArtifact {
 public:
  explicit EmulatedArtifact(const std::vector<KernelModule>& modules) {
    kernels_.reserve(modules.size());
    for (const KernelModule& module : modules) {
      const auto program = translate_errors([&] { return emulator::Program::parse(module.ptx); },
                                            fmt::format("loading kernel '{}'", module.kernel));
      kernels_.push_back({program, module.kernel});
    }
  }

  KernelHandle kernel(const std::string& name) const override {
    for (const EmulatedKernel& kernel : kernels_) {
      if (kernel.name == name) return {const_cast<EmulatedKernel*>(&kernel)};
    }
    fail(ErrorKind::kInternal, "the artifact has no kernel '{}'", name);
  }

 private:
  std::vector<EmulatedKernel> kernels_;
};

class WallTimer final : public Timer {
 public:
  void start(Stream) override { start_ = Clock::now(); }
  void stop(Stream) override { elapsed_ms_ = ms_since(start_); }
  double elapsed_ms() override { return elapsed_ms_; }

 private:
  Clock::time_point start_ = Clock::now();
  double elapsed_ms_ = 0;
};

}  // namespace

EmulatedDevice::EmulatedDevice(const Target& target, emulator::Options options, int num_sms)
    : options_(options) {
  info_.name = fmt::format("emulator:{}", target.name);
  info_.product = "PTX emulator";
  info_.target = &target;
  info_.num_sms = num_sms;
}

std::unique_ptr<LoadedArtifact> EmulatedDevice::load(const Artifact& artifact) {
  return std::make_unique<EmulatedArtifact>(artifact.modules);
}

// Host memory cannot be told from other addresses, so arguments are not looked up; the emulator
// checks what a launch touches.
void EmulatedDevice::submit(const Submission& submission) {
  std::vector<emulator::MemoryRange> memory;
  memory.reserve(submission.memory.size());
  for (const MemoryRange& range : submission.memory) {
    memory.push_back({range.address, range.bytes, range.writable, range.name});
  }
  for (const ClearCommand& clear : submission.clears) {
    std::memset(host_pointer<void>(clear.address), 0, clear.bytes);
  }
  std::vector<emulator::QueuedLaunch> launches;
  for (const LaunchCommand& command : submission.launches) {
    launches.push_back(queued(command, memory));
  }
  const std::vector<emulator::Report> reports =
      translate_errors([&] { return emulator::run(launches); });
  const std::scoped_lock lock(mutex_);
  for (size_t i = 0; i < launches.size(); ++i) {
    if (launches_.size() == kMaxRecords) launches_.erase(launches_.begin());
    launches_.push_back({std::string(launches[i].config.kernel), reports[i]});
  }
}

emulator::QueuedLaunch EmulatedDevice::queued(const LaunchCommand& command,
                                              std::span<const emulator::MemoryRange> memory) const {
  const auto& kernel = *static_cast<const EmulatedKernel*>(command.kernel.native);
  emulator::LaunchConfig config;
  config.kernel = kernel.name;
  for (int i = 0; i < 3; ++i) config.grid[i] = command.grid[i];
  config.block[0] = command.block_threads;
  config.dynamic_shared_bytes = command.dynamic_smem_bytes;
  config.params = command.params;
  config.memory = memory;
  config.options = options_;
  config.is_dependent = command.waits_for_previous;
  return {kernel.program, config};
}

uint64_t EmulatedDevice::allocate(uint64_t bytes) {
  constexpr uint64_t kAlignment = 256;
  if (bytes > SIZE_MAX - kAlignment) {
    fail(ErrorKind::kMemory, "{} cannot allocate {} bytes", info_.name, bytes);
  }
  const uint64_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, rounded ? rounded : kAlignment);
  if (!memory) fail(ErrorKind::kMemory, "{} cannot allocate {} bytes", info_.name, bytes);
  return reinterpret_cast<uintptr_t>(memory);
}

void EmulatedDevice::free(uint64_t address) {
  std::free(host_pointer<void>(address));
}

void EmulatedDevice::copy_in(uint64_t to, const void* from, uint64_t bytes, Stream) {
  if (bytes) std::memcpy(host_pointer<void>(to), from, bytes);
}

void EmulatedDevice::copy_out(void* to, uint64_t from, uint64_t bytes, Stream) {
  if (bytes) std::memcpy(to, host_pointer<const void>(from), bytes);
}

void EmulatedDevice::synchronize(Stream) {}

std::unique_ptr<Timer> EmulatedDevice::make_timer() {
  return std::make_unique<WallTimer>();
}

std::vector<EmulatedLaunch> EmulatedDevice::take_launches() {
  const std::scoped_lock lock(mutex_);
  return std::exchange(launches_, {});
}

}  // namespace sagejit
