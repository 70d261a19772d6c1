#include "compiler/plan/forward_plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <numbers>

#include "compiler/layout/core_matrix.h"
#include "compiler/sema/check.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

// K and V that are read again and again by the blocks of an H100 at one time: well below its 50 MB
// of L2 cache.
constexpr int kResidentBytes = 16 << 20;

// Items that a team of `prepare` has taken and not done, and rounds that a head's statistics take
// besides: what is less makes tiles wait for them, and more delays the first heads.
constexpr int kItemsInWork = 2, kLagRounds = 3;

// Query tiles that the wgmma kernel's blocks have taken, and blocks that are done: i32 each.
const std::string kTileCounters = "tile_counters";

// Items of `prepare` that have been taken, then the statistics and the tiles that are done of each
// (batch, K head): i32 each.
const std::string kPrepareCounters = "prepare_counters";

// f32 [b, hkv].
const std::string kLargestKeyScale = "k_largest_scale";

constexpr int kElementBytes = 2;  // of Q, K and V

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
  // For kernels that divide by it (divisor.h).
  PlanWriter& divisor(const std::string& name, const std::string& value) {
    return i32(name, value).reciprocal(name, value);
  }
  PlanWriter& reciprocal(const std::string& name, const std::string& value) {
    return i32(name + "_reciprocal", fmt::format("div({}, max(1, {}))", kReciprocalOf, value));
  }
  // From one row of a thread to the next.
  PlanWriter& pass_stride(const std::string& name, std::string_view token_axis, int columns) {
    return i64(name + "_pass_stride", fmt::format("{}.stride_{} * {}", name, token_axis,
                                                  pass_rows(columns) * kElementBytes));
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

int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

// That a thread needs for its part of a tile.
int pieces_of(const QuantizePlan& plan) {
  return ceil_div(plan.tile_rows * lanes_of_row(plan.padded_head_dim), kPrepareThreads);
}
int pieces_of(const ValuePlan& plan) {
  if (!plan.is_prepared) return 0;
  // Tokens that make a word of codes of each of their channels, or a group with a scale of its own.
  const int together = plan.group_scales ? kGroupElements : plan.is_scaled ? 4 : 1;
  const int groups = plan.tile_tokens * plan.columns * kElementBytes / kPieceBytes / together;
  return ceil_div(groups, kPrepareThreads) * together;
}

// Symmetric codes (SageAttention 2, arXiv 2411.10958): int8 without -128, int4 without -8.
float largest_code(DType type) {
  return static_cast<float>(largest_p_range(type));
}

// Whether a launch packs query heads (packed_heads.h), 1 or 0. That pays where one head's queries
// leave a quarter of a tile or more empty, and where the heads' tiles are more than run at a time:
// fewer tiles than multiprocessors take no less time. The last condition is that of its division.
std::string packs_heads(const Schedule& schedule) {
  return fmt::format(
      "min(1, div({}, max(1, m))) * min(1, div(b * hq, num_sms * {} + 1)) * "
      "min(1, div(div({}, max(1, m) * max(1, m)), max(1, div(hq, hkv))))",
      schedule.block_m * 3 / 4, schedule.blocks_per_sm, kReciprocalOf);
}

// Of a pack: its heads, and its rows.
std::string packed_heads(const Schedule& schedule) {
  if (!schedule.pack_heads) return "1";
  return fmt::format("(1 + {} * (div(hq, hkv) - 1))", packs_heads(schedule));
}
std::string pack_rows(const Schedule& schedule) {
  return schedule.pack_heads ? fmt::format("(m * {})", packed_heads(schedule)) : "m";
}
std::string row_tiles(const Schedule& schedule) {  // of a pack
  return fmt::format("ceil_div({}, {})", pack_rows(schedule), schedule.block_m);
}
// Of a batch.
std::string num_packs(const Schedule& schedule) {
  return schedule.pack_heads ? fmt::format("div(hq, {})", packed_heads(schedule)) : "hq";
}

QuantizePlan quantize_plan(const Variant& v, const Schedule& schedule, bool is_q) {
  QuantizePlan plan;
  plan.operand = is_q ? "q" : "k";
  plan.group_scales = v.q.type == DType::kE2M1;
  if (!plan.group_scales) plan.groups = is_q ? scale_groups_of_q(v.q) : scale_groups_of_k(v.k);
  plan.input = v.input;
  plan.head_dim = v.head_dim;
  plan.padded_head_dim = padded_head_dim(v, schedule);
  plan.type = (is_q ? v.q : v.k).type;
  plan.code_bits = qk_code_bits(v, schedule);
  plan.code_max = largest_code(plan.type);
  // Eight loads a thread.
  const int span = std::max(1, plan.groups.span);
  const int rows = plan.padded_head_dim <= 64 ? 256 : plan.padded_head_dim <= 128 ? 128 : 64;
  plan.tile_rows = span * std::max(1, rows / span);
  plan.subtract_mean = (is_q ? v.smooth_q : v.smooth_k) == Smoothing::kMean;
  plan.mean_span = is_q ? v.smooth_q_span : 0;
  plan.finds_largest_scale = !is_q && needs_largest_key_scale(v, schedule);
  plan.rotates = v.hadamard;
  plan.lse_bias = is_q && v.lse && v.smooth_k == Smoothing::kMean;
  plan.core_matrices = schedule.wgmma;
  if (is_q && plan.core_matrices && schedule.pack_heads) {
    plan.packed_heads = packed_heads(schedule);
  }
  if (plan.core_matrices) plan.token_multiple = is_q ? schedule.block_m : schedule.block_n;
  if (plan.group_scales && !is_q) {  // whole tiles, with their scales
    plan.order = key_order(v.p.type);
    plan.token_multiple = schedule.block_n;
  }
  return plan;
}

MeanScoresPlan mean_scores_plan(const Variant& v, const Schedule& schedule) {
  return {.exists = v.smooth_q == Smoothing::kMean,
          .span = v.smooth_q_span,
          .token_multiple = schedule.wgmma ? schedule.block_n : kScaleRunTokens,
          .input = v.input,
          .head_dim = v.head_dim,
          .subtract_mean = v.smooth_k == Smoothing::kMean,
          .scale_log2 = static_cast<float>(score_scale(v) * std::numbers::log2e)};
}

// Groups of 16 tokens and 8 channels of a product's 64 tokens, one for each thread: eight pieces of
// a row side by side, for the four groups of a word of scales.
int group_items(const ValuePlan& plan) {
  return kScaleWordBytes * ceil_div(plan.columns / 8, 8) * 8;
}

// Tiles keep a thread busy with eight loads of 16 bytes, or nearly, whatever the number of
// channels.
ValuePlan value_plan(const Variant& v, const Schedule& schedule) {
  ValuePlan plan;
  plan.is_scaled = bits_of(v.v.type) == 8;
  plan.group_scales = v.v.type == DType::kE2M1;
  plan.is_prepared = schedule.wgmma || plan.has_scales();
  if (!plan.is_prepared) return plan;
  plan.subtract_mean = v.v.smoothing == Smoothing::kMean;
  plan.input = v.input;
  plan.type = v.v.type;
  plan.value_head_dim = v.value_head_dim;
  plan.columns = padded_value_head_dim(v);
  plan.range = static_cast<float>(v.v.range == 0 ? largest_v_range(v.v.type) : v.v.range);
  plan.token_multiple = schedule.block_n;
  constexpr unsigned kTileTokens = 64, kTilePieces = 32;
  const auto pieces = static_cast<unsigned>(plan.columns) / 8;  // of 8 elements, a thread's load
  if (plan.group_scales) {
    plan.scale_columns = value_scale_columns(v);
    plan.tile_tokens = kScaleWordElements * std::max(1, kPrepareThreads / group_items(plan));
    return plan;
  }
  plan.tile_tokens =
      static_cast<int>(kTileTokens * std::bit_floor(std::max(1u, kTilePieces / pieces)));
  return plan;
}

// As many as were found to do without spilling, and shared memory: a thread holds its part of a
// tile while the maxima are found; rows that end within a row of threads, a rotation, and smoothed
// Q whose LSE is asked for, take more. The assembler of sm_120 takes more registers for the same,
// and so does that of sm_90 where every token has a scale and V is scaled too; and, made by LLVM,
// that of smoothed Q in short rows.
int prepare_teams(const ForwardPlan& plan) {
  const int loads = plan.num_pieces();
  const int teams = loads <= 8 ? 3 : loads <= 16 ? 2 : 1;
  const auto is_power_of_two = [](int columns) {
    return std::has_single_bit(static_cast<unsigned>(columns));
  };
  const bool has_ends = !is_power_of_two(plan.q.head_dim) ||
                        (plan.v.is_prepared && !is_power_of_two(plan.v.value_head_dim));
  const bool has_token_scales =
      plan.v.is_scaled && (plan.q.groups.span == 1 || plan.k.groups.span == 1);
  const bool has_short_means = plan.q.subtract_mean && plan.q.head_dim <= 64;
  const bool takes_more = has_ends || plan.q.rotates || (plan.q.subtract_mean && plan.q.lse_bias) ||
                          plan.target->sm >= 120 ||
                          (plan.target->sm >= 90 && (has_token_scales || has_short_means));
  constexpr int kOther = 4096;  // maxima of groups, items
  const int bytes = plan.scratch_bytes() + kOther;
  return std::max(1, std::min(takes_more ? teams - 1 : teams, plan.target->smem_per_block / bytes));
}

// SizeExpr text of a number of tokens, padded.
std::string padded_tokens(std::string_view tokens, int multiple) {
  return multiple == 1 ? std::string(tokens)
                       : fmt::format("ceil_div({}, {}) * {}", tokens, multiple, multiple);
}

// Chunks of the tokens of K and V, one at least. Their number and size depend on n alone, and with
// them the order of K's sums.
const std::string kNumChunks =
    fmt::format("max(1, min({}, ceil_div(n, {})))", kMaxChunks, kMinChunkTokens);
const std::string kChunkTokens =
    fmt::format("max({}, ceil_div(n, {}))", kMinChunkTokens, kMaxChunks);

// Together: one call clears them.
void add_zeroed_buffers(PlanWriter& out, const ForwardPlan& plan) {
  if (plan.schedule.wgmma) out.buffer(kTileCounters, "8", plan.prepares_at_once());
  if (plan.prepares_at_once()) out.buffer(kPrepareCounters, "(1 + 2 * b * hkv) * 4", true);
  if (plan.k.finds_largest_scale) out.buffer(kLargestKeyScale, "b * hkv * 4", true);
  for (const QuantizePlan* operand : {&plan.q, &plan.k}) {
    if (!operand->finds_amax_first()) continue;
    out.buffer(operand->operand + "_amax",
               operand->groups.per_head ? fmt::format("b * {} * 4", names_of(*operand).heads) : "4",
               true);
  }
}

// Blocks of queries that share a mean.
std::string num_blocks(int span) {
  return fmt::format("ceil_div(m, {})", span);
}

void add_mean_buffers(PlanWriter& out, const QuantizePlan& plan) {
  if (plan.operand == "q") {
    out.buffer("q_mean",
               fmt::format("b * hq * {} * {} * 4", num_blocks(plan.mean_span), plan.head_dim));
    return;
  }
  const QuantizePlan& k = plan;
  out.buffer("k_partial_sums", fmt::format("b * hkv * {} * {} * 4", kNumChunks, k.head_dim));
  out.buffer("k_mean", fmt::format("b * hkv * {} * 4", k.head_dim));
}

// Heads whose codes are padded together, and the tokens of those.
std::string code_packs(const QuantizePlan& plan) {
  const std::string heads(names_of(plan).heads);
  return plan.packed_heads.empty() ? heads : fmt::format("div({}, {})", heads, plan.packed_heads);
}
std::string code_tokens(const QuantizePlan& plan) {
  const std::string tokens(names_of(plan).tokens);
  return padded_tokens(
      plan.packed_heads.empty() ? tokens : fmt::format("({} * {})", tokens, plan.packed_heads),
      plan.token_multiple);
}

// From head to head: in scales of 4 bytes, or in bytes of group scales.
std::string scales_stride(const QuantizePlan& plan) {
  if (!plan.group_scales) return scale_head_stride(plan.groups, names_of(plan).tokens);
  return fmt::format("{} * {}", code_tokens(plan), plan.scale_row_bytes());
}

void add_quantize_buffers(PlanWriter& out, const QuantizePlan& plan) {
  const auto [heads, tokens] = names_of(plan);
  const std::string& name = plan.operand;
  out.buffer(name + "_codes", fmt::format("b * {} * {} * {}", code_packs(plan), code_tokens(plan),
                                          plan.row_bytes()));
  const std::string stride = scales_stride(plan);
  out.buffer(name + "_scales", plan.group_scales ? fmt::format("b * {} * {}", heads, stride)
                               : plan.groups.per_head
                                   ? fmt::format("b * {} * ({}) * 4", heads, stride)
                                   : "4");
  if (plan.subtract_mean) add_mean_buffers(out, plan);
  if (plan.lse_bias) out.buffer("lse_bias", "b * hq * m * 4");
}

std::string mean_scores_tokens(const MeanScoresPlan& plan) {
  return padded_tokens("n", plan.token_multiple);
}

void add_mean_scores_buffer(PlanWriter& out, const MeanScoresPlan& plan) {
  out.buffer("mean_scores",
             fmt::format("b * hq * {} * {} * 4", num_blocks(plan.span), mean_scores_tokens(plan)));
}

// What statistics find of V.
std::vector<std::string> partials_of(const ValuePlan& v) {
  if (!v.subtract_mean) return {"v_partial_amax"};
  return {"v_partial_sums", "v_partial_highest", "v_partial_lowest"};
}

void add_value_buffers(PlanWriter& out, const ValuePlan& v) {
  const std::string tokens = padded_tokens("n", v.token_multiple);
  out.buffer("v_codes", fmt::format("b * hkv * {} * {}", tokens, v.token_bytes()));
  if (v.group_scales) {
    out.buffer("v_scales", fmt::format("b * hkv * {} * {}", tokens, v.scale_token_bytes()));
  }
  if (!v.is_scaled) return;
  out.buffer("v_scales", fmt::format("b * hkv * {} * 4", v.scales()));
  out.buffer("v_inverses", fmt::format("b * hkv * {} * 4", v.columns));
  for (const std::string& partial : partials_of(v)) {
    out.buffer(partial, fmt::format("b * hkv * {} * {} * 4", kNumChunks, v.columns));
  }
}

// Of a K head: chunks of K, then chunks of V, then blocks of the Q that attends to it.
std::string num_statistics(const ForwardPlan& plan) {
  std::vector<std::string> parts;
  if (plan.k.subtract_mean) parts.push_back(kNumChunks);
  if (plan.v.is_scaled) parts.push_back(kNumChunks);
  if (plan.q.subtract_mean) parts.push_back("div(hq, hkv) * " + num_blocks(plan.q.mean_span));
  return parts.size() == 1 ? parts[0] : fmt::format("({})", fmt::join(parts, " + "));
}

// The statistics of chunks, and what they become.
void pass_partials(PlanWriter& out, const ForwardPlan& plan) {
  if (plan.k.subtract_mean) out.from_buffer("k_partial_sums");
  if (!plan.v.is_scaled) return;
  for (const std::string& partial : partials_of(plan.v)) out.from_buffer(partial);
}
// What statistics find of Q is final.
void pass_query_means(PlanWriter& out, const ForwardPlan& plan) {
  if (!plan.q.subtract_mean) return;
  out.from_buffer("q_mean").i32("q_blocks", num_blocks(plan.q.mean_span));
}
void pass_folded(PlanWriter& out, const ForwardPlan& plan) {
  if (plan.k.subtract_mean) out.from_buffer("k_mean");
  if (plan.v.is_scaled) out.from_buffer("v_scales").from_buffer("v_inverses");
}

void launch_statistics(PlanWriter& out, const ForwardPlan& plan) {
  out.launch("statistics", Phase::kQuantize, {num_statistics(plan), "hkv", "b"}, kPrepareThreads, 0)
      .i32("n", "n")
      .i32("hkv", "hkv")
      .i32("num_chunks", kNumChunks)
      .i32("chunk_tokens", kChunkTokens);
  if (plan.q.subtract_mean) {
    out.tensor("q", "m", kElementBytes)
        .pass_stride("q", "m", plan.q.padded_head_dim)
        .i32("m", "m")
        .i32("group_heads", "div(hq, hkv)");
  }
  if (plan.k.subtract_mean) {
    out.tensor("k", "n", kElementBytes).pass_stride("k", "n", plan.k.padded_head_dim);
  }
  if (plan.v.is_scaled) {
    out.tensor("v", "n", kElementBytes).pass_stride("v", "n", plan.v.columns);
  }
  pass_partials(out, plan);
  pass_query_means(out, plan);
}

void launch_fold(PlanWriter& out, const ForwardPlan& plan) {
  out.launch("fold", Phase::kQuantize, {"b * hkv", "1", "1"}, kPrepareThreads, 0)
      .i32("n", "n")
      .i32("num_chunks", kNumChunks);
  pass_partials(out, plan);
  pass_folded(out, plan);
}

void launch_amax(PlanWriter& out, const QuantizePlan& plan) {
  const auto [heads, tokens] = names_of(plan);
  out.launch("amax_" + plan.operand, Phase::kQuantize,
             {fmt::format("ceil_div({}, {})", tokens, plan.tile_rows), std::string(heads), "b"},
             kPrepareThreads, 0)
      .tensor(plan.operand, tokens, kElementBytes)
      .pass_stride(plan.operand, tokens, plan.padded_head_dim)
      .i32(std::string(tokens), std::string(tokens))
      .i32("hkv", "hkv")
      .i32("group_heads", fmt::format("div({}, hkv)", heads));
  if (plan.operand == "q") out.i32("hq", "hq");
  if (plan.subtract_mean) out.from_buffer(plan.operand + "_mean");
  if (plan.mean_span > 0) out.i32("q_blocks", num_blocks(plan.mean_span));
  out.from_buffer(plan.operand + "_amax");
}

// Of a head of Q or K; of heads that are padded together the last has all the padding.
std::string num_tiles(const QuantizePlan& plan) {
  const std::string most = plan.packed_heads.empty()
                               ? code_tokens(plan)
                               : fmt::format("({} - {} * ({} - 1))", code_tokens(plan),
                                             names_of(plan).tokens, plan.packed_heads);
  return fmt::format("ceil_div({}, {})", most, plan.tile_rows);
}

// Of V.
std::string num_tiles(const ValuePlan& v) {
  return fmt::format("ceil_div({}, {})", padded_tokens("n", v.token_multiple), v.tile_tokens);
}

void pass_quantized(PlanWriter& out, const QuantizePlan& plan) {
  const auto [heads, tokens] = names_of(plan);
  const std::string& name = plan.operand;
  out.tensor(name, tokens, kElementBytes)
      .pass_stride(name, tokens, plan.padded_head_dim)
      .i32(std::string(tokens), std::string(tokens))
      .i32(std::string(heads), std::string(heads))
      .i32(name + "_tiles", num_tiles(plan))
      .from_buffer(name + "_codes")
      .from_buffer(name + "_scales")
      .i64(name + "_scales_stride_h", scales_stride(plan));
  if (plan.token_multiple > 1) {
    out.i32(fmt::format("padded_{}", tokens), code_tokens(plan));
  }
  if (!plan.packed_heads.empty()) out.i32("packed_heads", plan.packed_heads);
  if (plan.finds_amax_first()) out.from_buffer(name + "_amax");
  if (plan.lse_bias) out.from_buffer("lse_bias");
  if (plan.finds_largest_scale) out.from_buffer(kLargestKeyScale);
  if (plan.clears_counters) out.from_buffer(kTileCounters);
}

void pass_values(PlanWriter& out, const ValuePlan& v) {
  out.tensor("v", "n", kElementBytes)
      .pass_stride("v", "n", v.columns)
      .i64("v_pair_stride", fmt::format("v.stride_n * {}", kValuePairTokens * kElementBytes))
      .i32("v_tiles", num_tiles(v))
      .from_buffer("v_codes");
  if (v.group_scales) out.from_buffer("v_scales");
}

// Of the scores of Q's means, for a K head.
std::string num_tiles(const MeanScoresPlan& plan) {
  return fmt::format("ceil_div(n, {}) * ceil_div(div(hq, hkv) * {}, {})", kMeanScoreKeys,
                     num_blocks(plan.span), kMeanScoreRows);
}

// Of a K head: its K and V, the scores of Q's means, and the Q that attends to them.
std::string num_head_tiles(const ForwardPlan& plan) {
  std::vector<std::string> parts = {num_tiles(plan.k)};
  if (plan.v.is_prepared) parts.push_back(num_tiles(plan.v));
  if (plan.mean_scores.exists) parts.push_back(num_tiles(plan.mean_scores));
  parts.push_back("div(hq, hkv) * " + num_tiles(plan.q));
  return fmt::format("({})", fmt::join(parts, " + "));
}

void pass_mean_scores(PlanWriter& out, const MeanScoresPlan& plan) {
  out.i32("mean_score_tiles", num_tiles(plan))
      .i32("mean_key_tiles", fmt::format("ceil_div(n, {})", kMeanScoreKeys))
      .from_buffer("mean_scores")
      .i32("mean_scores_stride", mean_scores_tokens(plan));
}

void pass_operands(PlanWriter& out, const ForwardPlan& plan) {
  pass_quantized(out, plan.k);
  if (plan.v.is_prepared) pass_values(out, plan.v);
  if (plan.v.is_prepared && plan.k.token_multiple == 1) {
    out.i32("padded_n", padded_tokens("n", plan.v.token_multiple));
  }
  pass_quantized(out, plan.q);
  out.reciprocal("hkv", "hkv").reciprocal("q_tiles", num_tiles(plan.q));
  out.i32("group_heads", "div(hq, hkv)");
  pass_folded(out, plan);
  pass_query_means(out, plan);
  if (plan.mean_scores.exists) pass_mean_scores(out, plan.mean_scores);
}

// A block for every tile of every head.
void launch_quantize(PlanWriter& out, const ForwardPlan& plan) {
  out.launch("quantize", Phase::kQuantize,
             {fmt::format("b * hkv * {}", num_head_tiles(plan)), "1", "1"}, kPrepareThreads, 0)
      .divisor("head_tiles", num_head_tiles(plan));
  pass_operands(out, plan);
}

// Teams stay and take items, the statistics of a head and all tiles, in the order that
// prepare_order.h says. All teams of a multiprocessor are one block, and attention needs a
// multiprocessor for itself: so what `prepare` leaves free is whole multiprocessors.
void launch_prepare(PlanWriter& out, const ForwardPlan& plan) {
  const std::string statistics = num_statistics(plan), tiles = num_head_tiles(plan);
  const std::string head_items = fmt::format("({} + {})", statistics, tiles);
  const int percent = plan.attends_by_head() ? plan.schedule.prepare_percent : 100;
  const std::string blocks = fmt::format("ceil_div(num_sms * {}, 100)", percent);
  const std::string lag = fmt::format("min(b * hkv, {} + ceil_div({} * {} * {}, {}))", kLagRounds,
                                      kItemsInWork, blocks, plan.prepare_teams, head_items);
  out.launch("prepare", Phase::kQuantize,
             {fmt::format("min({}, ceil_div(b * hkv * {}, {}))", blocks, head_items,
                          plan.prepare_teams),
              "1", "1"},
             plan.prepare_teams * kPrepareThreads, 0)
      .from_buffer(kPrepareCounters)
      .i32("kv_heads", "b * hkv")
      .divisor("head_statistics", statistics)
      .divisor("head_tiles", tiles)
      .divisor("head_items", head_items)
      .i32("lag", lag)
      .i32("lag_items", fmt::format("{} * {}", lag, statistics))
      .i32("heads_ahead", fmt::format("b * hkv - {}", lag))
      .i32("num_chunks", kNumChunks)
      .i32("chunk_tokens", kChunkTokens);
  pass_partials(out, plan);
  pass_operands(out, plan);
}

// In the order that their results demand.
void launch_preparation(PlanWriter& out, const ForwardPlan& plan) {
  const bool apart = plan.has_statistics() && !plan.prepares_at_once();
  if (apart) {
    launch_statistics(out, plan);
    if (plan.has_fold()) launch_fold(out, plan);
  }
  if (plan.k.finds_amax_first()) launch_amax(out, plan.k);
  if (plan.q.finds_amax_first()) launch_amax(out, plan.q);
  if (plan.prepares_at_once()) {
    launch_prepare(out, plan);
  } else {
    launch_quantize(out, plan);
  }
}

// The mma.sync kernel has a block for every tile of queries of every head; the wgmma kernel's
// blocks stay and take tiles in turn, and have a producer warpgroup besides the consumers.
void launch_attention(PlanWriter& out, const ForwardPlan& plan) {
  const Schedule& schedule = plan.schedule;
  const std::string tiles = row_tiles(schedule), packs = num_packs(schedule);
  if (schedule.wgmma) {
    out.launch("attention", Phase::kAttend,
               {fmt::format("min(num_sms, b * {} * {})", packs, tiles), "1", "1"},
               schedule.num_warps * 32 + kWarpgroupThreads,
               attention_smem_bytes(plan.variant, schedule));
  } else {
    out.launch("attention", Phase::kAttend, {tiles, packs, "b"}, schedule.num_warps * 32,
               attention_smem_bytes(plan.variant, schedule));
  }
}

// Packs whose query tiles the wgmma kernel takes by length, not pack by pack: a causal mask leaves
// some tiles fewer keys, and a pack's last tile may have fewer rows. As many as keep the
// multiprocessors busy to the end, and as keep their K and V in the L2 cache.
std::string num_last_packs(const ForwardPlan& plan) {
  constexpr int kRounds = 3;  // of tiles for every multiprocessor
  const int token_bytes = plan.k.row_bytes() + plan.v.token_bytes();
  return fmt::format(
      "max(1, min(b * {}, min(ceil_div({} * num_sms, max(1, {})), div({}, max(1, n * {})))))",
      num_packs(plan.schedule), kRounds, row_tiles(plan.schedule), kResidentBytes, token_bytes);
}

// How rows of a pack become heads and tokens.
void pass_packs(PlanWriter& out, const Schedule& schedule) {
  out.i32("packed_heads", packed_heads(schedule))
      .i32("pack_rows", pack_rows(schedule))
      .i32("token_reciprocal",
           fmt::format("{} * div({}, max(1, m))", packs_heads(schedule), kReciprocalOf));
  if (schedule.wgmma) out.i32("packs", num_packs(schedule));
}

void add_attention(PlanWriter& out, const ForwardPlan& plan) {
  const Variant& v = plan.variant;
  launch_attention(out, plan);
  out.from_buffer("q_codes")
      .from_buffer("q_scales")
      .i64("q_scales_stride_h", scales_stride(plan.q))
      .from_buffer("k_codes")
      .from_buffer("k_scales")
      .i64("k_scales_stride_h", scales_stride(plan.k));
  if (plan.k.finds_largest_scale) out.from_buffer(kLargestKeyScale);
  if (plan.v.is_prepared) {
    out.from_buffer("v_codes");
    if (plan.v.has_scales()) out.from_buffer("v_scales");
  } else {
    out.tensor("v", "n", bits_of(v.input) / 8);
  }
  out.tensor("o", "m", bits_of(v.output) / 8)
      .i32("m", "m")
      .i32("n", "n")
      .i32("hq", "hq")
      .i32("hkv", "hkv");
  if (plan.schedule.wgmma) {
    const std::string tiles = row_tiles(plan.schedule), packs = num_packs(plan.schedule);
    const std::string last_packs = num_last_packs(plan);
    const std::string first_last = fmt::format("(b * {} - {})", packs, last_packs);
    out.from_buffer(kTileCounters)
        .i32("row_tiles", tiles)
        .i32("num_tiles", fmt::format("b * {} * {}", packs, tiles))
        .i32("last_packs", last_packs)
        .i32("first_last_pack", first_last)
        .i32("first_last_tile", fmt::format("{} * {}", first_last, tiles))
        .i32("group_heads", "div(hq, hkv)")
        .i32("padded_m", code_tokens(plan.q));
  }
  if (plan.packs_heads()) pass_packs(out, plan.schedule);
  if (plan.v.is_prepared || plan.k.token_multiple > 1) {
    out.i32("padded_n", padded_tokens("n", plan.schedule.block_n));
  }
  if (plan.mean_scores.exists) {
    out.from_buffer("mean_scores")
        .i32("mean_scores_stride", mean_scores_tokens(plan.mean_scores))
        .i32("q_blocks", num_blocks(plan.mean_scores.span));
  }
  if (plan.attends_by_head()) {
    out.from_buffer(kPrepareCounters)
        .i32("head_tiles", num_head_tiles(plan))
        .i32("attends_alone", "attends_alone");
  }
  if (v.lse) {
    out.pointer("lse")
        .i64("lse_stride_b", "lse.stride_b * 4")
        .i64("lse_stride_h", "lse.stride_h * 4");
  }
  if (plan.q.lse_bias) out.from_buffer("lse_bias");
}

// What a variant needs of the kernel family that the schedule chose.
void check_family(const Variant& v, const Schedule& schedule, const Target& target) {
  const auto require = [&](bool condition, std::string_view limit) {
    if (!condition) {
      fail(ErrorKind::kUnsupported, "schedule '{}' is not possible: {}", print_schedule(schedule),
           limit);
    }
  };
  if (schedule.wgmma) return;
  require(bits_of(v.v.type) < 16 || v.v.type == v.input,
          "without wgmma, V of 16 bits must have the type of the input");
  require((!is_fp8(v.v.type) && !is_fp8(v.q.type)) || target.native_fp8_mma,
          fmt::format("without wgmma, {} has no products of 8-bit floats", target.name));
}

}  // namespace

int lanes_of_row(int columns) {
  return static_cast<int>(
      std::bit_ceil(static_cast<unsigned>(columns) * kElementBytes / kPieceBytes));
}

int pass_rows(int columns) {
  constexpr int kWarpThreads = 32;
  return std::max(kGroupOffsets, kWarpThreads / lanes_of_row(columns));
}

OperandNames names_of(const QuantizePlan& plan) {
  return plan.operand == "q" ? OperandNames{"hq", "m"} : OperandNames{"hkv", "n"};
}

int ForwardPlan::num_pieces() const {
  const int of_tiles = std::max({pieces_of(q), pieces_of(k), pieces_of(v)});
  return has_statistics() ? std::max(of_tiles, kChunkPieces) : of_tiles;
}

int ForwardPlan::scratch_bytes() const {
  const int folds = std::max(k.subtract_mean || q.subtract_mean ? 1 : 0, v.num_folds());
  const int values = v.is_scaled ? v.tile_tokens * v.columns : 0;
  const int means = mean_scores.exists ? (kMeanScoreRows + 1) * mean_scores.head_dim * 4 : 0;
  const int rows = std::max(k.stage_bytes(), q.stage_bytes());
  return std::max({folds * kFoldBytes, values, means, rows});
}

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
  check_family(variant, schedule, target);
  ForwardPlan result{variant,
                     schedule,
                     &target,
                     quantize_plan(variant, schedule, true),
                     quantize_plan(variant, schedule, false),
                     value_plan(variant, schedule),
                     mean_scores_plan(variant, schedule),
                     1,
                     {}};
  result.prepare_teams = prepare_teams(result);
  result.q.clears_counters = schedule.wgmma && !result.prepares_at_once();
  PlanWriter out(result.plan, target);
  add_zeroed_buffers(out, result);
  add_quantize_buffers(out, result.q);
  add_quantize_buffers(out, result.k);
  if (result.v.is_prepared) add_value_buffers(out, result.v);
  if (result.mean_scores.exists) add_mean_scores_buffer(out, result.mean_scores);
  launch_preparation(out, result);
  add_attention(out, result);
  return result;
}

}  // namespace sagejit
