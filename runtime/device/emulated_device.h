// The PTX emulator as a Device. Memory is the host's; launches have finished when submit() returns.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/device/device.h"
#include "runtime/device/emulator/emulator.h"

namespace sagejit {

// What one launch on the emulator did.
struct EmulatedLaunch {
  std::string kernel;
  emulator::Report report;
};

class EmulatedDevice final : public Device {
 public:
  // num_sms: what kernels that stay on an SM are told; its blocks run in parallel on the host's
  // cores all the same.
  explicit EmulatedDevice(const Target& target, emulator::Options options = {}, int num_sms = 1);

  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<LoadedArtifact> load(const Artifact& artifact) override;
  void submit(const Submission& submission) override;
  uint64_t allocate(uint64_t bytes) override;
  void free(uint64_t address) override;
  void copy_in(uint64_t to, const void* from, uint64_t bytes, Stream stream) override;
  void copy_out(void* to, uint64_t from, uint64_t bytes, Stream stream) override;
  void synchronize(Stream stream) override;
  std::unique_ptr<Timer> make_timer() override;

  // The launches since the last call, oldest first; the device keeps the latest kMaxRecords.
  std::vector<EmulatedLaunch> take_launches();
  static constexpr size_t kMaxRecords = 4096;

 private:
  emulator::QueuedLaunch queued(const LaunchCommand& command,
                                std::span<const emulator::MemoryRange> memory) const;

  DeviceInfo info_;
  emulator::Options options_;
  std::mutex mutex_;  // guards launches_
  std::vector<EmulatedLaunch> launches_;
};

}  // namespace sagejit
