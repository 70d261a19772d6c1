// The wgmma kernel: every choice of the language that it is generated for, against float64 and the
// model of the variant.
//
// Choices that do not meet in the generator (types, granularities, tiles, order) are varied
// together, one table for each, so that every pair of neighbours occurs and the suite stays fast.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "tests/emulated/judge.h"
#include "tests/emulated/table.h"
#include "tests/reference/attention.h"
#include "tests/reference/metrics.h"
#include "tests/reference/quantized_attention.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr reference::ProblemShape kSmall = {.b = 2, .hq = 4, .hkv = 2, .m = 150, .n = 200};

constexpr std::string_view kSmoothed = "lse = on; smooth_k = mean; ";
constexpr std::string_view kHalf = "input = f16", kBrain = "input = bf16",
                           kBytes = "p = e4m3 range 448; v = e4m3 per channel",
                           kConverted = "input = bf16; p = f16; v = f16";
constexpr std::string_view kDirect =
    "p = e4m3 range 16 direct; v = e4m3 per channel; row_sum = quantized; rescale_threshold = 4";
constexpr std::string_view kSummed =
    "p = e4m3 range 448; v = e4m3 per channel; row_sum = quantized";
constexpr std::string_view kHalfSummed = "input = f16; row_sum = quantized",
                           kBrainSummed = "input = bf16; row_sum = quantized";
constexpr std::string_view kSigned = "p = int8; v = int8",
                           kUnsigned = "p = uint8; v = int8; smooth_v = mean";
constexpr std::string_view kTypes[] = {kHalf, kBytes, kBrain, kConverted, kDirect};

TEST_CASE("wgmma: every granularity of Q with every granularity of K", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  constexpr std::string_view kQ[] = {"tensor",   "head",       "block(128)",
                                     "warp(32)", "thread(32)", "token"};
  constexpr std::string_view kK[] = {"tensor",   "head",       "block(64)",
                                     "warp(16)", "thread(64)", "token"};
  const Schedule schedules[] = {wgmma_schedule(4, 64), wgmma_schedule(8, 32, true),
                                wgmma_schedule(12, 96), wgmma_schedule(4, 128, true),
                                wgmma_schedule(8, 64)};
  std::vector<Case> cases;
  for (size_t q = 0; q < std::size(kQ); ++q) {
    for (size_t k = 0; k < std::size(kK); ++k) {
      cases.push_back({fmt::format("head_dim = 32; {}q = int8 per {}; k = int8 per {}; {}",
                                   kSmoothed, kQ[q], kK[k], kTypes[(q + k) % 5]),
                       kSmall, "biased_k", Layout::kBhtd, schedules[(2 * q + k) % 5]});
    }
  }
  run_cases(cases, lab);
}

TEST_CASE("wgmma: int4 Q and K, one code to a byte", "[emulated][wgmma][int4]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  constexpr std::string_view kScales[][2] = {{"thread(32)", "thread(64)"},
                                             {"token", "token"},
                                             {"block(128)", "block(64)"},
                                             {"head", "warp(16)"},
                                             {"tensor", "head"}};
  std::vector<Case> cases;
  for (size_t i = 0; i < std::size(kScales); ++i) {
    cases.push_back(
        {fmt::format("head_dim = {}; {}q = int4 per {}; k = int4 per {}; {}", i % 2 ? 40 : 64,
                     kSmoothed, kScales[i][0], kScales[i][1], kTypes[i]),
         kSmall, "biased_k", Layout::kBhtd, wgmma_schedule(4 + 4 * (i % 3), 64, i % 2)});
  }
  run_cases(cases, lab);
}

TEST_CASE("wgmma: smoothed Q", "[emulated][wgmma][smooth_q]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  struct Row {
    std::string_view q, k, rest;
    Schedule schedule;
  };
  const Row rows[] = {
      {"int4 per thread(32)", "int4 per thread(64)", "smooth_q = mean", wgmma_schedule(12, 128)},
      {"int4 per token", "int4 per token", "smooth_q = mean per block(64); mask = causal(top_left)",
       wgmma_schedule(8, 64, true)},
      {"int4 per block(128)", "int4 per block(64)",
       "smooth_q = mean per block(192); mask = causal(bottom_right)",
       wgmma_schedule(12, 96, true, 3)},
      {"int4 per warp(48)", "int4 per head", "smooth_q = mean; mask = window(70, 20)",
       wgmma_schedule(4, 32)},
      {"int4 per head", "int4 per tensor", "smooth_q = mean",
       wgmma_schedule(8, 128, false, 2, true)},
      {"int8 per thread(32)", "int8 per thread(64)", "smooth_q = mean per block(64)",
       wgmma_schedule(12, 64, true)},
      {"int8 per tensor", "int8 per token", "smooth_q = mean", wgmma_schedule(4, 160, true)},
  };
  std::vector<Case> cases;
  int i = 0;
  for (const Row& row : rows) {
    const std::string body = fmt::format(
        "head_dim = {}; lse = on; smooth_k = {}; q = {}; k = {}; {}; {}", i % 3 ? 32 : 72,
        i == 6 ? "none" : "mean", row.q, row.k, kTypes[i % 5], row.rest);
    ++i;
    cases.push_back({body, kSmall, "biased_qk", Layout::kBhtd, row.schedule});
    for (const auto& [m, n] : {std::pair(1, 129), {129, 1}, {333, 70}, {65, 300}, {70, 0}}) {
      cases.push_back({body,
                       {.b = 1, .hq = 4, .hkv = 2, .m = m, .n = n},
                       "normal",
                       Layout::kPadded,
                       row.schedule});
    }
  }
  run_cases(cases, lab);
}

TEST_CASE("wgmma: spans away from the defaults", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  int i = 0;
  for (const auto& [q, k, block_n] : {std::tuple("block(16)", "block(128)", 96),
                                      {"block(48)", "block(80)", 160},
                                      {"warp(16)", "warp(112)", 192},
                                      {"thread(16)", "thread(128)", 64},
                                      {"thread(96)", "thread(16)", 160},
                                      {"thread(128)", "block(16)", 96},
                                      {"token", "token", 224},
                                      {"token", "thread(48)", 96}}) {
    cases.push_back({fmt::format("head_dim = 32; {}q = int8 per {}; k = int8 per {}; "
                                 "mask = causal(bottom_right); {}",
                                 kSmoothed, q, k, kTypes[i % 5]),
                     {.b = 2, .hq = 2, .hkv = 1, .m = 200, .n = 300},
                     "normal",
                     Layout::kBhtd,
                     wgmma_schedule(4 + 4 * (i % 3), block_n, i % 2)});
    ++i;
  }
  run_cases(cases, lab);
}

// Two levels: an interval is a part of a key tile, or several of them; under a window's mask rows
// start in the middle of one.
TEST_CASE("wgmma: every accumulator of P V", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  struct Row {
    std::string_view types, accumulator;
    int block_n;
    int overlap;
    std::string_view mask = "none";
  };
  constexpr Row kRows[] = {{kHalf, "f32", 64, 0},
                           {kHalf, "f32", 64, 1},
                           {kHalf, "f16", 64, 0},
                           {kHalf, "f16", 96, 1},
                           {kHalf, "f16 + f32 every 16", 64, 0},
                           {kHalf, "f16 + f32 every 64", 128, 0},
                           {kHalf, "f16 + f32 every 64", 64, 1},
                           {kHalf, "f16 + f32 every 128", 64, 1, "window(100, 20)"},
                           {kHalf, "f32 + f32 every 32", 64, 0},
                           {kHalf, "f32 + f32 every 128", 128, 1},
                           {kBrain, "f32", 96, 1},
                           {kBrain, "f32 + f32 every 64", 64, 1},
                           {kBrain, "f32 + f32 every 32", 96, 0},
                           {kBrain, "f32 + f32 every 128", 32, 1, "causal(bottom_right)"},
                           {kConverted, "f32 + f32 every 64", 64, 0},
                           {kBytes, "f32", 128, 0},
                           {kBytes, "f32", 64, 1},
                           {kBytes, "f32 + f32 every 32", 96, 0},
                           {kBytes, "f32 + f32 every 64", 32, 0, "window(70, 40)"},
                           {kBytes, "f32 + f32 every 64", 64, 1},
                           {kBytes, "f32 + f32 every 64", 128, 0},
                           {kBytes, "f32 + f32 every 128", 64, 1, "window(70, 40)"},
                           {kBytes, "f32 + f32 every 256", 64, 1},
                           {kSummed, "f32", 96, 0},
                           {kSummed, "f32 + f32 every 32", 64, 0, "window(70, 40)"},
                           {kSummed, "f32 + f32 every 128", 64, 1},
                           {kHalfSummed, "f16", 64, 1},
                           {kHalfSummed, "f16 + f32 every 64", 128, 0},
                           {kBrainSummed, "f32", 64, 0, "causal(bottom_right)"},
                           {kDirect, "f32", 128, 0},
                           {kDirect, "f32", 64, 1, "window(70, 40)"},
                           {kDirect, "f32 + f32 every 32", 96, 0},
                           {kDirect, "f32 + f32 every 64", 64, 1},
                           {kDirect, "f32 + f32 every 128", 64, 1, "window(70, 40)"},
                           {kSigned, "s32 + f32 every 32", 96, 0, "window(70, 40)"},
                           {kSigned, "s32 + f32 every 64", 64, 1},
                           {kSigned, "s32 + f32 every 64", 128, 0},
                           {kUnsigned, "s32 + f32 every 128", 128, 1, "window(70, 40)"},
                           {kUnsigned, "s32 + f32 every 64", 64, 0, "causal(bottom_right)"},
                           {kUnsigned, "s32 + f32 every 32", 64, 0}};
  std::vector<Case> cases;
  for (const Row& row : kRows) {
    const std::string body = fmt::format("head_dim = 32; {}{}; pv_accumulator = {}; mask = {}",
                                         kSmoothed, row.types, row.accumulator, row.mask);
    const Schedule schedule = wgmma_schedule(4, row.block_n, row.overlap);
    cases.push_back({body, kSmall, "biased_k", Layout::kBhtd, schedule});
    cases.push_back({body,
                     {.b = 1, .hq = 2, .hkv = 2, .m = 70, .n = 333},
                     "outlier_v",
                     Layout::kBhtd,
                     schedule});
  }
  run_cases(cases, lab);
}

// What numerics.md says of e4m3 products, 4.2: the tensor core's cut off bits are of one sign where
// V has a mean, and add up over a row; over an interval they do not matter.
TEST_CASE("wgmma: what one level of accumulators loses of e4m3 products", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  const auto error_of = [&](std::string_view accumulator, int64_t n) {
    const Variant variant = variant_of(
        fmt::format("head_dim = 32; {}q = int8 per thread(32); k = int8 per thread(64); p = e4m3 "
                    "range 16; v = e4m3 per channel; rescale_threshold = 4; pv_accumulator = {}",
                    kSmoothed, accumulator));
    const auto kernel = lab.kernel(lab.request(variant, wgmma_schedule(4, 64)));
    const reference::ProblemShape shape = {
        .b = 1, .hq = 2, .hkv = 2, .m = 64, .n = n, .d = 32, .dv = 32};
    Problem problem(*kernel, make_inputs("outlier_v", shape, variant.input, 20241));
    problem.launch();
    CHECK(judge(variant, problem, demand_for(variant, "outlier_v")) == std::vector<std::string>{});
    const Inputs& in = problem.inputs();
    const reference::AttentionResult exact = reference::exact_attention(variant, in.q, in.k, in.v);
    return reference::compare_output({1, 2, 64, 32}, problem.o().to_f64(), exact.o)
        .overall.relative_l1;
  };
  for (const auto& [n, least, most] :
       {std::tuple(512, 0.005, 0.009), {2048, 0.03, 0.042}, {8192, 0.12, 0.18}}) {
    CAPTURE(n);
    const double one = error_of("f32", n), two = error_of("f32 + f32 every 64", n);
    CHECK(one > least);
    CHECK(one < most);
    CHECK(two < 0.003);
  }
}

TEST_CASE("wgmma: every type of input and output, with and without LSE and smoothing",
          "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  int i = 0;
  for (const std::string_view types : {kHalf, kBrain, kBytes, kSigned}) {
    for (const std::string_view output : {"f16", "bf16", "f32"}) {
      cases.push_back({fmt::format("head_dim = 40; {}; output = {}; lse = {}; smooth_k = {}", types,
                                   output, i % 2 ? "on" : "off", i % 4 < 2 ? "none" : "mean"),
                       kSmall, "normal", Layout::kBhtd, wgmma_schedule(8, 64, i % 3 == 1)});
      ++i;
    }
  }
  cases.push_back({fmt::format("head_dim = 64; {}scale = 0.05", kSmoothed), kSmall, "normal",
                   Layout::kBhtd, wgmma_schedule(8, 64)});
  cases.push_back({fmt::format("head_dim = 64; {}{}; input = bf16", kSmoothed, kBytes), kSmall,
                   "biased_k", Layout::kBhtd, wgmma_schedule(8, 64)});
  run_cases(cases, lab);
}

// In one key tile P is relative to the final maximum, as the model's is: their codes are the same
// but for the few that the last bits of an exponent turn over, and nothing averages out. What is
// left is cut off by the tensor core. A wrong offset, clamp or sum is far outside.
TEST_CASE("wgmma: codes of P written directly are the model's", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  constexpr int kBlock = 64;
  // Of 64 keys: their products (model_tolerance), and their P in the row sum.
  constexpr double kCutOff = 0x1p-13 * kBlock;
  for (const std::string_view scale : {"1/sqrt(head_dim)", "1.0"}) {  // most P large; most 0
    for (const std::string_view p :
         {"range 448 direct", "range 16 direct; rescale_threshold = 4", "range 0.1 direct"}) {
      for (const int n : {kBlock, 50}) {
        CAPTURE(scale, p, n);
        const Variant variant = variant_of(
            fmt::format("head_dim = 32; lse = on; output = f32; scale = {}; p = e4m3 {}; "
                        "v = e4m3 per channel; row_sum = quantized",
                        scale, p));
        const auto kernel = lab.kernel(lab.request(variant, wgmma_schedule(4, kBlock)));
        const reference::ProblemShape shape = {
            .b = 1, .hq = 2, .hkv = 2, .m = 64, .n = n, .d = 32, .dv = 32};
        Problem problem(*kernel, make_inputs("normal", shape, variant.input, 7));
        problem.launch();
        const Inputs& in = problem.inputs();
        const reference::AttentionResult model =
            reference::quantized_attention(variant, in.q, in.k, in.v, {}, {}, kBlock);
        const std::vector<double> o = problem.o().to_f64(), lse = problem.lse().to_f64();
        const double rmse = reference::compare_output({1, 2, 64, 32}, o, model.o).overall.rmse;
        double squares = 0;
        for (const double x : model.o) squares += x * x;
        CHECK(rmse < kCutOff * std::sqrt(squares / static_cast<double>(o.size())));
        CHECK(reference::max_lse_error(lse, model.lse) < kCutOff);
      }
    }
  }
}

// The maximum that P is relative to may be outgrown by 2^threshold: P's range must leave room.
TEST_CASE("wgmma: maxima that are renewed late", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const std::string_view types :
       {std::string_view("p = e4m3 range 16; v = e4m3 per channel; rescale_threshold = 4"), kDirect,
        std::string_view("p = e4m3 range 448 direct; v = e4m3 per channel; row_sum = quantized"),
        std::string_view("p = e4m3 range 448; v = e4m3 per channel; rescale_threshold = 0"),
        std::string_view("p = uint8 range 31; v = int8; rescale_threshold = 3"),
        std::string_view("input = f16; rescale_threshold = 4"),
        std::string_view(
            "input = bf16; rescale_threshold = 8; pv_accumulator = f32 + f32 every 64"),
        std::string_view("input = f16; rescale_threshold = 4; pv_accumulator = f16")}) {
    for (const int overlap : {0, 1}) {
      for (const std::string_view mask : {"none", "causal(bottom_right)"}) {
        const std::string body =
            fmt::format("head_dim = 32; {}{}; mask = {}", kSmoothed, types, mask);
        const Schedule schedule = wgmma_schedule(8, 64, overlap);
        for (const std::string_view input : {"normal", "sink", "biased_k"}) {
          cases.push_back({body,
                           {.b = 1, .hq = 2, .hkv = 1, .m = 140, .n = 520},
                           std::string(input),
                           Layout::kBhtd,
                           schedule});
        }
      }
    }
  }
  run_cases(cases, lab);
}

// Maxima that f32 holds in steps of hundreds: the largest P of a row is still 1, and the others 0.
// With an offset of the multiply-add that is off by as much, codes would be anything.
TEST_CASE("wgmma: scores beyond the precision of f32", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const std::string_view types : {kDirect, kBytes, kHalf}) {
    for (const std::string_view k : {"block(64)", "token"}) {
      if (k == "token" && types != kDirect) continue;
      for (const auto& [scale, overlap] :
           {std::pair("3e9", 0), std::pair("1e7", 0), std::pair("3e9", 1), std::pair("1e7", 1)}) {
        cases.push_back({fmt::format("head_dim = 32; lse = on; scale = {}; mask = "
                                     "causal(bottom_right); k = int8 per {}; {}",
                                     scale, k, types),
                         {.b = 1, .hq = 2, .hkv = 1, .m = 140, .n = 520},
                         "outlier_v",
                         Layout::kBhtd,
                         wgmma_schedule(8, 64, overlap)});
      }
    }
  }
  run_cases(cases, lab);
}

// Grids of the exponents' offsets from next to nothing to the coarsest, and factors that change
// from tile to tile, so that they do.
TEST_CASE("wgmma: factors of every size", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const std::string_view types : {kDirect, kBytes, kHalf, kSigned, kUnsigned}) {
    for (const std::string_view scale : {"1e-3", "0.7", "5", "30", "150", "900"}) {
      for (const int overlap : {0, 1}) {
        for (const std::string_view input : {"normal", "growing"}) {
          cases.push_back({fmt::format("head_dim = 32; lse = on; scale = {}; mask = "
                                       "causal(bottom_right); k = int8 per thread(64); {}",
                                       scale, types),
                           {.b = 1, .hq = 1, .hkv = 1, .m = 70, .n = 400},
                           std::string(input),
                           Layout::kBhtd,
                           wgmma_schedule(8, 64, overlap)});
        }
      }
    }
  }
  run_cases(cases, lab);
}

// Maxima as large as one multiply-add may have: the largest P of a row must not be rounded to more
// than its type has, which in uint8 were 0. Codes are 127 throughout, a score 127^2 128, and its
// factor a little different in each row. All keys are alike: O is V's mean.
TEST_CASE("wgmma: the largest P of large scores is in its range", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  constexpr reference::ProblemShape kShape = {
      .b = 1, .hq = 16, .hkv = 1, .m = 64, .n = 64, .d = 128, .dv = 32};
  Inputs inputs = make_inputs("constant", kShape, DType::kF16, 1);
  for (int64_t h = 0; h < kShape.hq; ++h) {
    for (int64_t i = 0; i < kShape.m; ++i) {
      const double x = 1 + static_cast<double>(h * kShape.m + i) / 1024;  // in steps of f16
      for (int64_t c = 0; c < kShape.d; ++c) inputs.q.set(0, h, i, c, x);
    }
  }
  for (int64_t j = 0; j < kShape.n; ++j) {
    for (int64_t c = 0; c < kShape.d; ++c) inputs.k.set(0, 0, j, c, 1);
  }
  inputs.v = make_inputs("normal", kShape, DType::kF16, 1).v;
  for (const std::string_view p : {kUnsigned, kSigned, kDirect}) {
    for (const std::string_view scale : {"60", "90", "120", "240"}) {
      const Variant variant = variant_of(fmt::format(
          "head_dim = 128; value_head_dim = 32; q = int8 per token; k = int8 per block(64); "
          "scale = {}; output = f32; {}",
          scale, p));
      Problem problem(*lab.kernel(make_request(variant, wgmma_schedule(4, 64))), inputs);
      problem.launch();
      const HostTensor o = problem.o();
      int num_wrong = 0;
      for (int64_t h = 0; h < kShape.hq; ++h) {
        for (int64_t i = 0; i < kShape.m; ++i) {
          const double first = o.get(0, 0, 0, 7), error = std::fabs(o.get(0, h, i, 7) - first);
          if (!(error <= 0.01 * std::fabs(first) + 1e-3)) ++num_wrong;
        }
      }
      CAPTURE(p, scale);
      CHECK(num_wrong == 0);
    }
  }
}

// No factor tells how large these scores are: what smoothing took out of Q is in them.
TEST_CASE("wgmma: codes of large scores of smoothed Q", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const std::string_view scale : {"1e4", "1e7", "3e9"}) {
    cases.push_back({fmt::format("head_dim = 32; scale = {}; smooth_q = mean; "
                                 "smooth_k = mean; p = e4m3 range 448 direct; v = e4m3 per "
                                 "channel; row_sum = quantized",
                                 scale),
                     {.b = 1, .hq = 2, .hkv = 1, .m = 70, .n = 200},
                     "biased_qk",
                     Layout::kBhtd,
                     wgmma_schedule(4, 64)});
  }
  run_cases(cases, lab);
}

// The largest scale of the head is infinite then, and a row of zeros has a factor of 0.
TEST_CASE("wgmma: an infinity in K reaches no row that does not see it", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  constexpr int kAt = 130, kRows = 200;
  constexpr reference::ProblemShape kShape = {
      .b = 1, .hq = 1, .hkv = 1, .m = kRows, .n = kRows, .d = 32, .dv = 32};
  Inputs inputs = make_inputs("normal", kShape, DType::kF16, 1);
  inputs.k.set(0, 0, kAt, 5, std::numeric_limits<double>::infinity());
  for (int64_t i = 0; i < 32; ++i) {
    for (int64_t c = 0; c < kShape.d; ++c) inputs.q.set(0, 0, i, c, 0);
  }
  for (const std::string_view types : {kDirect, kBytes, kHalf}) {
    const Variant variant = variant_of(
        fmt::format("head_dim = 32; mask = causal(top_left); q = int8 per block(32); k = int8 per "
                    "block(64); output = f32; {}",
                    types));
    Problem problem(*lab.kernel(make_request(variant, wgmma_schedule(8, 64))), inputs);
    problem.launch();
    const HostTensor o = problem.o();
    constexpr int kFirstTouched = kAt / 64 * 64;  // keys of a scale group share the infinity
    for (int64_t i = 0; i < kRows; ++i) {
      CAPTURE(types, i);
      CHECK(std::isfinite(o.get(0, 0, i, 3)) == (i < kFirstTouched));
    }
  }
}

TEST_CASE("wgmma: inputs that hurt", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const std::string_view input : reference::input_names()) {
    for (const std::string_view types :
         {std::string_view("pv_accumulator = f32"), kBrain, kBytes, kDirect, kSigned, kUnsigned,
          std::string_view("pv_accumulator = f16 + f32 every 64"),
          std::string_view("p = e4m3 range 16; v = e4m3 per channel; rescale_threshold = 4"),
          std::string_view("p = e4m3 range 448; v = e4m3 per channel; smooth_v = mean")}) {
      // Sums of 64 values near the f16 maximum overflow f16.
      if (input == "fp16_max" && types.find("f16 + f32") != std::string_view::npos) continue;
      const std::string_view k = types == kBrain || types == kDirect ? "token" : "block(64)";
      cases.push_back({fmt::format("head_dim = 64; {}k = int8 per {}; {}", kSmoothed, k, types),
                       {.b = 1, .hq = 4, .hkv = 4, .m = 130, .n = 270},
                       std::string(input),
                       Layout::kBhtd,
                       wgmma_schedule(types == kHalf ? 4 : 8, 64, types == kBytes)});
    }
    for (const std::string_view types : {kBytes, kDirect}) {
      cases.push_back({fmt::format("head_dim = 64; lse = on; k = int8 per tensor; q = int8 per "
                                   "tensor; {}",
                                   types),
                       {.b = 1, .hq = 4, .hkv = 4, .m = 130, .n = 270},
                       std::string(input),
                       Layout::kBhtd,
                       wgmma_schedule(12, 128)});
    }
  }
  run_cases(cases, lab);
}

TEST_CASE("wgmma: head dims", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  int i = 0;
  const auto add = [&](int d, int dv, std::string_view types) {
    const int num_warps = d + dv > 256 ? 4 : 4 + 4 * (i % 3);
    const Schedule schedule = wgmma_schedule(num_warps, d + dv > 384 ? 32 : 64, i % 2);
    const std::string body =
        fmt::format("head_dim = {}; value_head_dim = {}; {}{}", d, dv, kSmoothed, types);
    cases.push_back({body,
                     {.b = 1, .hq = 2, .hkv = 1, .m = 140, .n = 140},
                     "biased_k",
                     Layout::kBhtd,
                     schedule});
    cases.push_back(
        {body, {.b = 1, .hq = 1, .hkv = 1, .m = 33, .n = 95}, "normal", Layout::kPadded, schedule});
    ++i;
  };
  for (const int d : {16, 24, 32, 40, 64, 72, 80, 96, 128, 160, 192, 256}) {
    add(d, d, kTypes[i % 3]);
    add(d, d, kDirect);
  }
  for (const int d : {16, 72, 128}) add(d, d, kUnsigned);
  add(64, 128, kDirect);
  add(128, 64, kHalf);
  add(192, 128, kBytes);
  add(40, 24, "input = f16; pv_accumulator = f16");
  add(16, 256, kBytes);
  add(256, 16, kBrain);
  add(72, 80, "input = f16; pv_accumulator = f32 + f32 every 64");
  run_cases(cases, lab);
}

}  // namespace
}  // namespace sagejit::test
