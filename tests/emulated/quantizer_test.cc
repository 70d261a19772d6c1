// Codes and scales, bit for bit, and K's mean.
#include "tests/reference/quantizer.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <numbers>

#include "compiler/schedule/schedule.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
#include "tests/reference/attention.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

using reference::GroupRule;
using reference::Shape4;

template <typename T>
std::vector<T> elements(const std::vector<uint8_t>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

reference::Means means_of(const Problem& problem, const std::string& buffer, int64_t span) {
  if (!problem.has_workspace(buffer)) return {};
  return {elements<float>(problem.workspace(buffer)), span};
}

// numerics.md, section 2: within 2^-16 of mean |x|. Sums of f32 do far better, and must.
void check_means(const HostTensor& x, const reference::Means& actual) {
  const Shape4& s = x.shape();
  const int64_t span = actual.span ? actual.span : std::max<int64_t>(1, s[2]);
  const std::vector<double> expected = reference::block_mean(x, span);
  if (s[2] > 0) REQUIRE(actual.values.size() == expected.size());
  const int64_t blocks = (s[2] + span - 1) / span;
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto channel = static_cast<int64_t>(i);
    const int64_t d = channel % s[3], row = channel / s[3], block = row % blocks;
    const int64_t h = row / blocks % s[1], b = row / blocks / s[1];
    const int64_t end = std::min(s[2], (block + 1) * span);
    double magnitude = 0;
    for (int64_t t = block * span; t < end; ++t) magnitude += std::fabs(x.get(b, h, t, d));
    CAPTURE(b, h, block, d, actual.values[i], expected[i]);
    const auto tokens = static_cast<double>(end - block * span);
    REQUIRE(std::fabs(actual.values[i] - expected[i]) <= 2e-6 * magnitude / tokens);
  }
}

// What attention adds to the scores, bit for bit.
void check_mean_scores(const Problem& problem, const Variant& variant,
                       const reference::Means& q_means, const reference::Means& k_means) {
  const Inputs& in = problem.inputs();
  const auto scale = static_cast<float>(reference::score_scale(variant) * std::numbers::log2e);
  const std::vector<float> model =
      reference::mean_scores(q_means, in.q.shape(), in.k, k_means.values, scale);
  const auto actual = elements<float>(problem.workspace("mean_scores"));
  const auto n = static_cast<size_t>(in.k.shape()[2]);
  if (n == 0) return;
  const size_t rows = model.size() / n, stride = actual.size() / rows;
  size_t num_wrong = 0;
  for (size_t i = 0; i < model.size(); ++i) {
    num_wrong += std::memcmp(&actual[i / n * stride + i % n], &model[i], sizeof(float)) != 0;
  }
  CHECK(num_wrong == 0);
}

struct Side {
  std::string name;  // "q" or "k"
  const HostTensor& x;
  GroupRule rule;
  reference::Means means;
  int64_t padded_d;
  bool rotates;
  int code_bits;  // 4: two codes to a byte, the first in the lower bits
};

// The codes of a buffer, one by one.
std::vector<int8_t> codes_of(const Problem& problem, const Side& side) {
  const auto bytes = elements<int8_t>(problem.workspace(side.name + "_codes"));
  if (side.code_bits == 8) return bytes;
  std::vector<int8_t> codes;
  for (const int8_t byte : bytes) {
    const int low = byte & 15, high = byte >> 4;  // the sign is the upper code's
    codes.push_back(static_cast<int8_t>(low < 8 ? low : low - 16));
    codes.push_back(static_cast<int8_t>(high));
  }
  return codes;
}

void check_codes(const Problem& problem, const Side& side, const reference::Quantized& model) {
  const std::vector<int8_t> codes = codes_of(problem, side);
  const Shape4& s = side.x.shape();
  REQUIRE(codes.size() == static_cast<size_t>(s[0] * s[1] * s[2] * side.padded_d));
  size_t num_wrong = 0;
  for (int64_t row = 0; row < s[0] * s[1] * s[2]; ++row) {
    for (int64_t d = 0; d < side.padded_d; ++d) {
      const int8_t expected =
          d < s[3] ? model.codes[static_cast<size_t>(row * s[3] + d)] : int8_t{0};
      num_wrong += codes[static_cast<size_t>(row * side.padded_d + d)] != expected;
    }
  }
  CHECK(num_wrong == 0);
}

// Scales lie `stride` apart per head; those of groups without tokens are nobody's business.
void check_scales(const Problem& problem, const Side& side, const reference::Quantized& model) {
  const auto scales = elements<uint32_t>(problem.workspace(side.name + "_scales"));
  const auto expected = [&](int64_t head, int64_t group) {
    uint32_t bits = 0;
    std::memcpy(&bits, &model.scales[static_cast<size_t>(head * model.num_groups + group)], 4);
    return bits;
  };
  const Shape4& s = side.x.shape();
  const int64_t heads = s[0] * s[1];
  if (side.rule.whole_tensor) {
    REQUIRE(scales.size() == 1);
    CHECK(scales[0] == expected(0, 0));
    return;
  }
  const int64_t stride = static_cast<int64_t>(scales.size()) / heads;
  size_t num_wrong = 0;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t t = 0; t < s[2]; ++t) {
      const int64_t group = side.rule.group_of(t);
      REQUIRE(group < stride);
      num_wrong += scales[static_cast<size_t>(head * stride + group)] != expected(head, group);
    }
  }
  CHECK(num_wrong == 0);
}

void check_side(const Problem& problem, const Side& side) {
  CAPTURE(side.name);
  const reference::Quantized model =
      reference::quantize(side.x, side.rule, side.means, side.rotates);
  check_codes(problem, side, model);
  check_scales(problem, side, model);
}

void check_quantization(const std::string& body, reference::ProblemShape shape,
                        std::string_view input, Layout layout) {
  CAPTURE(body, shape.m, shape.n, input, name_of(layout));
  const Variant variant = variant_of(body);
  shape.d = variant.head_dim;
  shape.dv = variant.value_head_dim;
  Lab& lab = is_fp8(variant.q.type) ? Lab::mma_sync_e4m3() : Lab::mma_sync();
  Problem problem(*lab.kernel(variant), make_inputs(input, shape, variant.input, 3), layout);
  problem.launch(kQuantizePhase);
  const Schedule schedule = parse_schedule(problem.kernel().artifact().schedule_text);
  const int64_t padded = padded_head_dim(variant, schedule);
  const int bits = qk_code_bits(variant, schedule);
  const reference::Means k_means = means_of(problem, "k_mean", 0);
  const reference::Means q_means = means_of(problem, "q_mean", variant.smooth_q_span);
  if (variant.smooth_k == Smoothing::kMean) check_means(problem.inputs().k, k_means);
  if (variant.smooth_q == Smoothing::kMean) {
    check_means(problem.inputs().q, q_means);
    check_mean_scores(problem, variant, q_means, k_means);
  }
  check_side(problem, {"q", problem.inputs().q, reference::query_groups(variant), q_means, padded,
                       variant.hadamard, bits});
  check_side(problem, {"k", problem.inputs().k, reference::key_groups(variant), k_means, padded,
                       variant.hadamard, bits});
  CHECK(problem.damage() == "");
}

TEST_CASE("codes and scales are the model's, bit for bit", "[emulated][quantizer]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr std::string_view kBodies[] = {
      "q = int8 per tensor; k = int8 per tensor; smooth_k = mean",
      "q = int8 per head; k = int8 per head; smooth_k = mean",
      "q = int8 per block(128); k = int8 per block(64); smooth_k = mean",
      "q = int8 per warp(48); k = int8 per warp(80)",
      "q = int8 per thread(32); k = int8 per thread(64); smooth_k = mean; lse = on",
      "q = int8 per thread(16); k = int8 per thread(112); input = bf16; smooth_k = mean",
      "q = int8 per token; k = int8 per token; smooth_k = mean; lse = on; input = bf16",
      "q = int8 per tensor; k = int8 per token",
      "q = int4 per thread(32); k = int4 per thread(64); smooth_k = mean; lse = on",
      "q = int4 per token; k = int4 per block(64); input = bf16",
      "q = int4 per head; k = int4 per tensor; smooth_k = mean",
      "q = int4 per thread(32); k = int4 per thread(64); smooth_k = mean; smooth_q = mean; lse = "
      "on",
      "q = int8 per token; k = int8 per head; smooth_q = mean per block(64); input = bf16",
      "q = int4 per head; k = int4 per token; smooth_q = mean per block(192); smooth_k = mean",
      "q = int8 per block(48); k = int8 per tensor; smooth_k = mean; smooth_q = mean; lse = on",
      "q = e4m3 per tensor; k = e4m3 per head; smooth_k = mean",
      "q = e4m3 per block(128); k = e4m3 per token; input = bf16",
      "q = e4m3 per thread(32); k = e4m3 per thread(64); smooth_k = mean; smooth_q = mean; lse = "
      "on",
  };
  std::vector<Variant> variants;
  for (const int d : {64, 40}) {
    for (const std::string_view body : kBodies) {
      variants.push_back(variant_of(fmt::format("head_dim = {}; {}", d, body)));
    }
  }
  std::erase_if(variants, [](const Variant& v) { return is_fp8(v.q.type); });
  Lab::mma_sync().prefetch(variants);
  for (const int d : {64, 40}) {
    for (const std::string_view rest : kBodies) {
      const std::string body = fmt::format("head_dim = {}; {}", d, rest);
      for (const std::string_view input : reference::input_names()) {
        check_quantization(body, {.b = 2, .hq = 4, .hkv = 2, .m = 77, .n = 131}, input,
                           Layout::kPadded);
      }
      for (const int64_t length : {1, 7, 129}) {
        check_quantization(body, {.b = 1, .hq = 2, .hkv = 2, .m = length, .n = length}, "normal",
                           Layout::kBthd);
      }
    }
  }
}

TEST_CASE("rotated codes are the model's, bit for bit", "[emulated][quantizer][hadamard]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr std::string_view kRotated[] = {
      "head_dim = 64; hadamard = on; q = int8 per block(128); k = int8 per token; input = bf16",
      "head_dim = 16; hadamard = on; q = int4 per thread(32); k = int4 per thread(64); smooth_k = "
      "mean",
      "head_dim = 32; hadamard = on; q = int4 per head; k = int4 per tensor; smooth_k = mean",
      "head_dim = 128; hadamard = on; q = int4 per thread(32); k = int4 per thread(64); smooth_k = "
      "mean; smooth_q = mean; lse = on",
      "head_dim = 256; hadamard = on; q = int8 per token; k = int8 per head; smooth_q = mean",
      "head_dim = 64; hadamard = on; q = e4m3 per thread(32); k = e4m3 per block(64); smooth_k = "
      "mean",
  };
  for (const std::string_view body : kRotated) {
    for (const std::string_view input : reference::input_names()) {
      check_quantization(std::string(body), {.b = 1, .hq = 4, .hkv = 2, .m = 77, .n = 131}, input,
                         Layout::kPadded);
    }
    check_quantization(std::string(body), {.b = 1, .hq = 2, .hkv = 2, .m = 1, .n = 1}, "normal",
                       Layout::kBthd);
  }
}

TEST_CASE("the mean of K over several chunks", "[emulated][quantizer]") {
  if (!Lab::mma_sync().ready()) return;
  for (const std::string_view input : {"normal", "biased_k", "constant", "zero", "fp16_max"}) {
    for (const int64_t n : {255, 256, 257, 600, 9000}) {
      if (n == 9000 && input != "biased_k") continue;
      check_quantization(
          "head_dim = 64; q = int8 per thread(32); k = int8 per thread(64); "
          "smooth_k = mean; lse = on",
          {.b = 1, .hq = 2, .hkv = 2, .m = 3, .n = n}, input, Layout::kBhtd);
    }
  }
}

}  // namespace
}  // namespace sagejit::test
