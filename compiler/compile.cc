#include "compiler/compile.h"

#include <chrono>

#include "compiler/backend/cuda/nvrtc.h"
#include "compiler/backend/cuda/print_cuda.h"
#include "compiler/kernels/generators.h"
#include "compiler/plan/forward_plan.h"
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

Schedule schedule_of(const CompileRequest& request) {
  return request.schedule ? *request.schedule : default_schedule(request.variant, *request.target);
}

ForwardPlan plan_of(const CompileRequest& request) {
  if (!request.target) fail(ErrorKind::kArgument, "compile request without a target");
  return make_forward_plan(request.variant, schedule_of(request), *request.target);
}

// The kernels know what shared memory they reserve; for attention the schedule was chosen by a prediction,
// which must have been right.
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

}  // namespace

Artifact compile(const CompileRequest& request, Toolchain& toolchain, CompileTimes* times) {
  Stopwatch watch;
  CompileTimes spent;
  ForwardPlan plan = plan_of(request);
  const std::vector<ir::Function> kernels = generate_kernels(plan);
  take_smem_sizes(plan.plan, kernels);
  spent.generate_ms = watch.lap_ms();
  const std::string source = print_cuda(kernels);
  spent.print_ms = watch.lap_ms();
  ToolchainOutput output = toolchain.compile(source, *request.target, request.assemble);
  spent.toolchain_ms = watch.lap_ms();
  if (times) *times = spent;

  const Variant& variant = request.variant;
  Artifact artifact;
  artifact.variant_name = variant.name;
  artifact.variant_text = canonical_key_text(variant);
  artifact.schedule_text = print_schedule(plan.schedule);
  artifact.target = request.target->name;
  artifact.backend = "cuda " + toolchain.version();
  artifact.tensors = {variant.head_dim, variant.value_head_dim, variant.input, variant.output,
                      variant.lse};
  artifact.plan = plan.plan;
  artifact.ptx = std::move(output.ptx);
  artifact.cubin = std::move(output.cubin);
  artifact.resources = std::move(output.resources);
  artifact.assembler_log = std::move(output.log);
  return artifact;
}

std::string emit_ir(const CompileRequest& request) {
  const ForwardPlan plan = plan_of(request);
  std::string text;
  for (const ir::Function& kernel : generate_kernels(plan)) text += ir::print(kernel) + "\n";
  return text;
}

std::string emit_source(const CompileRequest& request) {
  const ForwardPlan plan = plan_of(request);
  return print_cuda(generate_kernels(plan));
}

std::string cache_key_text(const CompileRequest& request, const Toolchain& toolchain) {
  if (!request.target) fail(ErrorKind::kArgument, "compile request without a target");
  std::string flags;
  for (const std::string& flag : toolchain.flags(*request.target, request.assemble)) {
    flags += " " + flag;
  }
  return fmt::format(
      "{}schedule: {}\ntarget: {}\ngenerator: {}\nbackend: cuda {}\nflags:{}\noutput: {}\n",
      canonical_key_text(request.variant), print_schedule(schedule_of(request)),
      request.target->name, kGeneratorHash, toolchain.version(), flags,
      request.assemble ? "ptx cubin" : "ptx");
}

}  // namespace sagejit
