#include "compiler/plan/forward_plan.h"

#include <algorithm>
#include <array>

#include "compiler/sema/resolve.h"
#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

using Strings = std::vector<std::string>;

ForwardPlan plan_of(std::string_view entries, std::string_view target = "sm_80") {
  const Variant v = resolve_variants("v.attn", fmt::format("v {{ {} }}", entries)).at(0);
  return make_forward_plan(v, default_schedule(v, find_target(target)), find_target(target));
}

Strings kernels_of(const ForwardPlan& plan) {
  Strings names;
  for (const KernelLaunch& launch : plan.plan.launches) names.push_back(launch.kernel);
  return names;
}

Strings params_of(const ForwardPlan& plan, std::string_view kernel) {
  const KernelLaunch* launch = plan.find_launch(kernel);
  REQUIRE(launch);
  Strings names;
  for (const KernelParam& param : launch->params) names.push_back(param.name);
  return names;
}

bool has_param(const ForwardPlan& plan, std::string_view kernel, std::string_view name) {
  const Strings names = params_of(plan, kernel);
  return std::find(names.begin(), names.end(), name) != names.end();
}

const KernelParam& find_param(const ForwardPlan& plan, std::string_view kernel,
                              std::string_view name) {
  const KernelLaunch* launch = plan.find_launch(kernel);
  REQUIRE(launch);
  const auto it = std::find_if(launch->params.begin(), launch->params.end(),
                               [&](const KernelParam& param) { return param.name == name; });
  REQUIRE(it != launch->params.end());
  return *it;
}

Strings buffers_of(const ForwardPlan& plan) {
  Strings names;
  for (const WorkspaceBuffer& buffer : plan.plan.workspace) names.push_back(buffer.name);
  return names;
}

ForwardPlan wgmma_plan_of(std::string_view entries, std::string_view schedule = "") {
  const Variant v = resolve_variants("v.attn", fmt::format("v {{ {} }}", entries)).at(0);
  const Schedule base =
      parse_schedule("wgmma=1 block_m=192 block_n=128 warps=12 stages=2 q_in_registers=0");
  return make_forward_plan(v, parse_schedule(schedule, base), find_target("sm_90a"));
}

// b = 2, hq = 8, hkv = 4, m = 300, n = 1000; a symbol of a tensor's address or stride is 100 + its
// number.
int64_t evaluate(const SizeExpr& expression) {
  std::array<int64_t, kNumSymbols> values{2, 8, 4, 300, 1000};
  for (size_t i = 5; i < values.size(); ++i) values[i] = 100 + static_cast<int64_t>(i);
  return expression.evaluate(values);
}

int64_t param_of(const ForwardPlan& plan, std::string_view kernel, std::string_view name) {
  return evaluate(find_param(plan, kernel, name).value);
}

const WorkspaceBuffer& buffer(const ForwardPlan& plan, std::string_view name) {
  for (const WorkspaceBuffer& candidate : plan.plan.workspace) {
    if (candidate.name == name) return candidate;
  }
  FAIL("no buffer " << name);
  return plan.plan.workspace[0];
}

int64_t bytes_of(const ForwardPlan& plan, std::string_view name) {
  return evaluate(buffer(plan, name).bytes);
}

std::array<int64_t, 3> grid_of(const ForwardPlan& plan, std::string_view kernel) {
  const auto& grid = plan.find_launch(kernel)->grid;
  return {evaluate(grid[0]), evaluate(grid[1]), evaluate(grid[2])};
}

const Strings kAttentionParams = {"q_codes",
                                  "q_scales",
                                  "q_scales_stride_h",
                                  "k_codes",
                                  "k_scales",
                                  "k_scales_stride_h",
                                  "k_largest_scale",
                                  "v",
                                  "v_stride_b",
                                  "v_stride_h",
                                  "v_stride_n",
                                  "o",
                                  "o_stride_b",
                                  "o_stride_h",
                                  "o_stride_m",
                                  "m",
                                  "n",
                                  "hq",
                                  "hkv",
                                  "packed_heads",
                                  "pack_rows",
                                  "token_reciprocal"};

Strings with(Strings list, const Strings& more) {
  list.insert(list.end(), more.begin(), more.end());
  return list;
}

}  // namespace

TEST_CASE("without smoothing: the operands, then attention") {
  const ForwardPlan plan = plan_of("head_dim = 64");
  CHECK(kernels_of(plan) == Strings{"quantize", "attention"});
  CHECK(buffers_of(plan) ==
        Strings{"k_largest_scale", "q_codes", "q_scales", "k_codes", "k_scales"});
  CHECK(params_of(plan, "quantize") == Strings{"head_tiles",
                                               "head_tiles_reciprocal",
                                               "k",
                                               "k_stride_b",
                                               "k_stride_h",
                                               "k_stride_n",
                                               "k_pass_stride",
                                               "n",
                                               "hkv",
                                               "k_tiles",
                                               "k_codes",
                                               "k_scales",
                                               "k_scales_stride_h",
                                               "k_largest_scale",
                                               "q",
                                               "q_stride_b",
                                               "q_stride_h",
                                               "q_stride_m",
                                               "q_pass_stride",
                                               "m",
                                               "hq",
                                               "q_tiles",
                                               "q_codes",
                                               "q_scales",
                                               "q_scales_stride_h",
                                               "hkv_reciprocal",
                                               "q_tiles_reciprocal",
                                               "group_heads"});
  CHECK(params_of(plan, "attention") == kAttentionParams);
  CHECK(plan.find_launch("statistics") == nullptr);
}

TEST_CASE("smoothed Q: means of its blocks, and a row of their scores for each block") {
  const ForwardPlan plan =
      plan_of("head_dim = 72; smooth_k = mean; smooth_q = mean per block(128)");
  CHECK(kernels_of(plan) == Strings{"prepare", "attention"});
  CHECK(bytes_of(plan, "q_mean") == 2 * 8 * 3 * 72 * 4);
  CHECK(bytes_of(plan, "mean_scores") == 2 * 8 * 3 * 1024 * 4);
  // Of a K head: 8 chunks of K and 2 heads' 3 blocks.
  CHECK(param_of(plan, "prepare", "head_statistics") == 8 + 2 * 3);
  // 6 rows, 1000 keys: a tile has 8 rows and 256 keys.
  CHECK(param_of(plan, "prepare", "mean_score_tiles") == 4);
  CHECK(param_of(plan, "attention", "mean_scores_stride") == 1024);
  CHECK(param_of(plan, "attention", "q_blocks") == 3);
  const auto tiles = [](const ForwardPlan& p) { return param_of(p, "prepare", "head_tiles"); };
  CHECK(tiles(plan) == tiles(plan_of("head_dim = 72; smooth_k = mean")) + 4);
  CHECK_FALSE(has_param(plan_of("head_dim = 72; smooth_k = mean"), "attention", "mean_scores"));

  // The maxima of smoothed Q come between its means and its codes.
  CHECK(kernels_of(plan_of("head_dim = 64; q = int8 per head; smooth_q = mean")) ==
        Strings{"statistics", "amax_q", "quantize", "attention"});
  CHECK(kernels_of(plan_of("head_dim = 64; q = int8 per head; smooth_q = mean; smooth_k = mean")) ==
        Strings{"statistics", "fold", "amax_q", "quantize", "attention"});
}

TEST_CASE("with wgmma the mean scores come with the key tiles") {
  const ForwardPlan plan = wgmma_plan_of("head_dim = 64; smooth_q = mean", "block_n=96");
  CHECK(bytes_of(plan, "mean_scores") == 2 * 8 * 3 * 1056 * 4);
  const ForwardPlan plain = wgmma_plan_of("head_dim = 64", "block_n=96");
  // A row for each of three warpgroups, in both stages.
  CHECK(attention_smem_bytes(plan.variant, plan.schedule) ==
        attention_smem_bytes(plain.variant, plain.schedule) + 2 * 3 * 96 * 4);
}

TEST_CASE("K is smoothed by one launch that takes its sums and quantizes") {
  const ForwardPlan plan = plan_of("head_dim = 64; smooth_k = mean");
  CHECK(kernels_of(plan) == Strings{"prepare", "attention"});
  CHECK(params_of(plan, "prepare") == Strings{"prepare_counters",
                                              "kv_heads",
                                              "head_statistics",
                                              "head_statistics_reciprocal",
                                              "head_tiles",
                                              "head_tiles_reciprocal",
                                              "head_items",
                                              "head_items_reciprocal",
                                              "lag",
                                              "lag_items",
                                              "heads_ahead",
                                              "num_chunks",
                                              "chunk_tokens",
                                              "k_partial_sums",
                                              "k",
                                              "k_stride_b",
                                              "k_stride_h",
                                              "k_stride_n",
                                              "k_pass_stride",
                                              "n",
                                              "hkv",
                                              "k_tiles",
                                              "k_codes",
                                              "k_scales",
                                              "k_scales_stride_h",
                                              "k_largest_scale",
                                              "q",
                                              "q_stride_b",
                                              "q_stride_h",
                                              "q_stride_m",
                                              "q_pass_stride",
                                              "m",
                                              "hq",
                                              "q_tiles",
                                              "q_codes",
                                              "q_scales",
                                              "q_scales_stride_h",
                                              "hkv_reciprocal",
                                              "q_tiles_reciprocal",
                                              "group_heads",
                                              "k_mean"});
  CHECK(bytes_of(plan, "k_partial_sums") == 2 * 4 * 8 * 64 * 4);  // ceil(1000 / 128) chunks
  CHECK(bytes_of(plan, "k_mean") == 2 * 4 * 64 * 4);
  CHECK(bytes_of(plan, "prepare_counters") == (1 + 2 * (2 * 4)) * 4);
  CHECK(param_of(plan, "prepare", "kv_heads") == 2 * 4);
  CHECK(param_of(plan, "prepare", "head_statistics") == 8);     // chunks
  CHECK(param_of(plan, "prepare", "head_tiles") == 4 + 2 * 2);  // of K, and of two heads of Q
  CHECK(param_of(plan, "prepare", "group_heads") == 2);
}

TEST_CASE("the blocks of prepare stay, one a multiprocessor, or as many as have an item a team") {
  for (const auto& [entries, teams] : {std::pair("head_dim = 64", 3),
                                       {"head_dim = 128", 3},
                                       {"head_dim = 96", 2},  // rows end within a thread's part
                                       {"head_dim = 256; q = int8 per warp(32)", 3},
                                       {"head_dim = 256; q = int8 per block(128)", 2}}) {
    INFO(entries);
    const ForwardPlan plan = plan_of(fmt::format("{}; smooth_k = mean", entries));
    const KernelLaunch& launch = *plan.find_launch("prepare");
    std::array<int64_t, kNumSymbols> values{2, 8, 4, 300, 1000};
    values[static_cast<size_t>(Symbol::kNumSms)] = 5;
    CHECK(plan.prepare_teams == teams);
    CHECK(launch.block_threads == teams * kPrepareThreads);
    CHECK(launch.grid[0].evaluate(values) == 5);
    values[static_cast<size_t>(Symbol::kNumSms)] = 132;
    const int64_t items =
        2 * 4 *
        (param_of(plan, "prepare", "head_statistics") + param_of(plan, "prepare", "head_tiles"));
    CHECK(launch.grid[0].evaluate(values) == std::min<int64_t>(132, (items + teams - 1) / teams));
  }
  CHECK(plan_of("head_dim = 64; smooth_k = mean", "sm_120").prepare_teams == 2);
}

TEST_CASE("beside attention prepare takes its part of the multiprocessors, without it all") {
  const auto blocks = [](const ForwardPlan& plan) {
    std::array<int64_t, kNumSymbols> values{64, 8, 4, 300, 1000};
    values[static_cast<size_t>(Symbol::kNumSms)] = 132;
    return plan.find_launch("prepare")->grid[0].evaluate(values);
  };
  const auto with_percent = [&](int percent) {
    return blocks(wgmma_plan_of("head_dim = 64; smooth_k = mean",
                                fmt::format("prepare_percent={}", percent)));
  };
  CHECK(with_percent(100) == 132);
  CHECK(with_percent(50) == 66);
  CHECK(with_percent(1) == 2);
  Variant v = resolve_variants("v.attn", "v { head_dim = 64; smooth_k = mean }").at(0);
  CHECK(blocks(make_forward_plan(v, {.prepare_percent = 50}, find_target("sm_80"))) == 132);
}

TEST_CASE("tiles follow the statistics of their head by as many rounds as teams have in work") {
  const ForwardPlan plan = wgmma_plan_of("head_dim = 128; v = e4m3; smooth_k = mean");
  CHECK(plan.prepare_teams == 3);
  const auto lag = [&](int64_t b, int64_t n) {
    std::array<int64_t, kNumSymbols> values{b, 8, 4, 300, n};
    values[static_cast<size_t>(Symbol::kNumSms)] = 132;
    return find_param(plan, "prepare", "lag").value.evaluate(values);
  };
  // Of 66 blocks, 198 teams, two items each; a head has 16 + 22, 64 + 70, 128 + 1030 of them.
  CHECK(lag(64, 1024) == 3 + 11);
  CHECK(lag(64, 4096) == 3 + 3);
  CHECK(lag(64, 1 << 16) == 3 + 1);
  CHECK(lag(2, 1024) == 2 * 4);  // all heads
  CHECK(lag(64, 0) == 3 + 50);   // 2 + 6
  CHECK(lag(0, 1024) == 0);
}

TEST_CASE("the chunks cover every token and stay within their maximum") {
  const ForwardPlan plan = plan_of("head_dim = 64; smooth_k = mean");
  const auto value = [&](std::string_view name, int64_t n) {
    return find_param(plan, "prepare", name)
        .value.evaluate(std::array<int64_t, kNumSymbols>{1, 1, 1, 1, n});
  };
  for (int64_t n = 1; n < 20000; n += 37) {
    const int64_t chunks = value("num_chunks", n);
    CHECK(value("head_statistics", n) == chunks);
    CHECK(chunks * value("chunk_tokens", n) >= n);
    CHECK((chunks - 1) * value("chunk_tokens", n) < n);  // none is empty
    CHECK(value("chunk_tokens", n) >= kMinChunkTokens);
    CHECK(chunks <= kMaxChunks);
  }
}

TEST_CASE("the LSE is corrected by q . mean only where K is smoothed") {
  const ForwardPlan plain = plan_of("head_dim = 64; lse = on");
  CHECK(params_of(plain, "attention") ==
        with(kAttentionParams, {"lse", "lse_stride_b", "lse_stride_h"}));
  CHECK(buffers_of(plain) ==
        Strings{"k_largest_scale", "q_codes", "q_scales", "k_codes", "k_scales"});

  const ForwardPlan smoothed = plan_of("head_dim = 64; lse = on; smooth_k = mean");
  CHECK(params_of(smoothed, "attention") ==
        with(kAttentionParams, {"lse", "lse_stride_b", "lse_stride_h", "lse_bias"}));
  CHECK(has_param(smoothed, "prepare", "lse_bias"));
  CHECK(bytes_of(smoothed, "lse_bias") == 2 * 8 * 300 * 4);

  const ForwardPlan no_lse = plan_of("head_dim = 64; smooth_k = mean");
  CHECK(params_of(no_lse, "attention") == kAttentionParams);
  CHECK_FALSE(has_param(no_lse, "prepare", "lse_bias"));
}

TEST_CASE(
    "granularities of a head or the tensor need a pass for the largest magnitude, others none") {
  for (const char* granularity : {"block(128)", "warp(32)", "thread(32)", "token"}) {
    const ForwardPlan plan =
        plan_of(fmt::format("head_dim = 64; q = int8 per {0}; k = int8 per {0}", granularity));
    INFO(granularity);
    CHECK(kernels_of(plan) == Strings{"quantize", "attention"});
  }
  const ForwardPlan plan =
      plan_of("head_dim = 64; q = int8 per tensor; k = int8 per head; smooth_k = mean");
  CHECK(kernels_of(plan) ==
        Strings{"statistics", "fold", "amax_k", "amax_q", "quantize", "attention"});
  CHECK(grid_of(plan, "statistics") == std::array<int64_t, 3>{8, 4, 2});
  CHECK(params_of(plan, "statistics") == Strings{"n", "hkv", "num_chunks", "chunk_tokens", "k",
                                                 "k_stride_b", "k_stride_h", "k_stride_n",
                                                 "k_pass_stride", "k_partial_sums"});
  CHECK(grid_of(plan, "fold") == std::array<int64_t, 3>{2 * 4, 1, 1});
  CHECK(params_of(plan, "fold") == Strings{"n", "num_chunks", "k_partial_sums", "k_mean"});
  CHECK(has_param(plan, "quantize", "k_mean"));
  CHECK_FALSE(has_param(plan, "quantize", "k_partial_sums"));
  CHECK(params_of(plan, "amax_k") == Strings{"k", "k_stride_b", "k_stride_h", "k_stride_n",
                                             "k_pass_stride", "n", "hkv", "group_heads", "k_mean",
                                             "k_amax"});
  CHECK(param_of(plan, "amax_k", "group_heads") == 1);
  CHECK(params_of(plan, "amax_q") == Strings{"q", "q_stride_b", "q_stride_h", "q_stride_m",
                                             "q_pass_stride", "m", "hkv", "group_heads", "hq",
                                             "q_amax"});
  CHECK(param_of(plan, "amax_q", "group_heads") == 2);
  CHECK(bytes_of(plan, "q_amax") == 4);
  CHECK(bytes_of(plan, "q_scales") == 4);
  CHECK(bytes_of(plan, "k_amax") == 2 * 4 * 4);
  CHECK(bytes_of(plan, "k_scales") == 2 * 4 * 4);
  for (const WorkspaceBuffer& candidate : plan.plan.workspace) {
    INFO(candidate.name);
    CHECK(candidate.zeroed ==
          (candidate.name.ends_with("_amax") || candidate.name == "k_largest_scale"));
  }
}

TEST_CASE("only the largest magnitude of smoothed K keeps its statistics a launch apart") {
  CHECK(kernels_of(plan_of("head_dim = 64; q = int8 per head; smooth_k = mean")) ==
        Strings{"amax_q", "prepare", "attention"});
  CHECK(kernels_of(wgmma_plan_of("head_dim = 64; k = int8 per tensor; v = e4m3")) ==
        Strings{"amax_k", "prepare", "attention"});
  const ForwardPlan plan =
      wgmma_plan_of("head_dim = 64; k = int8 per tensor; smooth_k = mean; v = e4m3");
  CHECK(kernels_of(plan) == Strings{"statistics", "fold", "amax_k", "quantize", "attention"});
  CHECK(grid_of(plan, "statistics") == std::array<int64_t, 3>{2 * 8, 4, 2});
  CHECK(params_of(plan, "fold") == Strings{"n", "num_chunks", "k_partial_sums", "v_partial_amax",
                                           "k_mean", "v_scales", "v_inverses"});
  CHECK_FALSE(plan.attends_by_head());
}

TEST_CASE("what starts as zeros lies together") {
  const ForwardPlan plan = plan_of("head_dim = 64; q = int8 per head; smooth_k = mean");
  const Strings names = buffers_of(plan);
  CHECK(names[0] == "prepare_counters");
  CHECK(names[1] == "k_largest_scale");
  CHECK(names[2] == "q_amax");
  for (size_t i = 0; i < names.size(); ++i) {
    CHECK(plan.plan.workspace[i].zeroed == (i < 3));
  }
  const ForwardPlan by_head = wgmma_plan_of("head_dim = 64; k = int8 per head; v = e4m3");
  CHECK(buffers_of(by_head)[0] == "tile_counters");
  CHECK(buffers_of(by_head)[1] == "prepare_counters");
  CHECK(buffers_of(by_head)[2] == "k_largest_scale");
  CHECK(buffers_of(by_head)[3] == "k_amax");
  for (size_t i = 0; i < by_head.plan.workspace.size(); ++i) {
    CHECK(by_head.plan.workspace[i].zeroed == (i < 4));
  }
}

TEST_CASE("workspace sizes follow the padded head dimension and the scale groups") {
  const ForwardPlan plan = plan_of("head_dim = 72; q = int8 per thread(32); k = int8 per token");
  CHECK(plan.q.padded_head_dim == 96);
  CHECK(bytes_of(plan, "q_codes") == 2 * 8 * 300 * 96);
  CHECK(bytes_of(plan, "k_codes") == 2 * 4 * 1000 * 96);
  CHECK(bytes_of(plan, "q_scales") == 2 * 8 * (384 / 32 * 8) * 4);
  CHECK(bytes_of(plan, "k_scales") == 2 * 4 * 1024 * 4);
}

TEST_CASE("grids cover every token of every head") {
  const ForwardPlan plan = plan_of("head_dim = 64; q = int8 per block(48); k = int8 per block(64)");
  CHECK(plan.q.tile_rows == 240);  // whole spans
  CHECK(plan.k.tile_rows == 256);
  CHECK(param_of(plan, "quantize", "head_tiles") == 4 + 2 * 2);
  CHECK(grid_of(plan, "quantize") == std::array<int64_t, 3>{2 * 4 * (4 + 2 * 2), 1, 1});
  CHECK(grid_of(plan, "attention") == std::array<int64_t, 3>{3, 8, 2});
}

TEST_CASE("a tile of wide heads has fewer rows, but whole spans") {
  const ForwardPlan plan =
      plan_of("head_dim = 256; q = int8 per block(128); k = int8 per thread(32)");
  CHECK(plan.q.tile_rows == 128);
  CHECK(plan.k.tile_rows == 64);
}

TEST_CASE("phases, threads and shared memory of the launches") {
  const ForwardPlan plan = plan_of("head_dim = 64; smooth_k = mean");
  for (const KernelLaunch& launch : plan.plan.launches) {
    INFO(launch.kernel);
    const bool attends = launch.kernel == "attention";
    CHECK(launch.phase == (attends ? Phase::kAttend : Phase::kQuantize));
    CHECK(launch.block_threads == (attends ? plan.schedule.num_warps * 32 : 3 * kPrepareThreads));
  }
  CHECK(plan.find_launch("attention")->dynamic_smem_bytes ==
        attention_smem_bytes(plan.variant, plan.schedule));
}

TEST_CASE("strides reach the kernels in bytes, addresses from their tensor or buffer") {
  const ForwardPlan plan = plan_of("head_dim = 64; lse = on");
  const std::vector<KernelParam>& params = plan.find_launch("attention")->params;
  CHECK(params[0].buffer == 1);  // q_codes, behind K's largest scales
  CHECK(params[7].type == ParamType::kPointer);
  CHECK(params[7].buffer == -1);
  CHECK(params[7].value == SizeExpr("v"));
  CHECK(params[10].type == ParamType::kI64);
  CHECK(evaluate(params[10].value) == 2 * (100 + static_cast<int>(Symbol::kVStrideN)));
  CHECK(params[15].type == ParamType::kI32);  // m
  CHECK(param_of(plan, "attention", "lse_stride_b") ==
        4 * (100 + static_cast<int>(Symbol::kLseStrideB)));
  // From a row to the one congruent modulo 8, unless a warp has more rows.
  CHECK((pass_rows(256) == 8 && pass_rows(32) == 8 && pass_rows(16) == 16 && pass_rows(8) == 32));
  CHECK(param_of(plan, "quantize", "k_pass_stride") ==
        2 * 8 * (100 + static_cast<int>(Symbol::kKStrideN)));
  const ForwardPlan wgmma = wgmma_plan_of("head_dim = 64; v = e4m3");
  const int v_stride = 100 + static_cast<int>(Symbol::kVStrideN);
  CHECK(param_of(wgmma, "prepare", "v_pass_stride") == 2 * 8 * v_stride);
  CHECK(param_of(wgmma, "prepare", "v_pair_stride") == 2 * 8 * v_stride);
}

TEST_CASE("with wgmma the operands are prepared, tokens padded to whole tiles") {
  const ForwardPlan plan = wgmma_plan_of("head_dim = 72; value_head_dim = 40");
  CHECK(kernels_of(plan) == Strings{"quantize", "attention"});
  CHECK(buffers_of(plan) == Strings{"tile_counters", "k_largest_scale", "q_codes", "q_scales",
                                    "k_codes", "k_scales", "v_codes"});
  CHECK(plan.q.token_multiple == 192);
  CHECK(plan.k.token_multiple == 128);
  CHECK(bytes_of(plan, "q_codes") == 2 * 8 * 384 * 96);
  CHECK(bytes_of(plan, "k_codes") == 2 * 4 * 1024 * 96);
  CHECK(bytes_of(plan, "v_codes") == 2 * 4 * 1024 * 48 * 2);
  CHECK(bytes_of(plan, "q_scales") == 2 * 8 * 3 * 4);  // as without: 300 tokens in blocks of 128
  const auto parameter = [&](std::string_view name) { return param_of(plan, "quantize", name); };
  const int64_t v_tiles = (1024 + plan.v.tile_tokens - 1) / plan.v.tile_tokens;
  CHECK(parameter("padded_m") == 384);
  CHECK(parameter("padded_n") == 1024);
  CHECK(parameter("q_tiles") == 3);
  CHECK(parameter("k_tiles") == 8);
  CHECK(parameter("v_tiles") == v_tiles);
  CHECK(parameter("head_tiles") == 8 + v_tiles + 2 * 3);
  CHECK(grid_of(plan, "quantize") == std::array<int64_t, 3>{2 * 4 * (8 + v_tiles + 2 * 3), 1, 1});
}

TEST_CASE("8-bit V is prepared for mma.sync too, and nothing else is laid out otherwise") {
  const Variant v = resolve_variants("v.attn",
                                     "v { head_dim = 72; v = int8; smooth_k = mean; lse = on; "
                                     "pv_accumulator = s32 + f32 every 32 }")
                        .at(0);
  const Schedule schedule = parse_schedule("block_m=64 block_n=32 warps=4");
  const ForwardPlan plan = make_forward_plan(v, schedule, find_target("sm_80"));
  CHECK(kernels_of(plan) == Strings{"prepare", "attention"});
  CHECK(bytes_of(plan, "q_codes") == 2 * 8 * 300 * 96);
  CHECK(bytes_of(plan, "k_codes") == 2 * 4 * 1000 * 96);
  CHECK(bytes_of(plan, "v_codes") == 2 * 4 * 1024 * 80);
  CHECK(param_of(plan, "prepare", "padded_n") == 1024);
  CHECK(param_of(plan, "attention", "padded_n") == 1024);
  CHECK(has_param(plan, "attention", "v_scales"));
  CHECK(!has_param(plan, "attention", "v"));
  CHECK(!has_param(plan, "attention", "prepare_counters"));  // the launch before it is over
  CHECK(plan.v.range == 127.0f);
}

TEST_CASE("8-bit V shares the pass over K") {
  const ForwardPlan plan = wgmma_plan_of("head_dim = 64; v = e4m3; smooth_k = mean");
  CHECK(kernels_of(plan) == Strings{"prepare", "attention"});
  CHECK(param_of(plan, "prepare", "head_statistics") == 2 * 8);
  CHECK(param_of(plan, "prepare", "head_tiles") == 4 + 4 + 2 * 2);
  CHECK(has_param(plan, "prepare", "v_partial_amax"));
  CHECK(has_param(plan, "prepare", "v_scales"));
  CHECK(bytes_of(plan, "v_codes") == 2 * 4 * 1024 * 64);
  CHECK(bytes_of(plan, "v_scales") == 2 * 4 * 64 * 4);
  CHECK(bytes_of(plan, "v_inverses") == 2 * 4 * 64 * 4);
  CHECK(bytes_of(plan, "v_partial_amax") == 2 * 4 * 8 * 64 * 4);
  for (const WorkspaceBuffer& candidate : plan.plan.workspace) {
    CHECK(candidate.zeroed ==
          (candidate.name.ends_with("_counters") || candidate.name == "k_largest_scale"));
  }
  CHECK(plan.v.range == 448.0f);
  CHECK(wgmma_plan_of("head_dim = 64; v = e4m3 range 2.25").v.range == 2.25f);
}

TEST_CASE("smoothed V: its sums and extremes, and its means behind the scales") {
  const ForwardPlan plan = wgmma_plan_of("head_dim = 64; v = e4m3; smooth_v = mean");
  for (const char* partial : {"v_partial_sums", "v_partial_highest", "v_partial_lowest"}) {
    INFO(partial);
    CHECK(has_param(plan, "prepare", partial));
    CHECK(bytes_of(plan, partial) == 2 * 4 * 8 * 64 * 4);
  }
  CHECK_FALSE(has_param(plan, "prepare", "v_partial_amax"));
  CHECK(bytes_of(plan, "v_scales") == 2 * 4 * 2 * 64 * 4);
  const Variant plain = wgmma_plan_of("head_dim = 64; v = e4m3").variant;
  CHECK(wgmma_query_words(plan.variant) == wgmma_query_words(plain) + 64);
}

TEST_CASE("without keys the scales of V are written all the same") {
  const ForwardPlan plan = wgmma_plan_of("head_dim = 64; v = e4m3");
  const std::array<int64_t, kNumSymbols> values{2, 8, 4, 300, 0};
  const auto value = [&](std::string_view name) {
    return find_param(plan, "prepare", name).value.evaluate(values);
  };
  CHECK(value("head_statistics") == 1);  // a chunk of no tokens
  CHECK(value("head_tiles") == 2 * 2);   // of Q
}

TEST_CASE("tiles of V are whole permuted groups and whole bands, in every head dim") {
  for (int dv = 16; dv <= 256; dv += 8) {
    INFO(dv);
    const ValuePlan v =
        wgmma_plan_of(fmt::format("head_dim = 64; value_head_dim = {}; v = e4m3", dv),
                      "warps=8 block_m=128")
            .v;
    CHECK(v.columns == (dv + 15) / 16 * 16);
    CHECK(v.tile_tokens % 64 == 0);
    CHECK(v.tile_tokens * v.columns <= 24 << 10);  // shared memory
  }
}

TEST_CASE("the blocks of the wgmma kernel stay, one for each multiprocessor") {
  const ForwardPlan plan = wgmma_plan_of("head_dim = 64; v = e4m3; lse = on; smooth_k = mean");
  const KernelLaunch& launch = *plan.find_launch("attention");
  CHECK(launch.block_threads == 12 * 32 + 128);
  CHECK(launch.dynamic_smem_bytes == attention_smem_bytes(plan.variant, plan.schedule));
  std::array<int64_t, kNumSymbols> values{2, 8, 4, 300, 1000};
  for (const auto& [num_sms, blocks] : {std::pair{1, 1}, {20, 20}, {132, 2 * 8 * 2}}) {
    values[static_cast<size_t>(Symbol::kNumSms)] = num_sms;
    CHECK(launch.grid[0].evaluate(values) == blocks);
  }
  CHECK(launch.grid[1] == SizeExpr("1"));
  CHECK(params_of(plan, "attention") == Strings{"q_codes",
                                                "q_scales",
                                                "q_scales_stride_h",
                                                "k_codes",
                                                "k_scales",
                                                "k_scales_stride_h",
                                                "k_largest_scale",
                                                "v_codes",
                                                "v_scales",
                                                "o",
                                                "o_stride_b",
                                                "o_stride_h",
                                                "o_stride_m",
                                                "m",
                                                "n",
                                                "hq",
                                                "hkv",
                                                "tile_counters",
                                                "row_tiles",
                                                "num_tiles",
                                                "last_packs",
                                                "first_last_pack",
                                                "first_last_tile",
                                                "group_heads",
                                                "padded_m",
                                                "padded_n",
                                                "prepare_counters",
                                                "head_tiles",
                                                "attends_alone",
                                                "lse",
                                                "lse_stride_b",
                                                "lse_stride_h",
                                                "lse_bias"});
  const Strings half = params_of(wgmma_plan_of("head_dim = 64"), "attention");
  CHECK(half[7] == "v_codes");
  CHECK(half[8] == "o");
}

TEST_CASE("the last heads keep the multiprocessors busy, and the L2 cache theirs") {
  const auto last_packs = [](std::string_view mask, int64_t b, int64_t m, int64_t n) {
    const ForwardPlan plan =
        wgmma_plan_of(fmt::format("head_dim = 128; v = e4m3; smooth_k = mean; mask = {}", mask));
    std::array<int64_t, kNumSymbols> values{b, 8, 4, m, n};
    values[static_cast<size_t>(Symbol::kNumSms)] = 132;
    return find_param(plan, "attention", "last_packs").value.evaluate(values);
  };
  for (const char* mask : {"none", "causal(top_left)", "causal(bottom_right)"}) {
    CHECK(last_packs(mask, 64, 1000, 512) == 3 * 132 / 6);  // of ceil(1000 / 192) tiles
    CHECK(last_packs(mask, 1, 1000, 1000) == 8);            // all
    CHECK(last_packs(mask, 64, 192, 8192) == 8);            // of 2 MB
    CHECK(last_packs(mask, 64, 1000, 1 << 20) == 1);
    CHECK(last_packs(mask, 64, 0, 0) == 3 * 132);
  }
}

TEST_CASE("the last heads begin where the others' tiles end") {
  const ForwardPlan plan = wgmma_plan_of("head_dim = 128; v = e4m3; mask = causal(top_left)");
  std::array<int64_t, kNumSymbols> values{2, 8, 4, 1000, 1000};
  values[static_cast<size_t>(Symbol::kNumSms)] = 6;
  const auto value = [&](std::string_view name) {
    return find_param(plan, "attention", name).value.evaluate(values);
  };
  CHECK(value("row_tiles") == 6);  // of 192
  CHECK(value("num_tiles") == 2 * 8 * 6);
  CHECK(value("last_packs") == 3 * 6 / 6);
  CHECK(value("first_last_pack") == 2 * 8 - 3);
  CHECK(value("first_last_tile") == (2 * 8 - 3) * 6);
}

TEST_CASE("query heads that share K and V are packed where tiles are few rows and many") {
  const auto plan = wgmma_plan_of("head_dim = 64; v = e4m3", "pack_heads=1");
  const auto value = [&](std::string_view kernel, std::string_view name, int64_t b, int64_t hq,
                         int64_t hkv, int64_t m) {
    std::array<int64_t, kNumSymbols> values{b, hq, hkv, m, 1000};
    values[static_cast<size_t>(Symbol::kNumSms)] = 132;
    return find_param(plan, kernel, name).value.evaluate(values);
  };
  const auto packed = [&](int64_t b, int64_t hq, int64_t hkv, int64_t m) {
    return value("attention", "packed_heads", b, hq, hkv, m);
  };
  CHECK(packed(16, 32, 8, 1) == 4);
  CHECK(packed(16, 32, 8, 144) == 4);  // of 192 rows
  CHECK(packed(16, 32, 8, 145) == 1);
  CHECK(packed(4, 32, 8, 1) == 1);  // 128 tiles run at once on 132 multiprocessors
  CHECK(packed(5, 32, 8, 1) == 4);
  CHECK(packed(16, 32, 32, 1) == 1);
  CHECK(packed(16, 32, 8, 0) == 4);        // of no tokens
  CHECK(packed(1, 120'000, 1, 144) == 1);  // too many rows to divide

  CHECK(value("attention", "packs", 16, 32, 8, 100) == 8);
  CHECK(value("attention", "pack_rows", 16, 32, 8, 100) == 400);
  CHECK(value("attention", "row_tiles", 16, 32, 8, 100) == 3);
  CHECK(value("attention", "num_tiles", 16, 32, 8, 100) == 16 * 8 * 3);
  // Of 576 rows the last head has 100 and what is past the end: two tiles of 256 rows.
  CHECK(value("attention", "padded_m", 16, 32, 8, 100) == 576);
  CHECK(value("prepare", "padded_m", 16, 32, 8, 100) == 576);
  CHECK(value("prepare", "q_tiles", 16, 32, 8, 100) == 2);
  CHECK(value("prepare", "packed_heads", 16, 32, 8, 100) == 4);

  for (int64_t m = 1; m <= 144; ++m) {
    for (const int64_t group : {1, 2, 7, 64, 1000}) {
      INFO("m " << m << ", group " << group);
      const int64_t reciprocal = value("attention", "token_reciprocal", 132, group, 1, m);
      const int64_t heads = packed(132, group, 1, m);
      for (int64_t row = 0; row < m * heads; ++row) {  // packed_heads.cc
        if ((2 * row + 2) * reciprocal >> 32 != (reciprocal ? row / m : 0)) FAIL("row " << row);
      }
    }
  }
  CHECK_FALSE(has_param(wgmma_plan_of("head_dim = 64; v = e4m3"), "attention", "packed_heads"));
}

TEST_CASE("the wgmma kernel waits head by head only for the launch that counts them") {
  const auto waits = [](std::string_view entries) {
    const ForwardPlan plan = wgmma_plan_of(entries);
    CHECK(plan.attends_by_head() == (plan.find_launch("prepare") != nullptr));
    return has_param(plan, "attention", "prepare_counters");
  };
  CHECK(waits("head_dim = 64; smooth_k = mean"));
  CHECK(waits("head_dim = 64; v = e4m3"));
  CHECK_FALSE(waits("head_dim = 64"));
  CHECK_FALSE(waits("head_dim = 64; k = int8 per head; smooth_k = mean"));
  CHECK_FALSE(
      has_param(plan_of("head_dim = 64; smooth_k = mean"), "attention", "prepare_counters"));
}

TEST_CASE("a schedule of the wrong family is refused") {
  const auto message = [](std::string_view entries, std::string_view schedule) {
    return thrown_by([&] { wgmma_plan_of(entries, schedule); }).message();
  };
  CHECK_THAT(message("head_dim = 64; v = e4m3", "wgmma=0"),
             Catch::EndsWith("without wgmma, sm_90a has no products of 8-bit floats"));
  CHECK_THAT(message("head_dim = 64; input = bf16; v = f16", "wgmma=0"),
             Catch::EndsWith("without wgmma, V of 16 bits must have the type of the input"));
}

TEST_CASE("a plan is refused for a variant or a schedule that the target cannot have") {
  Variant v = resolve_variants("v.attn", "v { head_dim = 64 }").at(0);
  const Target& target = find_target("sm_80");
  const Error schedule = thrown_by([&] { make_forward_plan(v, {.stages = 1}, target); });
  CHECK(schedule.kind() == ErrorKind::kUnsupported);
  CHECK_THAT(schedule.message(), Catch::EndsWith("is not possible: stages must be at least 2"));
  v.score.softcap = 30;
  const Error variant = thrown_by([&] { make_forward_plan(v, {}, target); });
  CHECK(variant.kind() == ErrorKind::kUnsupported);
  CHECK_THAT(variant.message(), Catch::Contains("scores must not be capped"));
}

}  // namespace sagejit
