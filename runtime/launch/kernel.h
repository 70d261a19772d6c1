// Kernel: an artifact loaded on a device, ready to launch. Immutable; launch from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "compiler/artifact.h"
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
  static constexpr int kMaxParamBytes = 4096;  // CUDA's limit on kernel parameters

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
  // Where the parameters of one launch lie in its parameter buffer.
  struct Step {
    KernelHandle handle;
    uint32_t param_bytes = 0;
    std::vector<uint32_t> offsets;
    OperandSet operands = 0;  // whose addresses it is given
  };
  using Memory = std::array<MemoryRange, kNumOperands + kMaxBuffers>;

  Step resolve(const KernelLaunch& launch) const;
  BoundArgs bind(const AttentionArgs& args, OperandSet in_use) const;
  OperandSet operands_of(PhaseSet phases) const;
  Layout lay_out(SymbolValues symbols) const;
  void check_workspace(const AttentionArgs& args, const Layout& layout) const;
  std::array<uint32_t, 3> evaluate_grid(const KernelLaunch& launch, SymbolValues symbols) const;
  void clear_buffers(const Layout& layout, uint64_t workspace, Stream stream) const;
  void pack_params(const KernelLaunch& launch, const Step& step, SymbolValues symbols,
                   const Layout& layout, uint64_t workspace, std::byte* out) const;

  std::shared_ptr<Device> device_;
  Artifact artifact_;
  std::unique_ptr<LoadedArtifact> loaded_;
  std::vector<Step> steps_;                           // by launch of the plan
  std::array<std::string, kMaxBuffers> range_names_;  // "workspace.NAME"
};

}  // namespace sagejit
