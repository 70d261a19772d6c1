// SageAttention 3: Q, K, P and V in fp4 with scales of groups of 16, for sm_120a: against float64,
// the model of the variant, whose P is relative to the same maxima, and codes and scales bit for
// bit.
#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "compiler/layout/core_matrix.h"
#include "compiler/layout/key_order.h"
#include "compiler/schedule/schedule.h"
#include "tests/emulated/judge.h"
#include "tests/emulated/table.h"
#include "tests/reference/quantizer.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr std::string_view kFp4 = "q = fp4; k = fp4; v = fp4; ",
                           kOneLevel = "q = fp4; k = fp4; p = fp4 range 1; v = fp4; ",
                           kSmoothed = "smooth_q = mean; smooth_k = mean; lse = on; ";

Lab& lab() {
  return Lab::emulated("sm_120a");
}

std::string body_of(std::string_view more, int head_dim = 64) {
  return fmt::format("head_dim = {}; {}{}", head_dim, kFp4, more);
}

TEST_CASE("fp4: one tile of one head", "[emulated][fp4]") {
  if (!lab().ready()) return;
  run_cases({{body_of(""), {.b = 1, .hq = 1, .hkv = 1, .m = 64, .n = 64}}}, lab());
}

TEST_CASE("fp4: head dims, masks, smoothing and schedules", "[emulated][fp4]") {
  if (!lab().ready()) return;
  constexpr reference::ProblemShape kShape = {.b = 2, .hq = 4, .hkv = 2, .m = 150, .n = 200};
  std::vector<Case> cases;
  for (const int d : {64, 128}) {
    for (const std::string_view mask :
         {"none", "causal(top_left)", "causal(bottom_right)", "window(40, 0)"}) {
      cases.push_back(
          {body_of(fmt::format("{}mask = {}", kSmoothed, mask), d), kShape, "biased_qk"});
    }
  }
  for (const int d : {16, 40, 72, 96, 192, 256}) {
    cases.push_back({body_of(kSmoothed, d), {.b = 1, .hq = 2, .hkv = 1, .m = 70, .n = 140}});
  }
  cases.push_back({body_of("value_head_dim = 128; lse = on"), kShape});
  cases.push_back(
      {body_of("value_head_dim = 24; input = bf16; output = f32; hadamard = on"), kShape});
  cases.push_back({body_of("pv_accumulator = f32 + f32 every 64; smooth_k = mean"), kShape});
  cases.push_back({body_of("p = fp4 range 288; rescale_threshold = 3; lse = on"), kShape});
  for (const std::string_view schedule :
       {"block_m=128 block_n=64 warps=4", "block_m=64 block_n=128 warps=4 q_in_registers=0",
        "block_m=64 block_n=64 warps=2 stages=3", "block_m=48 block_n=128 warps=1"}) {
    const std::string_view smoothing = schedule.starts_with("block_m=48") ? "" : kSmoothed;
    Case row{body_of(fmt::format("{}mask = causal(bottom_right)", smoothing)), kShape};
    row.schedule = parse_schedule(schedule, lab().default_schedule(variant_of(row.variant)));
    cases.push_back(row);
  }
  run_cases(cases, lab());
}

TEST_CASE("fp4: every pair of lengths under masks", "[emulated][fp4]") {
  if (!lab().ready()) return;
  constexpr int64_t kLengths[] = {1, 7, 63, 64, 65, 127, 129};
  std::vector<Case> cases;
  for (const std::string_view mask : {"none", "causal(bottom_right)", "window(40, 0)"}) {
    const std::string body = body_of(fmt::format("{}mask = {}", kSmoothed, mask));
    for (const int64_t m : kLengths) {
      for (const int64_t n : kLengths) {
        cases.push_back({body, {.b = 1, .hq = 1, .hkv = 1, .m = m, .n = n}});
      }
    }
    cases.push_back({body, {.b = 2, .hq = 2, .hkv = 1, .m = 70, .n = 0}});
    cases.push_back({body, {.b = 2, .hq = 2, .hkv = 1, .m = 0, .n = 70}});
    cases.push_back({body, {.b = 1, .hq = 8, .hkv = 1, .m = 65, .n = 1000}});
  }
  run_cases(cases, lab());
}

TEST_CASE("fp4: inputs that hurt, layouts", "[emulated][fp4]") {
  if (!lab().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view input : reference::input_names()) {
    cases.push_back(
        {body_of(kSmoothed), {.b = 1, .hq = 4, .hkv = 4, .m = 130, .n = 270}, std::string(input)});
    cases.push_back({fmt::format("head_dim = 64; {}lse = on", kOneLevel),
                     {.b = 1, .hq = 4, .hkv = 4, .m = 130, .n = 270},
                     input == "normal" ? "outlier_v" : std::string(input)});
  }
  for (const Layout layout : {Layout::kBthd, Layout::kPadded, Layout::kBroadcast}) {
    cases.push_back(
        {body_of(fmt::format("{}value_head_dim = 40; mask = causal(bottom_right)", kSmoothed), 72),
         {.b = 3, .hq = 4, .hkv = 2, .m = 130, .n = 100},
         "normal",
         layout});
  }
  run_cases(cases, lab());
}

// fp4 Q and K over other P and V: keys in their own order.
TEST_CASE("fp4 Q and K with P and V of 8 and 16 bits", "[emulated][fp4]") {
  if (!lab().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view pv :
       {"p = f16; v = f16", "p = e4m3; v = e4m3", "p = int8; v = int8"}) {
    for (const std::string_view mask : {"none", "causal(top_left)"}) {
      cases.push_back(
          {fmt::format("head_dim = 64; q = fp4; k = fp4; {}; {}mask = {}", pv, kSmoothed, mask),
           {.b = 1, .hq = 2, .hkv = 1, .m = 130, .n = 200},
           "biased_qk"});
    }
  }
  run_cases(cases, lab());
}

// ---- Codes and scales.

int nibble(const std::vector<uint8_t>& bytes, int64_t index) {
  return bytes.at(static_cast<size_t>(index / 2)) >> 4 * (index % 2) & 15;
}

// Rows of Q or K as the workspace has them: `padded_tokens` of `padded_d` codes, token t in row
// column_of_key(t).
void check_rows(const Problem& problem, const std::string& name,
                const reference::GroupQuantized& model, const reference::Shape4& s,
                int64_t padded_tokens, int64_t padded_d, KeyOrder order) {
  CAPTURE(name);
  const std::vector<uint8_t> codes = problem.workspace(name + "_codes"),
                             scales = problem.workspace(name + "_scales");
  const int64_t groups = (s[3] + 15) / 16, padded_groups = padded_d / 16;
  REQUIRE(codes.size() == static_cast<size_t>(s[0] * s[1] * padded_tokens * padded_d / 2));
  REQUIRE(scales.size() == static_cast<size_t>(s[0] * s[1] * padded_tokens * padded_groups));
  size_t wrong_codes = 0, wrong_scales = 0;
  for (int64_t head = 0; head < s[0] * s[1]; ++head) {
    for (int64_t t = 0; t < padded_tokens; ++t) {
      const int64_t row = head * padded_tokens + column_of_key(order, static_cast<int>(t));
      const int64_t source = head * s[2] + t;
      for (int64_t d = 0; d < padded_d; ++d) {
        const bool exists = t < s[2] && d < s[3];
        const int expected = exists ? model.codes[static_cast<size_t>(source * s[3] + d)] : 0;
        wrong_codes += nibble(codes, row * padded_d + d) != expected;
      }
      for (int64_t g = 0; g < padded_groups; ++g) {
        const bool exists = t < s[2] && g < groups;
        const int expected = exists ? model.scales[static_cast<size_t>(source * groups + g)] : 0;
        wrong_scales += scales[static_cast<size_t>(row * padded_groups + g)] != expected;
      }
    }
  }
  CHECK(wrong_codes == 0);
  CHECK(wrong_scales == 0);
}

void check_values(const Problem& problem, const reference::GroupQuantized& model,
                  const reference::Shape4& s, int64_t padded_tokens, const Variant& variant) {
  const std::vector<uint8_t> codes = problem.workspace("v_codes"),
                             scales = problem.workspace("v_scales");
  const int64_t columns = padded_value_head_dim(variant),
                scale_columns = value_scale_columns(variant);
  const int64_t groups = (s[2] + 15) / 16, heads = s[0] * s[1];
  REQUIRE(codes.size() == static_cast<size_t>(heads * padded_tokens * columns / 2));
  REQUIRE(scales.size() == static_cast<size_t>(heads * padded_tokens / 64 * scale_columns * 4));
  size_t wrong_codes = 0, wrong_scales = 0;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t t = 0; t < padded_tokens; ++t) {
      for (int64_t c = 0; c < columns; ++c) {
        const bool exists = t < s[2] && c < s[3];
        const int64_t byte =
            head * padded_tokens * columns / 2 + channel_rows_offset(t / 2, c, columns);
        const int expected =
            exists ? model.codes[static_cast<size_t>((head * s[2] + t) * s[3] + c)] : 0;
        wrong_codes += nibble(codes, 2 * byte + t % 2) != expected;
      }
      for (int64_t c = 0; t % 16 == 0 && c < scale_columns; ++c) {
        const bool exists = t < s[2] && c < s[3];
        const int64_t word = (head * padded_tokens / 64 + t / 64) * scale_columns + c;
        const int expected =
            exists ? model.scales[static_cast<size_t>((head * groups + t / 16) * s[3] + c)] : 0;
        wrong_scales += scales[static_cast<size_t>(4 * word + t % 64 / 16)] != expected;
      }
    }
  }
  CHECK(wrong_codes == 0);
  CHECK(wrong_scales == 0);
}

reference::Means means_of(const Problem& problem, const char* buffer, int64_t span) {
  if (!problem.has_workspace(buffer)) return {};
  const std::vector<uint8_t> bytes = problem.workspace(buffer);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return {values, span};
}

void check_quantization(const std::string& body, reference::ProblemShape shape,
                        std::string_view input) {
  CAPTURE(body, shape.m, shape.n, input);
  const Variant variant = variant_of(body);
  shape.d = variant.head_dim, shape.dv = variant.value_head_dim;
  Problem problem(*lab().kernel(variant), make_inputs(input, shape, variant.input, 5),
                  Layout::kPadded);
  problem.launch(kQuantizePhase);
  const Schedule schedule = parse_schedule(problem.kernel().artifact().schedule_text);
  const int64_t padded_d = padded_head_dim(variant, schedule);
  const int64_t padded_n = (shape.n + schedule.block_n - 1) / schedule.block_n * schedule.block_n;
  const Inputs& in = problem.inputs();
  const reference::Means q_means = means_of(problem, "q_mean", variant.smooth_q_span);
  check_rows(problem, "q", reference::quantize_in_groups(in.q, q_means, variant.hadamard),
             in.q.shape(), shape.m, padded_d, KeyOrder::kByColumn);
  check_rows(problem, "k",
             reference::quantize_in_groups(in.k, means_of(problem, "k_mean", 0), variant.hadamard),
             in.k.shape(), padded_n, padded_d, KeyOrder::kByThread);
  check_values(problem, reference::quantize_values_in_groups(in.v, reference::value_range(variant)),
               in.v.shape(), padded_n, variant);
  CHECK(problem.damage() == "");
}

TEST_CASE("fp4: codes and scales are the model's, bit for bit", "[emulated][fp4][quantizer]") {
  if (!lab().ready()) return;
  const std::string bodies[] = {
      body_of("smooth_q = mean; smooth_k = mean"),
      body_of("value_head_dim = 80; input = bf16", 128),
      body_of("value_head_dim = 256; smooth_k = mean; lse = on", 40),
      "head_dim = 256; q = fp4; k = fp4; v = fp4 range 4; value_head_dim = 16; hadamard = on"};
  for (const std::string& body : bodies) {
    for (const std::string_view input : reference::input_names()) {
      check_quantization(body, {.b = 2, .hq = 4, .hkv = 2, .m = 77, .n = 131}, input);
    }
    check_quantization(body, {.b = 1, .hq = 1, .hkv = 1, .m = 1, .n = 1}, "normal");
    check_quantization(body, {.b = 1, .hq = 2, .hkv = 1, .m = 300, .n = 700}, "normal");
  }
}

// Groups beyond 2688 saturate, those below 6 * 2^-10 vanish, a NaN is 0: none leaves a NaN.
TEST_CASE("fp4: infinities and NaNs of the inputs", "[emulated][fp4]") {
  if (!lab().ready()) return;
  const Variant variant = variant_of(body_of("output = f32"));
  const auto kernel = lab().kernel(variant);
  const reference::ProblemShape shape = {.b = 1, .hq = 1, .hkv = 1, .m = 64, .n = 64};
  Inputs inputs = make_inputs("normal", shape, variant.input, 3);
  inputs.k.set(0, 0, 3, 5, std::nan(""));
  inputs.q.set(0, 0, 4, 5, std::nan(""));
  inputs.v.set(0, 0, 5, 5, std::nan(""));
  inputs.v.set(0, 0, 6, 7, INFINITY);
  Problem problem(*kernel, inputs);
  problem.launch();
  for (const double x : problem.o().to_f64()) REQUIRE(std::isfinite(x));
}

}  // namespace
}  // namespace sagejit::test
