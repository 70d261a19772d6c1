#include "compiler/kernels/generators.h"

namespace sagejit {

ir::Function generate_attention(const ForwardPlan& plan) {
  return plan.schedule.wgmma ? generate_attention_wgmma(plan) : generate_attention_mma_sync(plan);
}

std::vector<ir::Function> generate_kernels(const ForwardPlan& plan) {
  std::vector<ir::Function> kernels;
  for (const KernelLaunch& launch : plan.plan.launches) {
    if (launch.kernel == "k_mean") kernels.push_back(generate_k_mean(plan));
    for (const QuantizePlan* operand : {&plan.q, &plan.k}) {
      if (launch.kernel == "amax_" + operand->operand)
        kernels.push_back(generate_amax(plan, *operand));
      if (launch.kernel == "quantize_" + operand->operand) {
        kernels.push_back(generate_quantize(plan, *operand));
      }
    }
    if (launch.kernel == "attention") kernels.push_back(generate_attention(plan));
  }
  return kernels;
}

}  // namespace sagejit
