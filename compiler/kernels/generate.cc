#include "compiler/kernels/generators.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

struct Generator {
  std::string_view kernel;
  ir::Function (*generate)(const ForwardPlan&);
};

constexpr Generator kGenerators[] = {
    {"statistics", generate_statistics},
    {"fold", generate_fold},
    {"amax_q", [](const ForwardPlan& plan) { return generate_amax(plan, plan.q); }},
    {"amax_k", [](const ForwardPlan& plan) { return generate_amax(plan, plan.k); }},
    {"quantize", generate_quantize},
    {"prepare", generate_prepare},
    {"attention",
     [](const ForwardPlan& plan) {
       return plan.schedule.wgmma ? generate_attention_wgmma(plan)
                                  : generate_attention_mma_sync(plan);
     }},
};

}  // namespace

ir::Function generate_kernel(const ForwardPlan& plan, const KernelLaunch& launch) {
  for (const Generator& generator : kGenerators) {
    if (generator.kernel == launch.kernel) return generator.generate(plan);
  }
  fail(ErrorKind::kInternal, "no generator makes kernel '{}'", launch.kernel);
}

std::vector<ir::Function> generate_kernels(const ForwardPlan& plan) {
  std::vector<ir::Function> kernels;
  for (const KernelLaunch& launch : plan.plan.launches) {
    kernels.push_back(generate_kernel(plan, launch));
  }
  return kernels;
}

}  // namespace sagejit
