#include "compiler/plan/forward_plan.h"

#include <algorithm>
#include <bit>

#include "compiler/layout/core_matrix.h"
#include "compiler/sema/check.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

// K and V that are read again and again by the blocks of an H100 at one time: well below its 50 MB
// of L2 cache.
constexpr int kResidentBytes = 16 << 20;

// Query tiles that the wgmma kernel's blocks have taken, and blocks that are done: i32 each.
const std::string kTileCounters = "tile_counters";

// Builds the launch list; a buffer is named before the launches that use it.
class PlanWriter {
 public:
  PlanWriter(Plan& plan, const Target& target)
      : plan_(plan), waits_for_previous_(target.sm >= kFirstSmWithGridControl) {}

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
                              waits_for_previous_,
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
  static constexpr int kFirstSmWithGridControl = 90;
  Plan& plan_;
  bool waits_for_previous_;
};

QuantizePlan quantize_plan(const Variant& v, const Schedule& schedule, bool is_q) {
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
  plan.core_matrices = schedule.wgmma;
  plan.clears_counters = schedule.wgmma && is_q;
  if (plan.core_matrices) plan.token_multiple = is_q ? schedule.block_m : schedule.block_n;
  return plan;
}

// Tiles keep a thread busy with four loads of 16 bytes or more, whatever the number of channels.
ValuePlan value_plan(const Variant& v, const Schedule& schedule) {
  ValuePlan plan;
  plan.is_prepared = schedule.wgmma;
  if (!plan.is_prepared) return plan;
  plan.is_scaled = bits_of(v.v.type) == 8;
  plan.input = v.input;
  plan.type = v.v.type;
  plan.value_head_dim = v.value_head_dim;
  plan.columns = padded_value_head_dim(v);
  plan.range = static_cast<float>(v.v.range == 0 ? largest_v_range(v.v.type) : v.v.range);
  plan.token_multiple = schedule.block_n;
  constexpr unsigned kTileTokens = 64, kTilePieces = 16, kAmaxLoads = 8;
  const auto pieces = static_cast<unsigned>(plan.columns) / 8;  // of 8 elements, a thread's load
  plan.tile_tokens =
      static_cast<int>(kTileTokens * std::bit_floor(std::max(1u, kTilePieces / pieces)));
  plan.amax_tokens = static_cast<int>(kAmaxLoads * kPrepareThreads / std::bit_ceil(pieces));
  return plan;
}

// SizeExpr text of a number of tokens, padded.
std::string padded_tokens(std::string_view tokens, int multiple) {
  return multiple == 1 ? std::string(tokens)
                       : fmt::format("ceil_div({}, {}) * {}", tokens, multiple, multiple);
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
  out.buffer(name + "_codes",
             fmt::format("b * {} * {} * {}", heads, padded_tokens(tokens, plan.token_multiple),
                         plan.padded_head_dim));
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
  const std::string padded = padded_tokens(tokens, plan.token_multiple);
  // Bindings are captured by name: Clang 14 cannot otherwise.
  const auto common = [&, tokens = tokens, heads = heads](std::string_view kernel,
                                                          std::string_view tokens_covered) {
    out.launch(fmt::format("{}_{}", kernel, name), Phase::kQuantize,
               {fmt::format("ceil_div({}, {})", tokens_covered, plan.tile_rows), std::string(heads),
                "b"},
               kPrepareThreads, 0)
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
  if (plan.groups.is_dynamic()) common("amax", tokens);
  common("quantize", padded);
  out.from_buffer(name + "_codes").from_buffer(name + "_scales");
  if (plan.core_matrices) out.i32("padded_tokens", padded);
  out.i64("scales_stride_h", scale_head_stride(plan.groups, tokens));
  if (plan.subtract_mean) out.from_buffer("k_mean");
  if (plan.lse_bias) out.i32("hkv", "hkv").from_buffer("k_mean").from_buffer("lse_bias");
  if (plan.clears_counters) out.from_buffer(kTileCounters);
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

void add_value_buffers(PlanWriter& out, const ValuePlan& v) {
  out.buffer("v_codes", fmt::format("b * hkv * {} * {}", padded_tokens("n", v.token_multiple),
                                    v.columns * bits_of(v.type) / 8));
  if (!v.is_scaled) return;
  const std::string channels = fmt::format("b * hkv * {} * 4", v.columns);
  out.buffer("v_scales", channels);
  out.buffer("v_amax", channels, true);
}

void add_value_launches(PlanWriter& out, const ValuePlan& v) {
  const std::string padded = padded_tokens("n", v.token_multiple);
  const auto launch = [&](std::string kernel, const std::string& blocks) {
    out.launch(std::move(kernel), Phase::kQuantize, {blocks, "hkv", "b"}, kPrepareThreads, 0)
        .tensor("v", "n", bits_of(v.input) / 8)
        .i32("tokens", "n")
        .i32("heads", "hkv");
  };
  const std::string tiles = fmt::format("ceil_div({}, {})", padded, v.tile_tokens);
  if (!v.is_scaled) {
    launch("convert_v", tiles);
    out.from_buffer("v_codes").i32("padded_tokens", padded);
    return;
  }
  launch("amax_v", fmt::format("ceil_div(n, {})", v.amax_tokens));
  out.from_buffer("v_amax");
  // At least one block: without keys the scales must be numbers all the same.
  launch("quantize_v", fmt::format("max(1, {})", tiles));
  out.from_buffer("v_amax")
      .from_buffer("v_codes")
      .i32("padded_tokens", padded)
      .from_buffer("v_scales");
}

// The mma.sync kernel has a block for every tile of queries of every head; the wgmma kernel's
// blocks stay and take tiles in turn, and have a producer warpgroup besides the consumers.
void launch_attention(PlanWriter& out, const ForwardPlan& plan) {
  const Schedule& schedule = plan.schedule;
  const std::string tiles = fmt::format("ceil_div(m, {})", schedule.block_m);
  if (schedule.wgmma) {
    out.launch(
        "attention", Phase::kAttend, {fmt::format("min(num_sms, b * hq * {})", tiles), "1", "1"},
        schedule.num_warps * 32 + kWarpgroupThreads, attention_smem_bytes(plan.variant, schedule));
  } else {
    out.launch("attention", Phase::kAttend, {tiles, "hq", "b"}, schedule.num_warps * 32,
               attention_smem_bytes(plan.variant, schedule));
  }
}

void add_attention(PlanWriter& out, const ForwardPlan& plan) {
  const Variant& v = plan.variant;
  launch_attention(out, plan);
  out.from_buffer("q_codes")
      .from_buffer("q_scales")
      .i64("q_scales_stride_h", scale_head_stride(plan.q.groups, "m"))
      .from_buffer("k_codes")
      .from_buffer("k_scales")
      .i64("k_scales_stride_h", scale_head_stride(plan.k.groups, "n"));
  if (plan.v.is_prepared) {
    out.from_buffer("v_codes");
    if (plan.v.is_scaled) out.from_buffer("v_scales");
  } else {
    out.tensor("v", "n", bits_of(v.input) / 8);
  }
  out.tensor("o", "m", bits_of(v.output) / 8)
      .i32("m", "m")
      .i32("n", "n")
      .i32("hq", "hq")
      .i32("hkv", "hkv");
  if (plan.schedule.wgmma) {
    // Heads of one group are computed at the same time; their K and V share the L2 cache.
    const int token_bytes = plan.k.padded_head_dim + plan.v.columns * bits_of(plan.v.type) / 8;
    out.from_buffer(kTileCounters)
        .i32("b", "b")
        .i32("group_heads", fmt::format("max(1, min(b * hq, div({}, max(1, n * {}))))",
                                        kResidentBytes, token_bytes));
  }
  if (v.lse) {
    out.pointer("lse")
        .i64("lse_stride_b", "lse.stride_b * 4")
        .i64("lse_stride_h", "lse.stride_h * 4");
  }
  if (plan.q.lse_bias) out.from_buffer("lse_bias");
}

// What a variant needs of the kernel family that the schedule chose.
void check_family(const Variant& v, const Schedule& schedule) {
  const auto require = [&](bool condition, std::string_view limit) {
    if (!condition) {
      fail(ErrorKind::kUnsupported, "schedule '{}' is not possible: {}", print_schedule(schedule),
           limit);
    }
  };
  if (schedule.wgmma) {
    require(v.row_sum == RowSum::kExact, "with wgmma, row_sum must be exact");
  } else {
    require(v.v.type == v.input, "without wgmma, V must have the type of the input");
    require(v.rescale_threshold == 0, "without wgmma, rescale_threshold must be 0");
  }
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
  check_family(variant, schedule);
  ForwardPlan result{variant,
                     schedule,
                     &target,
                     quantize_plan(variant, schedule, true),
                     quantize_plan(variant, schedule, false),
                     value_plan(variant, schedule),
                     {}};
  PlanWriter out(result.plan, target);
  if (schedule.wgmma) out.buffer(kTileCounters, "8");
  add_quantize_buffers(out, result.q);
  add_quantize_buffers(out, result.k);
  if (result.v.is_prepared) add_value_buffers(out, result.v);
  if (result.k.subtract_mean) add_mean(out, variant);
  add_quantize_launches(out, result.k);
  if (result.v.is_prepared) add_value_launches(out, result.v);
  add_quantize_launches(out, result.q);
  add_attention(out, result);
  return result;
}

}  // namespace sagejit
