// Every kernel that the generators make, over the language's supported values: verified, in the
// plan's order and ABI, and equal to what its text reads back as.
#include <fmt/format.h>

#include "compiler/kernels/generators.h"
#include "compiler/sema/check.h"
#include "compiler/sema/resolve.h"
#include "tests/support/catch.h"

namespace sagejit {
namespace {

// A change of each supported kind to a plain variant; the combinations that meet in one kernel are
// named.
const char* const kEntries[] = {
    "head_dim = 64",
    "head_dim = 16",
    "head_dim = 72; value_head_dim = 40",
    "head_dim = 128; mask = causal(top_left)",
    "head_dim = 256; pv_accumulator = f16 + f32 every 16",
    "head_dim = 64; mask = causal(bottom_right); smooth_k = mean",
    "head_dim = 64; mask = window(100, 3); lse = on",
    "head_dim = 64; lse = on; smooth_k = mean; q = int8 per thread; k = int8 per thread",
    "head_dim = 64; q = int8 per token; k = int8 per token; row_sum = quantized",
    "head_dim = 64; q = int8 per tensor; k = int8 per head; smooth_k = mean",
    "head_dim = 64; q = int8 per warp; k = int8 per block(16)",
    "head_dim = 64; q = int8 per block(48); k = int8 per thread(48)",
    "head_dim = 64; input = bf16; pv_accumulator = f32 + f32 every 32; row_sum = quantized",
    "head_dim = 64; output = f32; pv_accumulator = f16",
    "head_dim = 72; q = int4 per thread; k = int4 per thread; smooth_k = mean; lse = on",
    "head_dim = 16; q = int4 per head; k = int4 per tensor",
    "head_dim = 64; q = int4 per thread; k = int4 per token; smooth_k = mean; smooth_q = mean",
    "head_dim = 128; q = int8 per head; k = int8 per head; smooth_q = mean per block(64)",
    "head_dim = 16; q = int8 per head; hadamard = on; smooth_k = mean",
    "head_dim = 96; pv_accumulator = f16 + f32 every 128; scale = 0.5",
};

Variant variant(std::string_view entries) {
  return resolve_variants("v.attn", fmt::format("v {{ {} }}", entries)).at(0);
}

void check_abi(const ir::Function& function, const KernelLaunch& launch) {
  CHECK(function.name == launch.kernel);
  CHECK(function.block_threads == launch.block_threads);
  REQUIRE(function.params.size() == launch.params.size());
  for (size_t i = 0; i < launch.params.size(); ++i) {
    CHECK(function.params[i].name == launch.params[i].name);
    const bool is_i32 = launch.params[i].type == ParamType::kI32;
    CHECK(function.params[i].type == (is_i32 ? ir::Type::kI32 : ir::Type::kI64));
  }
}

void check_kernel(const ir::Function& kernel, const KernelLaunch& launch, int sm) {
  INFO(kernel.name);
  check_abi(kernel, launch);
  const std::string text = print(kernel);
  const ir::Function read = ir::parse(text);
  CHECK(print(read) == text);
  CHECK(read.num_registers == kernel.num_registers);
  CHECK(read.smem_bytes() == kernel.smem_bytes());
  CHECK_NOTHROW(verify(read, sm));
}

}  // namespace

TEST_CASE("generated kernels read back from their text and keep the plan's ABI") {
  for (const char* entries : kEntries) {
    const Variant v = variant(entries);
    for (const char* name : {"sm_80", "sm_120"}) {
      INFO(entries << ", " << name);
      const Target& target = find_target(name);
      const ForwardPlan plan = make_forward_plan(v, default_schedule(v, target), target);
      const std::vector<ir::Function> kernels = generate_kernels(plan);
      REQUIRE(kernels.size() == plan.plan.launches.size());
      for (size_t i = 0; i < kernels.size(); ++i) {
        check_kernel(kernels[i], plan.plan.launches[i], target.sm);
      }
    }
  }
}

TEST_CASE("so do the kernels that prepare the operands of wgmma") {
  const Target& target = find_target("sm_90a");
  const Schedule schedule =
      parse_schedule("wgmma=1 q_in_registers=0 block_m=128 block_n=64 warps=8 stages=2");
  for (const int d : {16, 40, 72, 128, 256}) {
    for (const char* value : {"input = f16", "input = bf16; v = f16", "input = bf16; v = e4m3",
                              "q = int4; v = e4m3; smooth_q = mean"}) {
      INFO(d << ", " << value);
      const Variant v = variant(fmt::format("head_dim = {}; smooth_k = mean; {}", d, value));
      const ForwardPlan plan = make_forward_plan(v, schedule, target);
      for (const KernelLaunch& launch : plan.plan.launches) {
        if (launch.phase != Phase::kQuantize) continue;
        check_kernel(generate_kernel(plan, launch), launch, target.sm);
      }
    }
  }
}

TEST_CASE("the attention kernel uses the shared memory that its launch asks for") {
  for (const char* entries : kEntries) {
    INFO(entries);
    const Variant v = variant(entries);
    const Target& target = find_target("sm_80");
    const ForwardPlan plan = make_forward_plan(v, default_schedule(v, target), target);
    const ir::Function attention = generate_attention_mma_sync(plan);
    CHECK(attention.smem_bytes() == plan.find_launch("attention")->dynamic_smem_bytes);
    CHECK(attention.min_blocks_per_sm == plan.schedule.blocks_per_sm);
  }
}

TEST_CASE("the same request gives the same text") {
  const Variant v = variant(kEntries[7]);
  const Target& target = find_target("sm_90a");
  const ForwardPlan plan = make_forward_plan(v, default_schedule(v, target), target);
  for (const KernelLaunch& launch : plan.plan.launches) {
    CHECK(print(generate_kernel(plan, launch)) == print(generate_kernel(plan, launch)));
  }
}

}  // namespace sagejit
