// Kernel: an artifact loaded on a device, ready to launch. Immutable; launch from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "compiler/artifact.h"
#include "compiler/support/size_program.h"
#include "runtime/device/device.h"
#include "runtime/launch/args.h"

namespace sagejit {

inline constexpr uint64_t kWorkspaceAlignment =
    256;  // bytes; of the workspace and of each buffer in it

class Kernel {
 public:
  // Loads the code and resolves every launch of the plan.
  // Throws Error{kDevice} if the device refuses it, Error{kInternal} if the plan breaks a limit
  // below.
  Kernel(std::shared_ptr<Device> device, Artifact artifact);

  static constexpr int kMaxBuffers = 32;
  static constexpr int kMaxLaunches = 8;
  static constexpr int kMaxParamBytes = 4096;  // of all launches; CUDA's limit for one of them

  const Artifact& artifact() const { return artifact_; }
  Device& device() const { return *device_; }

  // Bytes of workspace for a problem; addresses of the tensors do not matter. A multiple of 256.
  uint64_t workspace_bytes(const AttentionArgs& args) const;

  // Enqueues the launches of the chosen phases on `stream`, in plan order, after clearing the
  // buffers that must start at zero (phase quantize). Allocates nothing, takes no lock and waits
  // for nothing; may be captured into a graph. The two phases of one problem share a workspace
  // whose contents the caller keeps between them. A problem without query rows does nothing; one
  // without keys yields o = 0, lse = -inf. Throws Error{kArgument}, Error{kUnsupported} (grid
  // limits) before anything is enqueued; Error{kDevice} otherwise.
  void launch(const AttentionArgs& args, PhaseSet phases, Stream stream) const;

 private:
  struct Layout {
    std::array<uint64_t, kMaxBuffers> offsets = {};
    std::array<uint64_t, kMaxBuffers> bytes = {};
    uint64_t total_bytes = 0;
  };
  // A parameter, resolved: a workspace buffer, or a value of the program; and where it goes.
  struct Param {
    bool is_buffer = false;
    bool is_32_bit = false;
    int index = 0;
    uint32_t offset = 0;
  };
  // A launch of the plan, resolved: its code, and where its parameters lie in the buffer that all
  // launches of a call share.
  struct Step {
    KernelHandle handle;
    std::array<int, 3> grid = {};  // values of the program
    std::vector<Param> params;
    uint32_t param_begin = 0, param_end = 0;
    OperandSet operands = 0;  // whose addresses it is given
  };
  // Everything a call hands to the device; lives on the caller's stack.
  struct Call {
    std::array<MemoryRange, kNumOperands + 1> arguments;
    std::array<MemoryRange, kNumOperands + kMaxBuffers> memory;
    std::array<ClearCommand, kMaxBuffers> clears;
    std::array<LaunchCommand, kMaxLaunches> launches;
    alignas(16) std::array<std::byte, kMaxParamBytes> params;
    size_t num_arguments = 0, num_ranges = 0, num_clears = 0, num_launches = 0;
  };

  using Values = std::array<int64_t, SizeProgram::kMaxValues>;

  Step resolve(const KernelLaunch& launch, uint32_t param_begin);
  BoundArgs bind(const AttentionArgs& args, OperandSet in_use) const;
  OperandSet operands_of(PhaseSet phases) const;
  Layout lay_out(const Values& values) const;
  void check_workspace(const AttentionArgs& args, const Layout& layout) const;
  void add_memory(const BoundArgs& bound, const Layout& layout, uint64_t workspace,
                  Call& call) const;
  void add_clears(const Layout& layout, uint64_t workspace, Call& call) const;
  void add_launch(size_t index, const Values& values, const Layout& layout, uint64_t workspace,
                  Call& call) const;
  static std::array<uint32_t, 3> grid_of(const KernelLaunch& launch, const Step& step,
                                         const Values& values);
  static void pack_params(const KernelLaunch& launch, const Step& step, const Values& values,
                          const Layout& layout, uint64_t workspace, std::byte* out);

  std::shared_ptr<Device> device_;
  Artifact artifact_;
  std::unique_ptr<LoadedArtifact> loaded_;
  SizeProgram program_;                               // of the expressions of the plan
  std::vector<int> buffer_bytes_;                     // values of the program, by buffer
  std::vector<Step> steps_;                           // by launch
  std::array<std::string, kMaxBuffers> range_names_;  // "workspace.NAME"
};

}  // namespace sagejit
