// e4m3 Q and K, and e5m2 P and V, by mma.sync and by wgmma: every choice of the language that they
// are generated for, against float64 and the model of the variant.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "tests/emulated/judge.h"
#include "tests/emulated/table.h"
#include "tests/reference/attention.h"
#include "tests/reference/metrics.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr reference::ProblemShape kSmall = {.b = 2, .hq = 4, .hkv = 2, .m = 150, .n = 200};
constexpr std::string_view kSmoothed = "lse = on; smooth_k = mean; ";

// What Q K^T in e4m3 stands beside.
constexpr std::string_view kProducts[] = {
    "", "v = e4m3; pv_accumulator = f32 + f32 every 64", "p = int8; v = int8",
    "p = e4m3 range 16; v = e4m3; smooth_v = mean; rescale_threshold = 4",
    "p = e4m3 range 16 direct; v = e4m3; row_sum = quantized; rescale_threshold = 4"};
// Pairs of 8-bit floats; sums of rows before and after P is rounded.
constexpr std::string_view kPairs[] = {
    "p = e5m2; v = e5m2; pv_accumulator = f32 + f32 every 64",
    "p = e5m2; v = e4m3; row_sum = quantized; pv_accumulator = f32 + f32 every 64",
    "p = e4m3; v = e5m2; row_sum = quantized; smooth_v = mean",
    "p = e5m2 range 16; v = e4m3; smooth_v = mean; rescale_threshold = 8"};

std::string scores_of(std::string_view products, std::string_view more = "", int head_dim = 64) {
  return fmt::format("head_dim = {}; {}{}; q = e4m3 per thread(32); k = e4m3 per thread(64); {}",
                     head_dim, kSmoothed, products, more);
}

// The same rows for both families.
void run_on_both(const std::vector<Case>& cases) {
  run_cases(cases, Lab::mma_sync_e4m3());
  run_cases(cases, Lab::wgmma());
}

TEST_CASE("e4m3 Q K: every granularity of both", "[emulated][fp8]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr std::string_view kScales[] = {
      "q = {0} per tensor; k = {0} per thread(64)",    "q = {0} per head; k = {0} per token",
      "q = {0} per block(128); k = {0} per tensor",    "q = {0} per warp(48); k = {0} per head",
      "q = {0} per thread(32); k = {0} per block(64)", "q = {0} per token; k = {0} per warp(80)"};
  std::vector<Case> cases;
  size_t i = 0;
  // int8 for comparison: what one has the other has.
  for (const std::string_view type : {"e4m3", "int8"}) {
    for (const std::string_view scales : kScales) {
      const std::string body = fmt::format("head_dim = 64; {}{}; {}", kSmoothed, kProducts[i++ % 5],
                                           fmt::format(fmt::runtime(scales), type));
      cases.push_back({body, kSmall, "biased_k"});
    }
  }
  run_on_both(cases);
}

TEST_CASE("e4m3 Q K: lengths under masks, beside every P and V", "[emulated][fp8]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr std::string_view kMasks[] = {"none", "causal(top_left)", "causal(bottom_right)",
                                         "window(40, 0)"};
  constexpr std::pair<int64_t, int64_t> kLengths[] = {
      {1, 1}, {1, 129}, {7, 65}, {63, 64}, {64, 63}, {65, 7}, {127, 129}, {129, 127}, {70, 0}};
  std::vector<Case> cases;
  size_t i = 0;
  for (const std::string_view mask : kMasks) {
    for (const auto& [m, n] : kLengths) {
      cases.push_back({scores_of(kProducts[i++ % 5], fmt::format("mask = {}", mask)),
                       {.b = 1, .hq = 2, .hkv = 1, .m = m, .n = n}});
    }
  }
  for (const std::string_view products : kProducts) {
    cases.push_back({scores_of(products), {.b = 1, .hq = 1, .hkv = 1, .m = 65, .n = 1000}});
  }
  run_on_both(cases);
}

TEST_CASE("e4m3 Q K: smoothed Q, rotation, types of input and output", "[emulated][fp8]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr std::string_view kRows[] = {"smooth_q = mean",
                                        "smooth_q = mean per block(64); input = bf16",
                                        "smooth_q = mean; hadamard = on; output = f32",
                                        "hadamard = on; input = bf16; output = f16; scale = 0.2"};
  std::vector<Case> cases;
  size_t i = 0;
  for (const std::string_view row : kRows) {
    for (int repeat = 0; repeat < 2; ++repeat) {
      cases.push_back({scores_of(kProducts[i++ % 5], row), kSmall, "biased_qk"});
    }
  }
  run_on_both(cases);
}

TEST_CASE("e4m3 Q K and e5m2 P V: inputs that hurt", "[emulated][fp8]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  size_t i = 0;
  for (const std::string_view input : reference::input_names()) {
    const reference::ProblemShape shape = {.b = 1, .hq = 4, .hkv = 4, .m = 70, .n = 200};
    cases.push_back({scores_of(kProducts[i % 5]), shape, std::string(input)});
    cases.push_back({scores_of(kPairs[i++ % 4]), shape, std::string(input)});
  }
  run_on_both(cases);
}

TEST_CASE("e4m3 Q K and e5m2 P V: head dims and layouts", "[emulated][fp8]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  size_t i = 0;
  for (const auto& [d, dv] : {std::pair(16, 16), std::pair(40, 72), std::pair(96, 96),
                              std::pair(128, 128), std::pair(192, 128), std::pair(256, 64)}) {
    const std::string more = fmt::format("value_head_dim = {}; mask = causal(bottom_right)", dv);
    const reference::ProblemShape shape = {.b = 1, .hq = 4, .hkv = 1, .m = 140, .n = 140};
    cases.push_back({scores_of(kProducts[i % 5], more, d), shape, "biased_k", Layout::kPadded});
    cases.push_back({fmt::format("head_dim = {}; {}{}; {}", d, kSmoothed, kPairs[i++ % 4], more),
                     shape, "biased_k", Layout::kBthd});
  }
  run_on_both(cases);
}

TEST_CASE("8-bit floats of P and V: every pair, with both row sums", "[emulated][fp8]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view pair : kPairs) {
    const std::string body = fmt::format("head_dim = 64; {}{}", kSmoothed, pair);
    cases.push_back({body, kSmall, "biased_k"});
    cases.push_back({body + "; mask = causal(top_left)",
                     {.b = 1, .hq = 2, .hkv = 2, .m = 70, .n = 333},
                     "outlier_v"});
  }
  run_on_both(cases);
  // By mma.sync alone: sums in f16.
  run_cases({{fmt::format("head_dim = 64; {}p = e5m2 range 448; v = e4m3 range 2.25; "
                          "pv_accumulator = f16 + f32 every 64",
                          kSmoothed),
              kSmall, "biased_k"},
             {fmt::format("head_dim = 64; {}p = e4m3 range 224; v = e5m2 range 4; row_sum = "
                          "quantized; pv_accumulator = f16 + f32 every 64",
                          kSmoothed),
              kSmall, "biased_k"}},
            Lab::mma_sync_e4m3());
}

TEST_CASE("e4m3 Q K and e5m2 P V: on sm_120", "[emulated][fp8]") {
  Lab& lab = Lab::emulated("sm_120");
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const std::string_view products : kProducts) {
    cases.push_back({scores_of(products, "mask = causal(bottom_right)"), kSmall, "biased_k"});
  }
  for (const std::string_view pair : kPairs) cases.push_back({scores_of(pair), kSmall, "biased_k"});
  run_cases(cases, lab);
}

TEST_CASE("e4m3 Q K: schedules of warpgroups", "[emulated][fp8]") {
  if (!Lab::wgmma().ready()) return;
  std::vector<Case> cases;
  for (const int overlap : {0, 1}) {
    for (const int num_warps : {4, 8, 12}) {
      for (const std::string_view products : {kProducts[0], kProducts[3], kPairs[3]}) {
        cases.push_back({scores_of(products, "mask = causal(bottom_right)"),
                         {.b = 1, .hq = 2, .hkv = 1, .m = 200, .n = 300},
                         "biased_k",
                         Layout::kBhtd,
                         wgmma_schedule(num_warps, 64, overlap)});
      }
    }
  }
  run_cases(cases, Lab::wgmma());
}

// Codes carry no NaN or infinity: scales do, to every row that sees the key.
TEST_CASE("e4m3 Q K: an infinity leaves no row finite that sees it", "[emulated][fp8]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr int64_t kRows = 70, kAt = 40, kDims = 32;
  const Variant variant = variant_of(
      "head_dim = 32; output = f32; mask = causal(top_left); q = e4m3 per token; k = e4m3 per "
      "token");
  for (Lab* lab : {&Lab::mma_sync_e4m3(), &Lab::wgmma()}) {
    for (const bool in_k : {false, true}) {
      CAPTURE(lab->device()->info().name, in_k);
      const reference::ProblemShape shape = {
          .b = 1, .hq = 1, .hkv = 1, .m = kRows, .n = kRows, .d = kDims, .dv = kDims};
      Inputs inputs = make_inputs("normal", shape, variant.input, 3);
      (in_k ? inputs.k : inputs.q).set(0, 0, kAt, 5, std::numeric_limits<double>::infinity());
      Problem problem(*lab->kernel(variant), inputs);
      problem.launch();
      const std::vector<double> o = problem.o().to_f64();
      for (int64_t i = 0; i < kRows; ++i) {
        const bool is_hit = in_k ? i >= kAt : i == kAt;
        for (int64_t c = 0; c < kDims; ++c) {
          CAPTURE(i, c);
          REQUIRE(std::isnan(o[static_cast<size_t>(i * kDims + c)]) == is_hit);
        }
      }
    }
  }
}

// What numerics.md says of e4m3 scores, 4.4: products have too few bits to lose any, unless they
// are more than 2^7 times smaller than what they are added to. A channel of K that is a thousand
// times the others makes them so, and smoothing K takes it away.
TEST_CASE("e4m3 Q K: what 13 bits of a score lose", "[emulated][fp8]") {
  if (!Lab::mma_sync().ready()) return;
  const auto lse_shift = [&](std::string_view smoothing, double offset, double outlier) {
    const Variant variant = variant_of(fmt::format(
        "head_dim = 128; lse = on; q = e4m3 per token; k = e4m3 per token; smooth_k = {}",
        smoothing));
    const reference::ProblemShape shape = {
        .b = 1, .hq = 1, .hkv = 1, .m = 16, .n = 64, .d = 128, .dv = 128};
    Inputs inputs = make_inputs("normal", shape, variant.input, 5);
    for (HostTensor* x : {&inputs.q, &inputs.k}) {
      for (int64_t t = 0; t < x->shape()[2]; ++t) {
        for (int64_t c = 0; c < 128; ++c)
          x->set(0, 0, t, c, std::fabs(x->get(0, 0, t, c)) + offset);
        if (x == &inputs.k) x->set(0, 0, t, 0, x->get(0, 0, t, 0) + outlier);
      }
    }
    std::vector<std::vector<double>> lse;
    for (const char* target : {"sm_89", "sm_120"}) {
      Problem problem(*Lab::emulated(target).kernel(variant), inputs);
      problem.launch();
      lse.push_back(problem.lse().to_f64());
    }
    return reference::max_lse_error(lse[0], lse[1]);
  };
  CHECK(lse_shift("none", 0, 0) < 0.01);
  CHECK(lse_shift("none", 8, 0) < 0.1);  // of more than 700
  CHECK(lse_shift("none", 0, 2000) > 0.3);
  CHECK(lse_shift("mean", 0, 2000) < 0.01);
}

}  // namespace
}  // namespace sagejit::test
