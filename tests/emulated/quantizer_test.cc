// Codes and scales, bit for bit, and K's mean.
#include "tests/reference/quantizer.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "compiler/schedule/schedule.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
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

std::vector<float> k_mean(const Problem& problem) {
  if (!problem.has_workspace("k_mean")) return {};
  return elements<float>(problem.workspace("k_mean"));
}

// numerics.md, section 2: within 2^-16 of mean |k|. Sums of f32 do far better, and must.
void check_mean(const Problem& problem) {
  const std::vector<float> actual = k_mean(problem);
  const HostTensor& k = problem.inputs().k;
  const std::vector<double> expected = reference::token_mean(k);
  REQUIRE(actual.size() == expected.size());
  const Shape4& s = k.shape();
  for (size_t i = 0; i < actual.size(); ++i) {
    const auto channel = static_cast<int64_t>(i);
    const int64_t d = channel % s[3], h = channel / s[3] % s[1], b = channel / s[3] / s[1];
    double magnitude = 0;
    for (int64_t t = 0; t < s[2]; ++t) magnitude += std::fabs(k.get(b, h, t, d));
    CAPTURE(b, h, d, actual[i], expected[i]);
    REQUIRE(std::fabs(actual[i] - expected[i]) <= 2e-6 * magnitude / std::max<double>(1, s[2]));
  }
}

struct Side {
  std::string name;  // "q" or "k"
  const HostTensor& x;
  GroupRule rule;
  std::vector<float> mean;
  int64_t padded_d;
};

void check_codes(const Problem& problem, const Side& side, const reference::Quantized& model) {
  const auto codes = elements<int8_t>(problem.workspace(side.name + "_codes"));
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
  const reference::Quantized model = reference::quantize(side.x, side.rule, side.mean);
  check_codes(problem, side, model);
  check_scales(problem, side, model);
}

void check_quantization(const std::string& body, reference::ProblemShape shape,
                        std::string_view input, Layout layout) {
  CAPTURE(body, shape.m, shape.n, input, name_of(layout));
  const Variant variant = variant_of(body);
  shape.d = variant.head_dim;
  shape.dv = variant.value_head_dim;
  Problem problem(*Lab::mma_sync().kernel(variant), make_inputs(input, shape, variant.input, 3),
                  layout);
  problem.launch(kQuantizePhase);
  const int64_t padded = padded_head_dim(variant);
  if (variant.smooth_k == Smoothing::kMean) check_mean(problem);
  check_side(problem, {"q", problem.inputs().q, reference::query_groups(variant), {}, padded});
  check_side(problem,
             {"k", problem.inputs().k, reference::key_groups(variant), k_mean(problem), padded});
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
  };
  std::vector<Variant> variants;
  for (const int d : {64, 40}) {
    for (const std::string_view body : kBodies) {
      variants.push_back(variant_of(fmt::format("head_dim = {}; {}", d, body)));
    }
  }
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
