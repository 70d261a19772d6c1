#include "tests/reference/attention.h"

#include <chrono>
#include <cmath>
#include <limits>

#include "compiler/support/error.h"
#include "tests/reference/inputs.h"
#include "tests/support/catch.h"

namespace sagejit::reference {
namespace {

constexpr double kNegativeInfinity = -std::numeric_limits<double>::infinity();

Variant plain_variant(int d, int dv) {
  Variant variant;
  variant.head_dim = d;
  variant.value_head_dim = dv;
  return variant;
}

bool visible(const Mask& mask, int64_t i, int64_t j, int64_t m, int64_t n) {
  switch (mask.kind) {
    case MaskKind::kCausalTopLeft:
      return j <= i;
    case MaskKind::kCausalBottomRight:
      return j <= i + (n - m);
    case MaskKind::kWindow:
      return i + (n - m) - mask.window_left <= j && j <= i + (n - m) + mask.window_right;
    default:
      return true;
  }
}

// The definition, one output element at a time, without maxima or blocks (so scores must stay
// small).
AttentionResult by_definition(const Variant& variant, const Inputs& in) {
  const auto [b_count, hq, m, d_count] = in.q.shape();
  const int64_t hkv = in.k.shape()[1], n = in.k.shape()[2], dv = in.v.shape()[3];
  AttentionResult result{b_count, hq, m, dv, {}, {}, {}};
  for (int64_t row = 0; row < b_count * hq * m; ++row) {
    const int64_t b = row / (hq * m), h = row / m % hq, i = row % m;
    const int64_t key_head = h / (hq / hkv);
    double sum = 0;
    std::vector<double> weighted(static_cast<size_t>(dv), 0.0);
    for (int64_t j = 0; j < n; ++j) {
      if (!visible(variant.mask, i, j, m, n)) continue;
      double score = 0;
      for (int64_t d = 0; d < in.q.shape()[3]; ++d) {
        score += double{in.q.get(b, h, i, d)} * in.k.get(b, key_head, j, d);
      }
      score *= variant.score.scale.value_or(std::pow(variant.head_dim, -0.5));
      if (variant.score.softcap)
        score = std::tanh(score / *variant.score.softcap) * *variant.score.softcap;
      sum += std::exp(score);
      for (int64_t d = 0; d < dv; ++d) {
        weighted[static_cast<size_t>(d)] += std::exp(score) * in.v.get(b, key_head, j, d);
      }
    }
    result.lse.push_back(std::log(sum));
    for (double value : weighted) result.o.push_back(sum == 0 ? 0 : value / sum);
  }
  return result;
}

void check_same(const AttentionResult& actual, const AttentionResult& expected) {
  REQUIRE(actual.o.size() == expected.o.size());
  REQUIRE(actual.lse.size() == expected.lse.size());
  double worst = 0;
  for (size_t e = 0; e < actual.o.size(); ++e) {
    worst = std::max(worst, std::abs(actual.o[e] - expected.o[e]));
  }
  CHECK(worst < 1e-12);
  int wrong_lse = 0;
  for (size_t e = 0; e < actual.lse.size(); ++e) {
    wrong_lse +=
        actual.lse[e] != expected.lse[e] && !(std::abs(actual.lse[e] - expected.lse[e]) < 1e-12);
  }
  CHECK(wrong_lse == 0);
}

TEST_CASE("two keys with scores 0 and ln 3 weigh 1/4 and 3/4") {
  Variant variant = plain_variant(16, 16);
  variant.score.scale = 1.0;
  HostTensor q(DType::kF32, {1, 1, 1, 16}), k(DType::kF32, {1, 1, 2, 16}),
      v(DType::kF32, {1, 1, 2, 16});
  for (int64_t d = 0; d < 16; ++d) {
    q.set(0, 0, 0, d, d == 5 ? 1.0 : 0.0);
    k.set(0, 0, 0, d, 0.0);
    k.set(0, 0, 1, d, d == 5 ? std::log(3.0) : 0.0);
    v.set(0, 0, 0, d, 8.0);
    v.set(0, 0, 1, d, d);
  }
  const AttentionResult result = exact_attention(variant, q, k, v);
  for (int64_t d = 0; d < 16; ++d) {
    CHECK(result.o[static_cast<size_t>(d)] == Approx(2.0 + 0.75 * d).epsilon(1e-6));
  }
  CHECK(result.lse[0] == Approx(std::log(4.0)).epsilon(1e-6));
}

TEST_CASE("the blocked reference agrees with the definition for every mask, shape and head ratio") {
  const Mask masks[] = {{MaskKind::kNone, 0, 0, {}},
                        {MaskKind::kCausalTopLeft, 0, 0, {}},
                        {MaskKind::kCausalBottomRight, 0, 0, {}},
                        {MaskKind::kWindow, 5, 0, {}},
                        {MaskKind::kWindow, 40, 3, {}}};
  const ProblemShape shapes[] = {{1, 1, 1, 1, 1, 16, 16},    {2, 4, 2, 7, 65, 40, 24},
                                 {1, 8, 1, 64, 33, 64, 64},  {2, 3, 3, 70, 70, 16, 72},
                                 {1, 2, 1, 100, 17, 24, 16}, {1, 1, 1, 5, 0, 16, 16}};
  for (const Mask& mask : masks) {
    for (const ProblemShape& shape : shapes) {
      CAPTURE(static_cast<int>(mask.kind), shape.m, shape.n);
      Variant variant = plain_variant(static_cast<int>(shape.d), static_cast<int>(shape.dv));
      variant.mask = mask;
      const Inputs in = make_inputs("normal", shape, DType::kF16, 3);
      check_same(exact_attention(variant, in.q, in.k, in.v), by_definition(variant, in));
    }
  }
}

TEST_CASE("scale and softcap follow the definition") {
  Variant variant = plain_variant(32, 32);
  variant.score.scale = 0.4;
  variant.score.softcap = 2.0;
  const Inputs in = make_inputs("normal", {1, 2, 1, 20, 30, 32, 32}, DType::kBF16, 9);
  check_same(exact_attention(variant, in.q, in.k, in.v), by_definition(variant, in));
}

TEST_CASE("rows that see no key give zero and minus infinity") {
  Variant variant = plain_variant(16, 16);
  variant.mask.kind = MaskKind::kCausalBottomRight;
  const Inputs in = make_inputs("normal", {1, 1, 1, 9, 4, 16, 16}, DType::kF16, 1);
  const AttentionResult result = exact_attention(variant, in.q, in.k, in.v);
  for (size_t i = 0; i < 5; ++i) {
    CHECK(result.lse[i] == kNegativeInfinity);
    for (size_t d = 0; d < 16; ++d) CHECK(result.o[i * 16 + d] == 0.0);
  }
  CHECK(std::isfinite(result.lse[5]));
}

TEST_CASE("a masked key's infinite value stays out, a visible one's comes through") {
  Variant variant = plain_variant(16, 16);
  variant.mask.kind = MaskKind::kCausalTopLeft;
  Inputs in = make_inputs("normal", {1, 1, 1, 4, 4, 16, 16}, DType::kF16, 1);
  in.v.set(0, 0, 2, 7, std::numeric_limits<double>::infinity());
  const AttentionResult result = exact_attention(variant, in.q, in.k, in.v);
  CHECK(std::isfinite(result.o[1 * 16 + 7]));
  CHECK(std::isinf(result.o[2 * 16 + 7]));
  CHECK(std::isfinite(result.o[2 * 16 + 6]));
}

TEST_CASE("a NaN in a query row spoils that row alone") {
  Inputs in = make_inputs("normal", {1, 1, 1, 3, 8, 16, 16}, DType::kF16, 1);
  in.q.set(0, 0, 1, 0, std::nan(""));
  const AttentionResult result = exact_attention(plain_variant(16, 16), in.q, in.k, in.v);
  CHECK(std::isnan(result.o[16]));
  CHECK(std::isnan(result.lse[1]));
  CHECK(std::isfinite(result.o[0]));
  CHECK(std::isfinite(result.o[32]));
}

TEST_CASE("strides change where elements lie, not the answer") {
  const Variant variant = plain_variant(24, 16);
  const Inputs in = make_inputs("normal", {2, 2, 2, 10, 12, 24, 16}, DType::kF16, 5);
  const AttentionResult dense = exact_attention(variant, in.q, in.k, in.v);
  const HostTensor q = in.q.restrided(strides_bthd(in.q.shape()));
  const HostTensor k = in.k.restrided({2000, 1000, 40, 1});
  const HostTensor v = in.v.restrided({1000, 1, 50, 3});
  CHECK(exact_attention(variant, q, k, v).o == dense.o);
}

TEST_CASE("shapes that do not fit are named") {
  const Variant variant = plain_variant(16, 16);
  const Inputs in = make_inputs("normal", {1, 3, 3, 4, 4, 16, 16}, DType::kF16, 1);
  const Inputs other = make_inputs("normal", {1, 2, 2, 4, 4, 16, 16}, DType::kF16, 1);
  CHECK_THROWS_WITH(
      exact_attention(variant, in.q, other.k, other.v),
      "shapes do not fit: q [1, 3, 4, 16], k [1, 2, 4, 16], v [1, 2, 4, 16]; q is [b, "
      "hq, m, d], k [b, hkv, n, d], v [b, hkv, n, dv], and hq a multiple of hkv");
  CHECK_THROWS_WITH(exact_attention(plain_variant(32, 16), in.q, in.k, in.v),
                    "head dims of q, k, v are 16, 16, 16; the variant has head_dim 32 and "
                    "value_head_dim 16");
}

TEST_CASE("4x8x1000x1000x128 takes seconds", "[slow]") {
  const Inputs in = make_inputs("normal", {4, 8, 8, 1000, 1000, 128, 128}, DType::kF16, 1);
  const auto start = std::chrono::steady_clock::now();
  exact_attention(plain_variant(128, 128), in.q, in.k, in.v);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  WARN("4x8x1000x1000x128 took " << seconds.count() << " s");
  CHECK(seconds.count() < 60);
}

}  // namespace
}  // namespace sagejit::reference
