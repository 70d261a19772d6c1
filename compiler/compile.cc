#include "compiler/compile.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/cuda/print_cuda.h"
#include "compiler/backend/toolchain.h"
#include "compiler/kernels/generators.h"
#include "compiler/plan/forward_plan.h"
#include "compiler/sema/check.h"
#include "compiler/sema/print.h"
#include "compiler/support/error.h"
#include "compiler/support/parallel.h"
#include "compiler/support/stopwatch.h"
#include "generator_hash.h"

namespace sagejit {
namespace {

const Target& target_of(const CompileRequest& request) {
  if (!request.target) fail(ErrorKind::kArgument, "compile request without a target");
  return *request.target;
}

template <typename Print>
std::vector<KernelText> emit(const CompileRequest& request, Print print) {
  const ForwardPlan plan =
      make_forward_plan(request.variant, schedules_of(request).front(), *request.target);
  std::vector<KernelText> texts;
  for (const ir::Function& kernel : generate_kernels(plan)) {
    texts.push_back({kernel.name, print(kernel)});
  }
  return texts;
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

// Compiles kernels, all of a plan at the same time, and each once: the schedules that are tried
// differ in attention alone.
class KernelCompiler {
 public:
  KernelCompiler(const CompileRequest& request, const Toolchain& toolchain, CompileTimes& spent)
      : request_(request), toolchain_(toolchain), spent_(spent) {}

  using Code = std::shared_ptr<const KernelCode>;

  // In the order of `kernels`.
  std::vector<Code> compile(std::vector<ir::Function> kernels) {
    Stopwatch watch;
    std::vector<Code> code;
    std::vector<size_t> added;
    for (size_t i = 0; i < kernels.size(); ++i) {
      code.push_back(find(kernels[i]));
      if (!code[i]) added.push_back(i);
    }
    // Threads write elements of their own.
    parallel_for(added.size(), [&](size_t i) {
      code[added[i]] = std::make_shared<KernelCode>(
          toolchain_.compile(kernels[added[i]], *request_.target, request_.assemble));
    });
    for (const size_t i : added) {
      spent_.kernels.push_back({kernels[i].name, code[i]->backend_ms, code[i]->assemble_ms});
      compiled_.push_back({std::move(kernels[i]), code[i]});
    }
    spent_.toolchain_ms += watch.lap_ms();
    return code;
  }

 private:
  struct Compiled {
    ir::Function kernel;
    Code code;
  };

  // Null for a kernel that no schedule before had.
  Code find(const ir::Function& kernel) const {
    for (const Compiled& known : compiled_) {
      const bool same_name = known.kernel.name == kernel.name;
      if (same_name && ir::print(known.kernel) == ir::print(kernel)) return known.code;
    }
    return nullptr;
  }

  const CompileRequest& request_;
  const Toolchain& toolchain_;
  CompileTimes& spent_;
  std::vector<Compiled> compiled_;
};

// One schedule's kernels, compiled.
struct Attempt {
  Schedule schedule;
  Plan plan;
  std::vector<KernelCompiler::Code> code;  // by launch of the plan
  int spill_bytes = 0;
  bool is_clean = true;  // no spills, nothing serialized
};

std::vector<KernelResources> resources_of(const Attempt& attempt) {
  std::vector<KernelResources> all;
  for (const auto& kernel : attempt.code) {
    const auto& resources = kernel->machine_code.resources;
    all.insert(all.end(), resources.begin(), resources.end());
  }
  return all;
}

Attempt attempt(const CompileRequest& request, const Schedule& schedule, KernelCompiler& compiler,
                CompileTimes& spent) {
  Stopwatch watch;
  ForwardPlan plan = make_forward_plan(request.variant, schedule, *request.target);
  std::vector<ir::Function> kernels = generate_kernels(plan);
  take_smem_sizes(plan.plan, kernels);
  spent.generate_ms += watch.lap_ms();
  Attempt result{schedule, std::move(plan.plan), compiler.compile(std::move(kernels))};
  for (const auto& kernel : result.code) {
    for (const KernelResources& resources : kernel->machine_code.resources) {
      result.spill_bytes += resources.spill_store_bytes + resources.spill_load_bytes;
    }
    result.is_clean = result.is_clean && find_assembly_fault(kernel->machine_code).empty();
  }
  if (request.assemble) check_register_pool(schedule, resources_of(result));
  return result;
}

// The first clean attempt, otherwise the one that spills least: right, if not as fast as it might
// be.
Attempt best_attempt(const CompileRequest& request, const Toolchain& toolchain,
                     CompileTimes& spent) {
  KernelCompiler compiler(request, toolchain, spent);
  std::optional<Attempt> best;
  for (const Schedule& schedule : schedules_of(request)) {
    Attempt next = attempt(request, schedule, compiler, spent);
    if (next.is_clean) return next;
    if (!best || next.spill_bytes < best->spill_bytes) best = std::move(next);
  }
  return *std::move(best);
}

// What the toolchain made goes into the artifact, kernel by kernel.
void take_code(const Attempt& made, Artifact& artifact) {
  artifact.resources = resources_of(made);
  for (size_t i = 0; i < made.code.size(); ++i) {
    const KernelCode& code = *made.code[i];
    const std::string& log = code.machine_code.log;
    artifact.modules.push_back({made.plan.launches[i].kernel, code.ptx, code.machine_code.cubin});
    artifact.assembler_log += log;
    if (!log.empty() && log.back() != '\n') artifact.assembler_log += '\n';
  }
}

}  // namespace

std::vector<Schedule> schedules_of(const CompileRequest& request) {
  const Target& target = target_of(request);
  check_valid(request.variant);
  check_supported(request.variant, target);
  if (request.schedule) return {*request.schedule};
  return default_schedules(request.variant, target);
}

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
       "assembler {}; use another assembler or release of it, or a schedule with warps=4",
       start, found ? fmt::format("gave it {}", found) : "does not say how many it gave");
}

Artifact compile(const CompileRequest& request, const Toolchain& toolchain, CompileTimes* times) {
  CompileTimes spent;
  Attempt made = best_attempt(request, toolchain, spent);
  if (times) *times = spent;
  const Variant& variant = request.variant;
  Artifact artifact;
  artifact.variant_name = variant.name;
  artifact.variant_text = canonical_key_text(variant);
  artifact.schedule_text = print_schedule(made.schedule);
  artifact.target = request.target->name;
  artifact.backend = toolchain.backend();
  if (request.assemble) artifact.assembler = toolchain.assembler();
  artifact.tensors = {variant.head_dim, variant.value_head_dim, variant.input, variant.output,
                      variant.lse};
  take_code(made, artifact);
  artifact.plan = std::move(made.plan);
  return artifact;
}

std::vector<KernelText> emit_ir(const CompileRequest& request) {
  return emit(request, [](const ir::Function& kernel) { return ir::print(kernel); });
}

std::vector<KernelText> emit_source(const CompileRequest& request) {
  return emit(request, print_cuda);
}

std::string request_key_text(const CompileRequest& request) {
  return fmt::format("{}schedule: {}\ntarget: {}\ngenerator: {}\noutput: {}\n",
                     canonical_key_text(request.variant),
                     request.schedule ? print_schedule(*request.schedule) : "default",
                     target_of(request).name, kGeneratorHash,
                     request.assemble ? "ptx cubin" : "ptx");
}

std::string toolchain_key_text(const CompileRequest& request, const Toolchain& toolchain) {
  return toolchain.key_text(target_of(request), request.assemble);
}

}  // namespace sagejit
