// 8-bit P and V by mma.sync, e4m3 and int8: every choice of the language that they are generated
// for, against float64 and the model of the variant.
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
// SageAttention 2, 2++, and what the fast and direct forms change; SageAttention 1, vT and vB.
constexpr std::string_view
    kTwoLevel = "v = e4m3; pv_accumulator = f32 + f32 every 64",
    kHalfSums = "p = e4m3 range 448; v = e4m3 range 2.25; pv_accumulator = f16 + f32 every 64",
    kFast = "p = e4m3 range 16; v = e4m3; smooth_v = mean; rescale_threshold = 4",
    kDirect = "p = e4m3 range 16 direct; v = e4m3; row_sum = quantized; rescale_threshold = 4",
    kSigned = "p = int8; v = int8", kUnsigned = "p = uint8; v = int8";
constexpr std::string_view kTypes[] = {kTwoLevel, kSigned, kHalfSums, kUnsigned, kFast, kDirect};

Lab& lab_for(std::string_view types) {
  return types.find("e4m3") == std::string_view::npos ? Lab::mma_sync() : Lab::mma_sync_e4m3();
}

// Each row on the lab that has its products.
void run_on_labs(const std::vector<Case>& cases) {
  for (Lab* lab : {&Lab::mma_sync(), &Lab::mma_sync_e4m3()}) {
    std::vector<Case> rows;
    for (const Case& row : cases) {
      if (&lab_for(row.variant) == lab) rows.push_back(row);
    }
    run_cases(rows, *lab);
    if (&Lab::mma_sync() == &Lab::mma_sync_e4m3()) return;
  }
}

std::string body_of(std::string_view types, std::string_view more = "", int head_dim = 64) {
  return fmt::format("head_dim = {}; {}{}; {}", head_dim, kSmoothed, types, more);
}

TEST_CASE("8 bits: every accumulator of P V with both row sums", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  struct Row {
    std::string_view types, accumulator;
  };
  constexpr Row kRows[] = {{"v = e4m3", "f32"},
                           {"v = e4m3", "f32 + f32 every 32"},
                           {"v = e4m3", "f32 + f32 every 64"},
                           {"v = e4m3", "f32 + f32 every 128"},
                           {"v = e4m3; smooth_v = mean", "f32"},
                           {"v = e4m3 range 4.5", "f16 + f32 every 32"},
                           {"p = e4m3 range 224; v = e4m3 range 4.5", "f16 + f32 every 64"},
                           {"p = e4m3 range 112; v = e4m3 range 9", "f16 + f32 every 64"},
                           {"p = e4m3 range 28; v = e4m3 range 18", "f16 + f32 every 128"},
                           {"p = int8", "s32 + f32 every 32"},
                           {"p = int8; smooth_v = mean", "s32 + f32 every 64"},
                           {"p = int8 range 100; v = int8 range 63", "s32 + f32 every 128"},
                           {"p = uint8", "s32 + f32 every 32"},
                           {"p = uint8; smooth_v = mean", "s32 + f32 every 64"},
                           {"p = uint8", "s32 + f32 every 128"}};
  std::vector<Case> cases;
  for (const Row& row : kRows) {
    for (const std::string_view sum : {"exact", "quantized"}) {
      // Sums of integer P are exact.
      if (row.accumulator.starts_with("s32") && sum != "exact") continue;
      const std::string body = body_of(
          row.types, fmt::format("pv_accumulator = {}; row_sum = {}", row.accumulator, sum));
      cases.push_back({body, kSmall, "biased_k"});
      cases.push_back({body, {.b = 1, .hq = 2, .hkv = 2, .m = 70, .n = 333}, "outlier_v"});
    }
  }
  run_on_labs(cases);
}

// 128 keys of the largest P and V, all of one sign, are the largest sum: 4145280, just within the
// 2^22 that the bias leaves.
TEST_CASE("8 bits: the largest sum of integers", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  const Variant variant =
      variant_of("head_dim = 32; output = f32; p = uint8; pv_accumulator = s32 + f32 every 128");
  const auto kernel = Lab::mma_sync().kernel(variant);
  Inputs inputs = reference::make_inputs(
      "constant", {.b = 1, .hq = 1, .hkv = 1, .m = 16, .n = 256, .d = 32, .dv = 32}, variant.input,
      1);
  for (int64_t j = 0; j < 256; ++j) {
    for (int64_t d = 0; d < 32; ++d) {
      inputs.k.set(0, 0, j, d, 0);  // every P is 1, exactly
      inputs.v.set(0, 0, j, d, d % 2 ? 3.0 : -3.0);
    }
  }
  Problem problem(*kernel, inputs);
  problem.launch();
  const std::vector<double> o = problem.o().to_f64();
  for (size_t i = 0; i < o.size(); ++i) REQUIRE(o[i] == Approx(i % 2 ? 3 : -3).epsilon(1e-6));
}

// In one key tile P is relative to the final maximum, as the model's is: its integers are the same
// but for the few that the last bits of an exponential turn over, their products are exact, and
// nothing averages out.
TEST_CASE("8 bits: integers of P are the model's", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  for (const std::string_view p :
       {"int8", "uint8", "int8 range 5.25", "uint8 range 31; rescale_threshold = 3"}) {
    for (const int n : {64, 50, 1}) {
      CAPTURE(p, n);
      const Variant variant =
          variant_of(fmt::format("head_dim = 32; lse = on; output = f32; p = {}; v = int8", p));
      const auto kernel = Lab::mma_sync().kernel(variant, "block_n=64");
      const reference::ProblemShape shape = {
          .b = 1, .hq = 2, .hkv = 2, .m = 64, .n = n, .d = 32, .dv = 32};
      Problem problem(*kernel, make_inputs("normal", shape, variant.input, 7));
      problem.launch();
      const Inputs& in = problem.inputs();
      const reference::AttentionResult model =
          reference::quantized_attention(variant, in.q, in.k, in.v, {}, {}, 64);
      const std::vector<double> o = problem.o().to_f64(), lse = problem.lse().to_f64();
      const double rmse = reference::compare_output({1, 2, 64, 32}, o, model.o).overall.rmse;
      double squares = 0;
      for (const double x : model.o) squares += x * x;
      // A code or two turned over; were they cut off instead of rounded, it were five times as
      // much.
      const double step = 1 / variant.p.range;
      CHECK(rmse < 0.2 * step * std::sqrt(squares / static_cast<double>(o.size())));
      CHECK(reference::max_lse_error(lse, model.lse) < 0.5 * step);
    }
  }
}

// Integers carry no NaN: the exact sum of P does, to every row that sees the key.
TEST_CASE("8 bits: an infinity in Q or K leaves no row finite that sees it",
          "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr int64_t kRows = 70, kAt = 40, kDims = 32;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const std::string_view types : kTypes) {
    for (const bool in_k : {false, true}) {
      CAPTURE(types, in_k);
      const Variant variant = variant_of(
          fmt::format("head_dim = 32; output = f32; mask = causal(top_left); q = int8 per token; "
                      "k = int8 per token; {}",
                      types));
      Lab& lab = lab_for(types);
      const auto kernel = lab.kernel(variant);
      const reference::ProblemShape shape = {
          .b = 1, .hq = 1, .hkv = 1, .m = kRows, .n = kRows, .d = kDims, .dv = kDims};
      Inputs inputs = make_inputs("normal", shape, variant.input, 3);
      (in_k ? inputs.k : inputs.q).set(0, 0, kAt, 5, kInfinity);
      Problem problem(*kernel, inputs);
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

TEST_CASE("8 bits: every pair of lengths under masks", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr int64_t kLengths[] = {1, 7, 63, 64, 65, 127, 129};
  constexpr std::string_view kMasks[] = {"none", "causal(top_left)", "causal(bottom_right)",
                                         "window(40, 0)", "window(0, 0)"};
  std::vector<Case> cases;
  size_t i = 0;
  for (const std::string_view mask : kMasks) {
    for (const int64_t m : kLengths) {
      for (const int64_t n : kLengths) {
        cases.push_back({body_of(kTypes[i++ % 4], fmt::format("mask = {}", mask)),
                         {.b = 1, .hq = 1, .hkv = 1, .m = m, .n = n}});
      }
    }
    for (const std::string_view types : kTypes) {
      for (const auto& [m, n] : {std::pair(1, 1000), std::pair(1000, 7), std::pair(65, 1000)}) {
        cases.push_back({body_of(types, fmt::format("mask = {}", mask)),
                         {.b = 1, .hq = 1, .hkv = 1, .m = m, .n = n}});
      }
    }
  }
  for (const std::string_view types : kTypes) {
    cases.push_back({body_of(types), {.b = 1, .hq = 1, .hkv = 1, .m = 1000, .n = 1000}});
  }
  run_on_labs(cases);
}

TEST_CASE("8 bits: a call without keys, or without queries", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view types : {kTwoLevel, kFast, kSigned}) {
    for (const std::string_view mask : {"none", "causal(bottom_right)"}) {
      const std::string body = body_of(types, fmt::format("mask = {}", mask));
      cases.push_back({body, {.b = 2, .hq = 2, .hkv = 1, .m = 70, .n = 0}});
      cases.push_back({body, {.b = 2, .hq = 2, .hkv = 1, .m = 0, .n = 70}});
    }
  }
  run_on_labs(cases);
}

TEST_CASE("8 bits: query heads that share key heads, and layouts", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view types : {kTwoLevel, kHalfSums, kUnsigned, kFast}) {
    for (const auto& [hq, hkv] : {std::pair(4, 1), std::pair(8, 2), std::pair(16, 2)}) {
      cases.push_back({body_of(types, "mask = causal(top_left)"),
                       {.b = 2, .hq = hq, .hkv = hkv, .m = 67, .n = 90}});
    }
    for (const Layout layout : {Layout::kBthd, Layout::kPadded, Layout::kBroadcast}) {
      cases.push_back({body_of(types, "value_head_dim = 40; mask = causal(bottom_right)", 72),
                       {.b = 3, .hq = 4, .hkv = 2, .m = 130, .n = 100},
                       "normal",
                       layout});
    }
  }
  run_on_labs(cases);
}

TEST_CASE("8 bits: granularities of Q and K, types of input and output", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr std::string_view kScales[] = {"q = int8 per tensor; k = int8 per head",
                                          "q = int8 per block(128); k = int8 per block(64)",
                                          "q = int8 per warp(32); k = int8 per token",
                                          "q = int8 per thread(32); k = int8 per thread(64)"};
  constexpr std::string_view kIo[] = {"input = f16; output = f32", "input = bf16",
                                      "input = bf16; output = f16"};
  std::vector<Case> cases;
  size_t i = 0;
  for (const std::string_view scales : kScales) {
    for (const std::string_view types : kTypes) {
      cases.push_back(
          {body_of(types, fmt::format("{}; {}", scales, kIo[i++ % 3])), kSmall, "biased_k"});
    }
    ++i;
  }
  run_on_labs(cases);
}

// SageAttention 2's 4-bit form, and the int8 one with all that is done about outliers.
TEST_CASE("8 bits: int4, smoothed Q and rotation", "[emulated][eight_bit][int4][smooth_q]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr std::string_view kRows[] = {
      "q = int4 per thread(32); k = int4 per thread(64); smooth_q = mean",
      "q = int4 per token; k = int4 per token; smooth_q = mean per block(64); mask = "
      "causal(bottom_right)",
      "q = int8 per thread(32); k = int8 per block(64); smooth_q = mean; hadamard = on; input = "
      "bf16"};
  std::vector<Case> cases;
  for (const std::string_view row : kRows) {
    for (const std::string_view types : kTypes) {
      cases.push_back({body_of(types, row), kSmall, "biased_qk"});
    }
  }
  run_on_labs(cases);
}

TEST_CASE("8 bits: inputs that hurt", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view input : reference::input_names()) {
    for (const std::string_view types : kTypes) {
      cases.push_back({body_of(types, types == kDirect ? "k = int8 per token" : ""),
                       {.b = 1, .hq = 4, .hkv = 4, .m = 130, .n = 270},
                       std::string(input)});
    }
  }
  run_on_labs(cases);
}

// The maximum that P is relative to may be outgrown by 2^threshold: P's range must leave room.
TEST_CASE("mma.sync: maxima that are renewed late", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view types :
       {kFast, kDirect, std::string_view("p = uint8 range 31; v = int8; rescale_threshold = 3"),
        std::string_view("input = f16; rescale_threshold = 4"),
        std::string_view(
            "input = bf16; rescale_threshold = 8; pv_accumulator = f32 + f32 every 64"),
        std::string_view("input = f16; rescale_threshold = 4; pv_accumulator = f16")}) {
    for (const std::string_view mask : {"none", "causal(bottom_right)"}) {
      for (const std::string_view input : {"normal", "sink", "biased_k"}) {
        cases.push_back({body_of(types, fmt::format("mask = {}", mask), 32),
                         {.b = 1, .hq = 2, .hkv = 1, .m = 140, .n = 520},
                         std::string(input)});
      }
    }
  }
  run_on_labs(cases);
}

TEST_CASE("8 bits: head dims", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  size_t i = 0;
  const auto add = [&](int d, int dv) {
    for (int repeat = 0; repeat < 2; ++repeat) {
      const std::string body = body_of(kTypes[i++ % 6], fmt::format("value_head_dim = {}", dv), d);
      cases.push_back({body, {.b = 1, .hq = 2, .hkv = 1, .m = 140, .n = 140}, "biased_k"});
      cases.push_back(
          {body, {.b = 1, .hq = 1, .hkv = 1, .m = 33, .n = 95}, "normal", Layout::kPadded});
    }
  };
  for (const int d : {16, 24, 32, 40, 72, 80, 96, 128, 160, 192, 256}) add(d, d);
  add(64, 128);
  add(192, 128);
  add(16, 256);
  add(256, 16);
  run_on_labs(cases);
}

// The same on the other target with products of 8-bit floats, whose sums keep more bits.
TEST_CASE("8 bits: on sm_120", "[emulated][eight_bit]") {
  Lab& lab = Lab::emulated("sm_120");
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const std::string_view types : kTypes) {
    cases.push_back({body_of(types, "mask = causal(bottom_right)"), kSmall, "biased_k"});
    cases.push_back({body_of(types, "", 128), {.b = 1, .hq = 2, .hkv = 1, .m = 65, .n = 300}});
  }
  run_cases(cases, lab);
}

// What numerics.md says of e4m3 products, 4.2: cut off bits are of one sign where V has a mean, and
// add up over a row where the tensor core keeps 13 of them.
TEST_CASE("8 bits: what one level of accumulators loses on sm_89", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  const auto error_of = [&](const std::string& target, std::string_view accumulator) {
    const Variant variant =
        variant_of(fmt::format("head_dim = 32; {}q = int8 per thread(32); k = int8 per thread(64); "
                               "p = e4m3 range 16; v = e4m3; "
                               "rescale_threshold = 4; pv_accumulator = {}",
                               kSmoothed, accumulator));
    const auto kernel = Lab::emulated(target).kernel(variant, "block_m=64 block_n=64");
    const reference::ProblemShape shape = {
        .b = 1, .hq = 2, .hkv = 2, .m = 64, .n = 2048, .d = 32, .dv = 32};
    Problem problem(*kernel, make_inputs("outlier_v", shape, variant.input, 20241));
    problem.launch();
    const Inputs& in = problem.inputs();
    const reference::AttentionResult exact = reference::exact_attention(variant, in.q, in.k, in.v);
    return reference::compare_output({1, 2, 64, 32}, problem.o().to_f64(), exact.o)
        .overall.relative_l1;
  };
  CHECK(error_of("sm_89", "f32") > 0.03);
  CHECK(error_of("sm_89", "f32 + f32 every 64") < 0.003);
  CHECK(error_of("sm_120", "f32") < 0.003);
}

TEST_CASE("8 bits: schedules with the same block_n give the same bits", "[emulated][eight_bit]") {
  if (!Lab::mma_sync().ready()) return;
  for (const std::string_view types : {kTwoLevel, kHalfSums, kUnsigned, kDirect}) {
    const Variant variant = variant_of(body_of(types, "mask = causal(bottom_right)"));
    Lab& lab = lab_for(types);
    reference::ProblemShape shape = {
        .b = 1, .hq = 2, .hkv = 1, .m = 150, .n = 300, .d = 64, .dv = 64};
    const Inputs inputs = make_inputs("biased_k", shape, variant.input, 11);
    std::vector<uint8_t> first;
    for (const std::string_view line :
         {"block_m=64 warps=4 stages=2", "block_m=128 warps=4 stages=3",
          "block_m=32 warps=1 stages=4", "block_m=128 warps=8 stages=2 q_in_registers=0",
          "block_m=192 warps=4 stages=2 q_in_registers=0"}) {
      CAPTURE(types, line);
      Problem problem(*lab.kernel(variant, fmt::format("{} block_n=64 blocks_per_sm=1", line)),
                      inputs);
      problem.launch();
      CHECK(judge(variant, problem, demand_for(variant, "biased_k")) == std::vector<std::string>{});
      if (first.empty()) first = problem.o().bytes();
      CHECK(problem.o().bytes() == first);
    }
    for (const std::string_view block_n : {"32", "128"}) {
      if (block_n == "32" && variant.pv_accumulator.outer) continue;
      CAPTURE(types, block_n);
      Problem problem(
          *lab.kernel(variant,
                      fmt::format("block_m=64 warps=4 block_n={} blocks_per_sm=1", block_n)),
          inputs);
      problem.launch();
      CHECK(judge(variant, problem, demand_for(variant, "biased_k")) == std::vector<std::string>{});
    }
  }
}

}  // namespace
}  // namespace sagejit::test
