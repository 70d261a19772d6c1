#include "tests/emulated/prepared.h"

#include "compiler/kernels/generators.h"
#include "compiler/plan/forward_plan.h"
#include "tests/support/toolchain_choice.h"

namespace sagejit::test {

std::shared_ptr<const Kernel> preparing_kernel(const std::shared_ptr<Device>& device,
                                               const Variant& variant, std::string_view schedule) {
  static LazyToolchain toolchain(toolchain_options());
  const DeviceInfo& info = device->info();
  ForwardPlan plan = make_forward_plan(variant, parse_schedule(schedule), *info.target);
  Artifact artifact;
  for (KernelLaunch& launch : plan.plan.launches) {
    if (launch.phase != Phase::kQuantize) continue;
    const ir::Function kernel = generate_kernel(plan, launch);
    artifact.plan.launches.push_back(launch);
    artifact.plan.launches.back().dynamic_smem_bytes = kernel.smem_bytes();
    KernelCode code =
        toolchain.get(info.runs_machine_code).compile(kernel, *info.target, info.runs_machine_code);
    artifact.modules.push_back(
        {launch.kernel, std::move(code.ptx), std::move(code.machine_code.cubin)});
  }
  artifact.plan.workspace = plan.plan.workspace;
  artifact.tensors = {variant.head_dim, variant.value_head_dim, variant.input, variant.output,
                      variant.lse};
  artifact.target = info.target->name;
  return std::make_shared<const Kernel>(device, std::move(artifact));
}

}  // namespace sagejit::test
