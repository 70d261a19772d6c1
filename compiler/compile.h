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

// Turns kernels into PTX and machine code with whatever its host found.
class Toolchain;  // compiler/backend/toolchain.h

struct CompileRequest {
  Variant variant;
  const Target* target = nullptr;
  std::optional<Schedule> schedule;  // unset: the first of default_schedules that
                                     // assembles without spills, else the least
  bool assemble = true;              // false: PTX alone, as the emulator needs
};

// Of one kernel; where front end and assembler run in one go, all of it is the back end's.
struct KernelTime {
  std::string kernel;
  double backend_ms = 0;   // IR to PTX
  double assemble_ms = 0;  // PTX to machine code
};

// Milliseconds spent in each stage, for whoever wants to show them.
struct CompileTimes {
  double generate_ms = 0;           // schedule, plan, IR, verification
  double toolchain_ms = 0;          // back end and assembler, wall time: kernels go side by side
  std::vector<KernelTime> kernels;  // of each kernel that was compiled, in order
};

// Throws Error: kUnsupported (names the limit), kToolchain (with the log), kInternal (a defect
// here).
Artifact compile(const CompileRequest& request, const Toolchain& toolchain,
                 CompileTimes* times = nullptr);

// What may be tried: the schedule that was asked for, or the defaults in order. Throws
// Error{kUnsupported} for a variant that the target cannot have.
std::vector<Schedule> schedules_of(const CompileRequest& request);

// Warpgroups take registers from what the assembler gave their block; with less than the schedule
// counts on they would wait for ever. Throws Error{kToolchain} for such a kernel, and for one
// without a report.
void check_register_pool(const Schedule& schedule, std::span<const KernelResources> resources);

// The intermediate forms of every kernel, for people: the IR's text, and the CUDA C++ that the
// reference back end makes from it, a translation unit each.
struct KernelText {
  std::string kernel;
  std::string text;
};
std::vector<KernelText> emit_ir(const CompileRequest& request);
std::vector<KernelText> emit_source(const CompileRequest& request);

// Everything that determines the artifact's bytes, as two texts, the basis of cache keys. The first
// says what the artifact does and for whom: canonical variant, schedule, target, generator content
// hash, output kind; whoever has no toolchain can tell that much. The second says who made it: back
// end and, for machine code, assembler, with their exact versions and flags.
std::string request_key_text(const CompileRequest& request);
std::string toolchain_key_text(const CompileRequest& request, const Toolchain& toolchain);

}  // namespace sagejit
