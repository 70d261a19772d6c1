#include "compiler/compile.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "compiler/backend/cuda/nvrtc.h"
#include "compiler/backend/cuda/print_cuda.h"
#include "compiler/kernels/generators.h"
#include "compiler/plan/forward_plan.h"
#include "compiler/sema/check.h"
#include "compiler/sema/print.h"
#include "compiler/support/error.h"
#include "generator_hash.h"

namespace sagejit {
namespace {

class Stopwatch {
 public:
  // Milliseconds since the last call, or since construction.
  double lap_ms() {
    const auto now = std::chrono::steady_clock::now();
    const double ms = std::chrono::duration<double, std::milli>(now - last_).count();
    last_ = now;
    return ms;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

const Target& target_of(const CompileRequest& request) {
  if (!request.target) fail(ErrorKind::kArgument, "compile request without a target");
  return *request.target;
}

// What may be tried: the schedule that was asked for, or the defaults in order.
std::vector<Schedule> schedules_of(const CompileRequest& request) {
  const Target& target = target_of(request);
  check_valid(request.variant);
  check_supported(request.variant, target);
  if (request.schedule) return {*request.schedule};
  return default_schedules(request.variant, target);
}

ForwardPlan first_plan_of(const CompileRequest& request) {
  return make_forward_plan(request.variant, schedules_of(request).front(), *request.target);
}

// The kernels know what shared memory they reserve; for attention the schedule was chosen by a
// prediction, which must have been right.
void take_smem_sizes(Plan& plan, const std::vector<ir::Function>& kernels) {
  for (size_t i = 0; i < kernels.size(); ++i) {
    KernelLaunch& launch = plan.launches[i];
    const int bytes = kernels[i].smem_bytes();
    if (launch.dynamic_smem_bytes != 0 && launch.dynamic_smem_bytes != bytes) {
      fail(ErrorKind::kInternal, "kernel '{}' reserves {} bytes of shared memory, its plan says {}",
           launch.kernel, bytes, launch.dynamic_smem_bytes);
    }
    launch.dynamic_smem_bytes = bytes;
  }
}

// One schedule's kernels, compiled.
struct Attempt {
  Schedule schedule;
  Plan plan;
  ToolchainOutput output;
  int spill_bytes = 0;
  bool is_clean = false;  // no spills, nothing serialized
};

Attempt attempt(const CompileRequest& request, const Schedule& schedule, Toolchain& toolchain,
                CompileTimes& spent) {
  Stopwatch watch;
  ForwardPlan plan = make_forward_plan(request.variant, schedule, *request.target);
  const std::vector<ir::Function> kernels = generate_kernels(plan);
  take_smem_sizes(plan.plan, kernels);
  spent.generate_ms += watch.lap_ms();
  const std::string source = print_cuda(kernels);
  spent.print_ms += watch.lap_ms();
  Attempt result{schedule, std::move(plan.plan),
                 toolchain.compile(source, *request.target, request.assemble), 0, false};
  spent.toolchain_ms += watch.lap_ms();
  for (const KernelResources& kernel : result.output.resources) {
    result.spill_bytes += kernel.spill_store_bytes + kernel.spill_load_bytes;
  }
  if (request.assemble) check_register_pool(schedule, result.output.resources);
  result.is_clean = find_assembly_fault(result.output).empty();
  return result;
}

// The first clean attempt, otherwise the one that spills least: right, if not as fast as it might
// be.
Attempt best_attempt(const CompileRequest& request, Toolchain& toolchain, CompileTimes& spent) {
  std::optional<Attempt> best;
  for (const Schedule& schedule : schedules_of(request)) {
    Attempt next = attempt(request, schedule, toolchain, spent);
    if (next.is_clean) return next;
    if (!best || next.spill_bytes < best->spill_bytes) best = std::move(next);
  }
  return *std::move(best);
}

}  // namespace

void check_register_pool(const Schedule& schedule, std::span<const KernelResources> resources) {
  if (!moves_registers(schedule)) return;
  const auto attention = std::find_if(resources.begin(), resources.end(), [](const auto& kernel) {
    return kernel.kernel == "attention";
  });
  const int found = attention == resources.end() ? 0 : attention->registers;
  const int start = wgmma_registers_of_roles(schedule).start;
  if (found >= start) return;
  fail(ErrorKind::kToolchain,
       "the attention kernel would hang: its warpgroups share out {} registers a thread, the "
       "assembler "
       "{}; use another release of NVRTC, or a schedule with warps=4",
       start, found ? fmt::format("gave it {}", found) : "does not say how many it gave");
}

Artifact compile(const CompileRequest& request, Toolchain& toolchain, CompileTimes* times) {
  CompileTimes spent;
  Attempt made = best_attempt(request, toolchain, spent);
  if (times) *times = spent;
  const Variant& variant = request.variant;
  Artifact artifact;
  artifact.variant_name = variant.name;
  artifact.variant_text = canonical_key_text(variant);
  artifact.schedule_text = print_schedule(made.schedule);
  artifact.target = request.target->name;
  artifact.backend = "cuda " + toolchain.version();
  artifact.tensors = {variant.head_dim, variant.value_head_dim, variant.input, variant.output,
                      variant.lse};
  artifact.plan = std::move(made.plan);
  artifact.ptx = std::move(made.output.ptx);
  artifact.cubin = std::move(made.output.cubin);
  artifact.resources = std::move(made.output.resources);
  artifact.assembler_log = std::move(made.output.log);
  return artifact;
}

std::string emit_ir(const CompileRequest& request) {
  const ForwardPlan plan = first_plan_of(request);
  std::string text;
  for (const ir::Function& kernel : generate_kernels(plan)) text += ir::print(kernel) + "\n";
  return text;
}

std::string emit_source(const CompileRequest& request) {
  const ForwardPlan plan = first_plan_of(request);
  return print_cuda(generate_kernels(plan));
}

std::string request_key_text(const CompileRequest& request) {
  return fmt::format("{}schedule: {}\ntarget: {}\ngenerator: {}\noutput: {}\n",
                     canonical_key_text(request.variant),
                     request.schedule ? print_schedule(*request.schedule) : "default",
                     target_of(request).name, kGeneratorHash,
                     request.assemble ? "ptx cubin" : "ptx");
}

std::string toolchain_key_text(const CompileRequest& request, const Toolchain& toolchain) {
  return fmt::format("backend: cuda {}\nflags: {}\n", toolchain.version(),
                     fmt::join(toolchain.flags(target_of(request), request.assemble), " "));
}

}  // namespace sagejit
