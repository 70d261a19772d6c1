// Every choice of the language that is generated, against float64 and the model of the variant.
#include <fmt/format.h>

#include <algorithm>

#include "tests/emulated/lab.h"
#include "tests/emulated/table.h"
#include "tests/reference/attention.h"
#include "tests/reference/metrics.h"
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

// Natively where the device has int4 tensor cores, and one code to a byte; both give the same bits.
TEST_CASE("int4 Q and K in every granularity, packed and not", "[emulated][int4]") {
  Lab& lab = Lab::mma_sync();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (size_t i = 0; i < std::size(kQGranularities); ++i) {
    for (const size_t j : {i, (i + 2) % std::size(kKGranularities)}) {
      const std::string body = fmt::format(
          "head_dim = 64; lse = on; smooth_k = mean; q = int4 per {}; k = int4 per {}{}",
          kQGranularities[i], kKGranularities[j], i % 2 ? "; mask = causal(bottom_right)" : "");
      cases.push_back({body, kSmall, "biased_k"});
      Schedule bytes = lab.default_schedule(variant_of(body));
      bytes.int4_mma = false;
      cases.push_back({body, kSmall, "biased_k", Layout::kPadded, bytes});
    }
  }
  for (const int d : {16, 24, 32, 40, 64, 72, 96, 128, 200, 256}) {
    const std::string body = fmt::format(
        "head_dim = {}; lse = on; smooth_k = mean; q = int4 per thread(32); k = int4 per "
        "thread(64); input = {}",
        d, d % 16 ? "bf16" : "f16");
    cases.push_back({body, {.b = 1, .hq = 2, .hkv = 1, .m = 140, .n = 75}, "biased_k"});
    cases.push_back({body, {.b = 1, .hq = 2, .hkv = 1, .m = 1, .n = 129}, "normal"});
  }
  run_cases(cases);
}

TEST_CASE("int4 products and int8 products of the same codes have the same bits",
          "[emulated][int4]") {
  Lab& lab = Lab::mma_sync();
  if (!lab.ready() || !lab.device()->info().target->native_s4_mma) return;
  const Variant variant = variant_of(
      "head_dim = 72; lse = on; smooth_k = mean; q = int4 per thread(32); k = int4 per thread(64)");
  const reference::ProblemShape shape = {
      .b = 2, .hq = 4, .hkv = 2, .m = 150, .n = 200, .d = 72, .dv = 72};
  const auto outputs = [&](std::string_view schedule) {
    const auto kernel = lab.kernel(variant, schedule);
    Problem problem(*kernel, make_inputs("biased_k", shape, variant.input, 9));
    problem.launch();
    return std::pair(problem.o().bytes(), problem.lse().bytes());
  };
  CHECK(outputs("int4_mma=1") == outputs("int4_mma=0"));
}

TEST_CASE("smoothed Q: granularities, spans, masks, row sums", "[emulated][smooth_q]") {
  Lab& lab = Lab::mma_sync();
  if (!lab.ready()) return;
  struct Row {
    std::string_view q, k, rest;
  };
  constexpr Row kRows[] = {
      {"int4 per thread(32)", "int4 per thread(64)", "smooth_q = mean"},
      {"int4 per token", "int4 per token", "smooth_q = mean; mask = causal(top_left)"},
      {"int4 per block(128)", "int4 per block(64)", "smooth_q = mean per block(64)"},
      {"int4 per warp(48)", "int4 per head",
       "smooth_q = mean per block(192); mask = causal(bottom_right)"},
      {"int4 per head", "int4 per tensor", "smooth_q = mean; mask = window(70, 20)"},
      {"int8 per thread(32)", "int8 per thread(64)", "smooth_q = mean; row_sum = quantized"},
      {"int8 per tensor", "int8 per token", "smooth_q = mean; input = bf16"},
      {"int8 per block(128)", "int8 per warp(16)",
       "smooth_q = mean; pv_accumulator = f16 + f32 every 64; scale = 0.2"},
  };
  std::vector<Case> cases;
  for (const Row& row : kRows) {
    const std::string body = fmt::format(
        "head_dim = 64; lse = on; smooth_k = mean; q = {}; k = {}; {}", row.q, row.k, row.rest);
    cases.push_back({body, kSmall, "biased_qk"});
    cases.push_back(
        {body, {.b = 1, .hq = 8, .hkv = 2, .m = 333, .n = 70}, "normal", Layout::kPadded});
  }
  run_cases(cases);
}

TEST_CASE("smoothed Q without smoothed K, in every head dim, at the ends of the types",
          "[emulated][smooth_q]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const int d : {16, 40, 72, 128, 256}) {
    cases.push_back(
        {fmt::format("head_dim = {}; lse = on; smooth_q = mean per block(64); q = int4 per "
                     "thread(16); k = int4 per token",
                     d),
         {.b = 2, .hq = 2, .hkv = 1, .m = 129, .n = 100}});
  }
  for (const std::string_view input : reference::input_names()) {
    for (const std::string_view type : {"int8", "int4"}) {
      cases.push_back(
          {fmt::format("head_dim = 64; lse = on; smooth_k = mean; smooth_q = mean; q = {0} "
                       "per thread(32); k = {0} per thread(64)",
                       type),
           {.b = 1, .hq = 4, .hkv = 4, .m = 130, .n = 270},
           std::string(input)});
    }
  }
  run_cases(cases);
}

// SageAttention 2, "smooth Q": neither operand's bias may use up the 15 codes. And its
// granularities.
TEST_CASE("int4: smoothing both rescues biased Q and K, a scale per thread is nearly one per token",
          "[emulated][int4][smooth_q]") {
  Lab& lab = Lab::mma_sync();
  if (!lab.ready()) return;
  const auto cosine = [&](std::string_view scales, std::string_view smoothing) {
    const Variant variant = variant_of(fmt::format("head_dim = 64; {}; {}", scales, smoothing));
    const reference::ProblemShape shape = {.b = 1, .hq = 4, .hkv = 4, .m = 256, .n = 384};
    Problem problem(*lab.kernel(variant), make_inputs("biased_qk", shape, variant.input, 21));
    problem.launch();
    const Inputs& in = problem.inputs();
    const reference::AttentionResult exact = reference::exact_attention(variant, in.q, in.k, in.v);
    return reference::compare_output({1, 4, 256, 64}, problem.o().to_f64(), exact.o).overall.cosine;
  };
  constexpr std::string_view kThread = "q = int4 per thread(32); k = int4 per thread(64)";
  constexpr std::string_view kBoth = "smooth_q = mean; smooth_k = mean";
  const double none = cosine(kThread, "smooth_k = none"), k = cosine(kThread, "smooth_k = mean");
  const double q = cosine(kThread, "smooth_q = mean"), both = cosine(kThread, kBoth);
  CHECK(none < 0.8);
  CHECK(k > none + 0.1);
  CHECK(q > none + 0.1);
  CHECK(both > std::max(k, q) + 0.02);
  CHECK(both > 0.985);
  const double token = cosine("q = int4 per token; k = int4 per token", kBoth);
  const double block = cosine("q = int4 per block(128); k = int4 per block(64)", kBoth);
  const double tensor = cosine("q = int4 per tensor; k = int4 per tensor", kBoth);
  CHECK(tensor < block);
  CHECK(block < both);
  CHECK(token - both < 0.5 * (token - tensor));
}

TEST_CASE("rotated Q and K", "[emulated][hadamard]") {
  Lab& lab = Lab::mma_sync();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const int d : {16, 32, 64, 128, 256}) {
    cases.push_back(
        {fmt::format("head_dim = {}; lse = on; smooth_k = mean; hadamard = on; q = int8 per "
                     "thread(32); k = int8 per thread(64); mask = causal(bottom_right)",
                     d),
         kSmall, "biased_k"});
    cases.push_back(
        {fmt::format("head_dim = {}; lse = on; smooth_k = mean; smooth_q = mean; hadamard = "
                     "on; q = int4 per thread(32); k = int4 per thread(64)",
                     d),
         {.b = 1, .hq = 4, .hkv = 2, .m = 129, .n = 77},
         "biased_qk"});
  }
  cases.push_back(
      {"head_dim = 64; value_head_dim = 40; hadamard = on; q = int8 per head; k = int8 per "
       "tensor; smooth_k = mean; input = bf16",
       kSmall, "biased_k"});
  run_cases(cases);
}

// An outlier channel of K takes the codes of all others, unless it is spread over them.
TEST_CASE("rotation rescues int4 from outlier channels", "[emulated][int4][hadamard]") {
  Lab& lab = Lab::mma_sync();
  if (!lab.ready()) return;
  const auto cosine = [&](std::string_view hadamard) {
    const Variant variant = variant_of(fmt::format(
        "head_dim = 64; q = int4 per token; k = int4 per token; hadamard = {}", hadamard));
    Inputs in = reference::make_inputs("normal", {.b = 1, .hq = 2, .hkv = 2, .m = 128, .n = 256},
                                       variant.input, 23);
    reference::for_each_index(in.k.shape(), [&](int64_t b, int64_t h, int64_t t, int64_t d) {
      if (d == 11) in.k.set(b, h, t, d, 20 * in.k.get(b, h, t, d));
    });
    reference::for_each_index(in.q.shape(), [&](int64_t b, int64_t h, int64_t t, int64_t d) {
      if (d == 11) in.q.set(b, h, t, d, in.q.get(b, h, t, d) / 20);
    });
    Problem problem(*lab.kernel(variant), in);
    problem.launch();
    const reference::AttentionResult exact = reference::exact_attention(variant, in.q, in.k, in.v);
    return reference::compare_output({1, 2, 128, 64}, problem.o().to_f64(), exact.o).overall.cosine;
  };
  const double off = cosine("off"), on = cosine("on");
  CAPTURE(off, on);
  CHECK(off < 0.85);
  CHECK(on > off + 0.05);
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
