// Every choice of the language that is generated, against float64 and the model of the variant.
#include <fmt/format.h>

#include "tests/emulated/lab.h"
#include "tests/emulated/table.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr reference::ProblemShape kSmall = {.b = 2, .hq = 4, .hkv = 2, .m = 150, .n = 200};

constexpr std::string_view kQGranularities[] = {"tensor",   "head",       "block(128)",
                                                "warp(32)", "thread(32)", "token"};
constexpr std::string_view kKGranularities[] = {"tensor",   "head",       "block(64)",
                                                "warp(16)", "thread(64)", "token"};

TEST_CASE("every granularity of Q with every granularity of K", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view q : kQGranularities) {
    for (const std::string_view k : kKGranularities) {
      cases.push_back({fmt::format("head_dim = 64; lse = on; q = int8 per {}; k = int8 per {}; "
                                   "smooth_k = mean",
                                   q, k),
                       kSmall, "biased_k"});
    }
  }
  run_cases(cases);
}

TEST_CASE("spans away from the defaults", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const auto& [q, k] :
       {std::pair("block(16)", "block(128)"), std::pair("block(48)", "block(80)"),
        std::pair("warp(16)", "warp(112)"), std::pair("thread(16)", "thread(128)"),
        std::pair("thread(96)", "thread(16)"), std::pair("thread(128)", "block(16)")}) {
    cases.push_back({fmt::format("head_dim = 64; lse = on; q = int8 per {}; k = int8 per {}; "
                                 "smooth_k = mean; mask = causal(bottom_right)",
                                 q, k),
                     {.b = 2, .hq = 2, .hkv = 1, .m = 200, .n = 300}});
  }
  run_cases(cases);
}

TEST_CASE("every accumulator of P V with both row sums", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view pv :
       {"f32", "f16", "f16 + f32 every 16", "f16 + f32 every 32", "f16 + f32 every 64",
        "f16 + f32 every 128", "f32 + f32 every 32", "f32 + f32 every 64"}) {
    for (const std::string_view sum : {"exact", "quantized"}) {
      const std::string body = fmt::format(
          "head_dim = 64; lse = on; smooth_k = mean; pv_accumulator = {}; row_sum = {}", pv, sum);
      cases.push_back({body, kSmall});
      cases.push_back({body, {.b = 1, .hq = 2, .hkv = 2, .m = 70, .n = 333}, "outlier_v"});
    }
  }
  run_cases(cases);
}

TEST_CASE("every type of input and output, with and without LSE and smoothing", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view input : {"f16", "bf16"}) {
    for (const std::string_view output : {"f16", "bf16", "f32"}) {
      for (const int i : {0, 1}) {
        cases.push_back({fmt::format("head_dim = 64; input = {}; output = {}; lse = {}; "
                                     "smooth_k = {}; row_sum = {}",
                                     input, output, i ? "on" : "off", i ? "none" : "mean",
                                     i ? "quantized" : "exact"),
                         kSmall});
      }
    }
  }
  cases.push_back({"head_dim = 64", kSmall});
  cases.push_back({"head_dim = 64; lse = on; smooth_k = mean; scale = 0.05", kSmall});
  cases.push_back(
      {"head_dim = 64; input = bf16; pv_accumulator = f32 + f32 every 32; lse = on; "
       "smooth_k = mean",
       kSmall, "biased_k"});
  run_cases(cases);
}

TEST_CASE("inputs that hurt", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view input : reference::input_names()) {
    for (const std::string_view pv : {"f32", "f16 + f32 every 64"}) {
      // Sums of 64 values near the f16 maximum overflow f16.
      if (input == "fp16_max" && pv != "f32") continue;
      for (const std::string_view k : {"block(64)", "token"}) {
        cases.push_back({fmt::format("head_dim = 64; lse = on; smooth_k = mean; k = int8 per {}; "
                                     "pv_accumulator = {}",
                                     k, pv),
                         {.b = 1, .hq = 4, .hkv = 4, .m = 130, .n = 270},
                         std::string(input)});
      }
    }
    cases.push_back({"head_dim = 64; lse = on; k = int8 per tensor; q = int8 per tensor",
                     {.b = 1, .hq = 4, .hkv = 4, .m = 130, .n = 270},
                     std::string(input)});
  }
  run_cases(cases);
}

TEST_CASE("head dims", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  const auto add = [&](int d, int dv, std::string_view pv) {
    const std::string body = fmt::format(
        "head_dim = {}; value_head_dim = {}; lse = on; "
        "smooth_k = mean; pv_accumulator = {}",
        d, dv, pv);
    cases.push_back({body, {.b = 1, .hq = 2, .hkv = 1, .m = 140, .n = 140}, "biased_k"});
    cases.push_back(
        {body, {.b = 1, .hq = 1, .hkv = 1, .m = 33, .n = 95}, "normal", Layout::kPadded});
  };
  for (const int d : {16, 24, 32, 40, 64, 72, 80, 96, 128, 160, 192, 256}) add(d, d, "f32");
  add(64, 128, "f16 + f32 every 64");
  add(128, 64, "f16 + f32 every 64");
  add(192, 128, "f32");
  add(40, 24, "f16");
  add(16, 256, "f32");
  add(256, 16, "f16 + f32 every 32");
  add(72, 80, "f32 + f32 every 64");
  run_cases(cases);
}

}  // namespace
}  // namespace sagejit::test
