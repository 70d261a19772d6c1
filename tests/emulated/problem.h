// Problem: the tensors of one forward call on a device, with every trap set that shows wrong
// accesses.
//
// Outputs and workspace start as NaN patterns; every buffer lies between guard zones; layouts have
// gaps between rows that nobody may write.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/launch/kernel.h"
#include "tests/reference/inputs.h"

namespace sagejit::test {

using reference::HostTensor;
using reference::Inputs;

enum class Layout {
  kBhtd,       // contiguous [b, h, t, d]
  kBthd,       // contiguous [b, t, h, d], the order most frameworks produce
  kPadded,     // gaps after every row, head and batch
  kBroadcast,  // contiguous; all batches of K and V are one (stride 0)
};
const char* name_of(Layout layout);

// Memory of a device between two guard zones.
class GuardedBuffer {
 public:
  // Filled with `contents`.
  GuardedBuffer(Device& device, std::vector<uint8_t> contents);
  ~GuardedBuffer();
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  uint64_t address() const { return base_ + kGuardBytes; }
  const std::vector<uint8_t>& initial() const { return initial_; }
  std::vector<uint8_t> read() const;
  bool guards_intact() const;

 private:
  static constexpr uint64_t kGuardBytes = 256;
  Device& device_;
  std::vector<uint8_t> initial_;
  uint64_t base_;
};

class Problem {
 public:
  // Inputs are stored in the layout; they have the kernel's types and head dims.
  Problem(const Kernel& kernel, const Inputs& inputs, Layout layout = Layout::kBhtd);

  // Waits until the device is done. Throws as Kernel::launch.
  void launch(PhaseSet phases = kBothPhases);

  const Kernel& kernel() const { return kernel_; }
  const Inputs& inputs() const { return inputs_; }  // as laid out
  HostTensor o() const { return read(o_host_, *o_); }
  HostTensor lse() const { return read(lse_host_, *lse_); }  // f32 [b, hq, m, 1]; empty without LSE
  // "" or what was written that must not be: guards, gaps, inputs.
  std::string damage() const;
  // Contents of a buffer of the plan; throws Error{kArgument} if it has none of that name.
  std::vector<uint8_t> workspace(std::string_view name) const;
  bool has_workspace(std::string_view name) const;
  AttentionArgs& args() { return args_; }

 private:
  HostTensor read(const HostTensor& form, const GuardedBuffer& buffer) const;
  Tensor argument(const HostTensor& tensor, const GuardedBuffer& buffer, int rank) const;

  const Kernel& kernel_;
  Inputs inputs_;
  HostTensor o_host_, lse_host_;
  std::unique_ptr<GuardedBuffer> q_, k_, v_, o_, lse_, workspace_;
  AttentionArgs args_;
};

}  // namespace sagejit::test
