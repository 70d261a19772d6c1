#include "compiler/plan/forward_plan.h"

#include <algorithm>

#include "compiler/sema/check.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

// Builds the launch list; a buffer is named before the launches that use it.
class PlanWriter {
 public:
  explicit PlanWriter(Plan& plan) : plan_(plan) {}

  void buffer(std::string name, const std::string& bytes, bool zeroed = false) {
    plan_.workspace.push_back({std::move(name), SizeExpr(bytes), zeroed});
  }

  PlanWriter& launch(std::string kernel, Phase phase, const std::array<std::string, 3>& grid,
                     int block_threads, int smem_bytes) {
    plan_.launches.push_back({std::move(kernel),
                              phase,
                              {SizeExpr(grid[0]), SizeExpr(grid[1]), SizeExpr(grid[2])},
                              block_threads,
                              smem_bytes,
                              {}});
    return *this;
  }

  PlanWriter& pointer(std::string name) {  // a tensor's address
    const SizeExpr value(name);
    return add({std::move(name), ParamType::kPointer, -1, value});
  }
  PlanWriter& from_buffer(std::string name) {
    const auto it =
        std::find_if(plan_.workspace.begin(), plan_.workspace.end(),
                     [&](const WorkspaceBuffer& buffer) { return buffer.name == name; });
    if (it == plan_.workspace.end()) fail(ErrorKind::kInternal, "plan has no buffer '{}'", name);
    const int index = static_cast<int>(it - plan_.workspace.begin());
    return add({std::move(name), ParamType::kPointer, index, {}});
  }
  PlanWriter& i64(std::string name, const std::string& value) {
    return add({std::move(name), ParamType::kI64, -1, SizeExpr(value)});
  }
  PlanWriter& i32(std::string name, const std::string& value) {
    return add({std::move(name), ParamType::kI32, -1, SizeExpr(value)});
  }
  // A tensor [b, heads, tokens, d]: its address and its strides in bytes.
  PlanWriter& tensor(const std::string& name, std::string_view token_axis, int element_bytes) {
    pointer(name);
    for (const std::string_view axis : {std::string_view("b"), std::string_view("h"), token_axis}) {
      i64(fmt::format("{}_stride_{}", name, axis),
          fmt::format("{}.stride_{} * {}", name, axis, element_bytes));
    }
    return *this;
  }

 private:
  PlanWriter& add(KernelParam param) {
    plan_.launches.back().params.push_back(std::move(param));
    return *this;
  }
  Plan& plan_;
};

QuantizePlan quantize_plan(const Variant& v, bool is_q) {
  QuantizePlan plan;
  plan.operand = is_q ? "q" : "k";
  plan.groups = is_q ? scale_groups_of_q(v.q) : scale_groups_of_k(v.k);
  plan.input = v.input;
  plan.head_dim = v.head_dim;
  plan.padded_head_dim = padded_head_dim(v);
  const int span = std::max(1, plan.groups.span);
  plan.tile_rows = span * std::max(1, kScaleRunTokens / span);
  plan.subtract_mean = !is_q && v.smooth_k == Smoothing::kMean;
  plan.lse_bias = is_q && v.lse && v.smooth_k == Smoothing::kMean;
  return plan;
}

struct OperandNames {
  std::string_view heads, tokens;
};
OperandNames names_of(const QuantizePlan& plan) {
  return plan.operand == "q" ? OperandNames{"hq", "m"} : OperandNames{"hkv", "n"};
}

void add_quantize_buffers(PlanWriter& out, const QuantizePlan& plan) {
  const auto [heads, tokens] = names_of(plan);
  const std::string& name = plan.operand;
  out.buffer(name + "_codes", fmt::format("b * {} * {} * {}", heads, tokens, plan.padded_head_dim));
  const std::string stride = scale_head_stride(plan.groups, tokens);
  out.buffer(name + "_scales",
             plan.groups.per_head ? fmt::format("b * {} * ({}) * 4", heads, stride) : "4");
  if (plan.groups.is_dynamic()) {
    out.buffer(name + "_amax", plan.groups.per_head ? fmt::format("b * {} * 4", heads) : "4", true);
  }
  if (plan.lse_bias) out.buffer("lse_bias", "b * hq * m * 4");
}

void add_quantize_launches(PlanWriter& out, const QuantizePlan& plan) {
  const auto [heads, tokens] = names_of(plan);
  const std::string& name = plan.operand;
  const std::array<std::string, 3> grid = {fmt::format("ceil_div({}, {})", tokens, plan.tile_rows),
                                           std::string(heads), "b"};
  // Bindings are captured by name: Clang 14 cannot otherwise.
  const auto common = [&, tokens = tokens, heads = heads](std::string_view kernel) {
    out.launch(fmt::format("{}_{}", kernel, name), Phase::kQuantize, grid, kPrepareThreads, 0)
        .tensor(name, tokens, bits_of(plan.input) / 8)
        .i32("tokens", std::string(tokens))
        .i32("heads", std::string(heads));
    if (plan.subtract_mean) {
      out.from_buffer("k_partial_sums")
          .i32("num_chunks",
               fmt::format("min({}, ceil_div(n, {}))", kMeanMaxChunks, kMeanMinChunkTokens));
    }
    if (plan.groups.is_dynamic()) out.from_buffer(name + "_amax");
  };
  if (plan.groups.is_dynamic()) common("amax");
  common("quantize");
  out.from_buffer(name + "_codes").from_buffer(name + "_scales");
  out.i64("scales_stride_h", scale_head_stride(plan.groups, tokens));
  if (plan.subtract_mean) out.from_buffer("k_mean");
  if (plan.lse_bias) out.i32("hkv", "hkv").from_buffer("k_mean").from_buffer("lse_bias");
}

void add_mean(PlanWriter& out, const Variant& v) {
  const std::string chunks =
      fmt::format("min({}, ceil_div(n, {}))", kMeanMaxChunks, kMeanMinChunkTokens);
  out.buffer("k_partial_sums", fmt::format("b * hkv * {} * {} * 4", chunks, v.head_dim));
  out.buffer("k_mean", fmt::format("b * hkv * {} * 4", v.head_dim));
  out.launch("k_mean", Phase::kQuantize, {chunks, "hkv", "b"}, kPrepareThreads, 0)
      .tensor("k", "n", bits_of(v.input) / 8)
      .i32("tokens", "n")
      .i32("heads", "hkv")
      .i32("chunk_tokens",
           fmt::format("max({}, ceil_div(n, {}))", kMeanMinChunkTokens, kMeanMaxChunks))
      .from_buffer("k_partial_sums");
}

void add_attention(PlanWriter& out, const ForwardPlan& plan) {
  const Variant& v = plan.variant;
  out.launch("attention", Phase::kAttend,
             {fmt::format("ceil_div(m, {})", plan.schedule.block_m), "hq", "b"},
             plan.schedule.num_warps * 32, attention_smem_bytes(v, plan.schedule))
      .from_buffer("q_codes")
      .from_buffer("q_scales")
      .i64("q_scales_stride_h", scale_head_stride(plan.q.groups, "m"))
      .from_buffer("k_codes")
      .from_buffer("k_scales")
      .i64("k_scales_stride_h", scale_head_stride(plan.k.groups, "n"))
      .tensor("v", "n", bits_of(v.input) / 8)
      .tensor("o", "m", bits_of(v.output) / 8)
      .i32("m", "m")
      .i32("n", "n")
      .i32("hq", "hq")
      .i32("hkv", "hkv");
  if (v.lse) {
    out.pointer("lse")
        .i64("lse_stride_b", "lse.stride_b * 4")
        .i64("lse_stride_h", "lse.stride_h * 4");
  }
  if (plan.q.lse_bias) out.from_buffer("lse_bias");
}

}  // namespace

const KernelLaunch* ForwardPlan::find_launch(std::string_view kernel) const {
  for (const KernelLaunch& launch : plan.launches) {
    if (launch.kernel == kernel) return &launch;
  }
  return nullptr;
}

ForwardPlan make_forward_plan(const Variant& variant, const Schedule& schedule,
                              const Target& target) {
  check_valid(variant);
  check_supported(variant, target);
  check_schedule(variant, schedule, target);
  ForwardPlan result{
      variant, schedule, &target, quantize_plan(variant, true), quantize_plan(variant, false), {}};
  PlanWriter out(result.plan);
  add_quantize_buffers(out, result.q);
  add_quantize_buffers(out, result.k);
  if (result.k.subtract_mean) add_mean(out, variant);
  add_quantize_launches(out, result.k);
  add_quantize_launches(out, result.q);
  add_attention(out, result);
  return result;
}

}  // namespace sagejit
