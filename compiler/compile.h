// The one door into the compiler: a request in, an artifact out; the same request gives the same
// bytes.
//
// Pure but for the toolchain it is handed: no GPU, no disk, no environment, no global state.
// All functions are safe to call from several threads.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/artifact.h"
#include "compiler/schedule/schedule.h"
#include "compiler/sema/variant.h"
#include "compiler/target/target.h"

namespace sagejit {

// Turns CUDA C++ into PTX and machine code: NVRTC, wherever its host loads it from.
class Toolchain;  // compiler/backend/cuda/nvrtc.h

struct CompileRequest {
  Variant variant;
  const Target* target = nullptr;
  std::optional<Schedule> schedule;  // unset: the first of default_schedules that
                                     // assembles without spills, else the least
  bool assemble = true;              // false: PTX alone, as the emulator needs
};

struct KernelTime {
  std::string kernel;
  double ms = 0;
};

// Milliseconds spent in each stage, for whoever wants to show them.
struct CompileTimes {
  double generate_ms = 0;   // schedule, plan, IR, verification
  double print_ms = 0;      // IR to CUDA C++
  double toolchain_ms = 0;  // NVRTC: PTX and, if asked for, machine code; wall time, as kernels are
                            // compiled at the same time
  std::vector<KernelTime> kernels;  // what that was for each kernel that was compiled, in order
};

// Throws Error: kUnsupported (names the limit), kToolchain (with the log), kInternal (a defect
// here).
Artifact compile(const CompileRequest& request, Toolchain& toolchain,
                 CompileTimes* times = nullptr);

// Warpgroups take registers from what the assembler gave their block; with less than the schedule
// counts on they would wait for ever. Throws Error{kToolchain} for such a kernel, and for one
// without a report.
void check_register_pool(const Schedule& schedule, std::span<const KernelResources> resources);

// The intermediate forms of every kernel, for people: the IR's text, and the CUDA C++ made from it,
// a translation unit each.
struct KernelText {
  std::string kernel;
  std::string text;
};
std::vector<KernelText> emit_ir(const CompileRequest& request);
std::vector<KernelText> emit_source(const CompileRequest& request);

// Everything that determines the artifact's bytes, as two texts, the basis of cache keys. The first
// says what the artifact does and for whom: canonical variant, schedule, target, generator content
// hash, output kind; whoever has no toolchain can tell that much. The second says who made it: back
// end with its exact version and flags.
std::string request_key_text(const CompileRequest& request);
std::string toolchain_key_text(const CompileRequest& request, const Toolchain& toolchain);

}  // namespace sagejit
