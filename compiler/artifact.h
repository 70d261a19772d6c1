// Artifact: one compiled variant, as plain data: code, how to launch it, and what the assembler
// said.
//
// It is what compile() returns, what the cache and packs store, and all that a launch needs. It
// knows no generator: grids, parameters and buffer sizes are SizeExpr texts over the problem at
// hand.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "compiler/support/dtype.h"
#include "compiler/support/size_expr.h"

namespace sagejit {

enum class ParamType : uint8_t { kPointer, kI64, kI32 };

// One kernel parameter: the value of an expression, or the address of a workspace buffer.
struct KernelParam {
  std::string name;
  ParamType type = ParamType::kI32;
  int buffer = -1;  // index into Plan::workspace, or -1: `value` holds
  SizeExpr value;
  bool operator==(const KernelParam&) const = default;
};

// Preparation (statistics, quantization) and attention can be launched apart.
enum class Phase : uint8_t { kQuantize, kAttend };

struct KernelLaunch {
  std::string kernel;  // entry name in its module
  Phase phase = Phase::kAttend;
  std::array<SizeExpr, 3> grid;  // blocks; a zero anywhere means the step has nothing to do
  int block_threads = 0;
  int dynamic_smem_bytes = 0;
  // The kernel itself waits for the launch before it, as a whole or for what it needs of it, and
  // may start while that one runs (CUDA C++ Programming Guide, "Programmatic Dependent Launch").
  bool waits_for_previous = false;
  std::vector<KernelParam> params;
  bool operator==(const KernelLaunch&) const = default;
};

// A region of the caller's workspace. Buffers follow one another, each start rounded up to 256
// bytes.
struct WorkspaceBuffer {
  std::string name;
  SizeExpr bytes;
  bool zeroed = false;  // set to zero before the first launch of Phase::kQuantize
  bool operator==(const WorkspaceBuffer&) const = default;
};

// The ordered launches of one forward call.
struct Plan {
  std::vector<WorkspaceBuffer> workspace;
  std::vector<KernelLaunch> launches;
  bool operator==(const Plan&) const = default;
};

// What a launch must check about its tensors.
struct TensorContract {
  int head_dim = 0;        // of q and k
  int value_head_dim = 0;  // of v and o
  DType input = DType::kF16;
  DType output = DType::kF16;
  bool lse = false;
  bool operator==(const TensorContract&) const = default;
};

struct KernelResources {
  std::string kernel;
  int registers = 0;
  int spill_store_bytes = 0, spill_load_bytes = 0;
  int stack_bytes = 0;
  int static_smem_bytes = 0;
  bool operator==(const KernelResources&) const = default;
};

// The code of one kernel. Kernels are compiled apart: at the same time, and only where their source
// differs.
struct KernelModule {
  std::string kernel;  // its one entry
  std::string ptx;
  std::vector<uint8_t> cubin;  // empty when only PTX was asked for, or the driver is to load that
  bool operator==(const KernelModule&) const = default;
};

struct Artifact {
  std::string variant_name;   // label
  std::string variant_text;   // canonical text, without the label
  std::string schedule_text;  // one line, canonical
  std::string target;         // "sm_80", ...
  std::string backend;        // name and exact version: "ptx", "cuda nvrtc 13.0"
  std::string assembler;      // likewise: "ptxas 13.0.88"; "" when nothing was assembled
  TensorContract tensors;
  Plan plan;
  std::vector<KernelModule> modules;       // one of each kernel, in launch order
  std::vector<KernelResources> resources;  // likewise; empty when nothing was assembled
  std::string assembler_log;
};

}  // namespace sagejit
