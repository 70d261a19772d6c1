#include "tools/cli/work.h"

#include "tests/support/catch.h"
#include "tools/cli/statistics.h"

namespace sagejit::cli {
namespace {

using reference::ProblemShape;

double pairs(const Mask& mask, int64_t m, int64_t n) {
  // 2 b hq pairs (d + dv) with everything else 1.
  return attention_flops(mask, {1, 1, 1, m, n, 1, 1}) / 4;
}

TEST_CASE("operations are those of the pairs that the mask leaves") {
  CHECK(attention_flops({}, {2, 8, 4, 100, 300, 64, 96}) == 2.0 * 2 * 8 * 100 * 300 * (64 + 96));
  const Mask top_left = {MaskKind::kCausalTopLeft, 0, 0, {}};
  const Mask bottom_right = {MaskKind::kCausalBottomRight, 0, 0, {}};
  CHECK(pairs(top_left, 10, 10) == 50);  // by custom; 55 are visible
  CHECK(pairs(bottom_right, 10, 10) == 50);
  CHECK(pairs(top_left, 3, 10) == 1 + 2 + 3);
  CHECK(pairs(bottom_right, 3, 10) == 8 + 9 + 10);
  CHECK(pairs(bottom_right, 10, 3) == 1 + 2 + 3);
  CHECK(pairs({MaskKind::kWindow, 1, 1, {}}, 4, 4) == 2 + 3 + 3 + 2);
}

TEST_CASE("sizes beyond 32 bits are counted") {
  CHECK(pairs({}, int64_t{1} << 20, int64_t{1} << 20) == 0x1p40);
}

KernelLaunch launch(const char* name, Phase phase, std::vector<KernelParam> params) {
  KernelLaunch result;
  result.kernel = name;
  result.phase = phase;
  result.params = std::move(params);
  return result;
}

Tensor tensor(DType type, std::array<int64_t, 4> shape) {
  return {true, 0x1000, type,
          4,    shape,  {shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1}};
}

TEST_CASE("the quantize phase moves each input it reads and each buffer it leaves, once") {
  const auto pointer = [](const char* name) {
    return KernelParam{name, ParamType::kPointer, -1, SizeExpr(name)};
  };
  const auto buffer = [](int index) {
    return KernelParam{"buffer", ParamType::kPointer, index, SizeExpr()};
  };
  Artifact artifact;
  artifact.tensors = {.head_dim = 64, .value_head_dim = 32};
  artifact.plan.workspace = {{"sums", SizeExpr("1000"), false},
                             {"k_codes", SizeExpr("b * hkv * n * 64"), false},
                             {"q_codes", SizeExpr("b * hq * m * 64"), false}};
  artifact.plan.launches = {
      launch("k_mean", Phase::kQuantize, {pointer("k"), buffer(0)}),
      launch("quantize_k", Phase::kQuantize, {pointer("k"), buffer(0), buffer(1)}),
      launch("quantize_q", Phase::kQuantize, {pointer("q"), buffer(2)}),
      launch("attention", Phase::kAttend, {buffer(1), buffer(2), pointer("v"), pointer("o")})};
  AttentionArgs args;
  args.tensors = {tensor(DType::kF16, {2, 4, 5, 64}),
                  tensor(DType::kF16, {2, 2, 7, 64}),
                  tensor(DType::kF16, {2, 2, 7, 32}),
                  tensor(DType::kF16, {2, 4, 5, 32}),
                  {}};
  const double q = 2 * 4 * 5 * 64, k = 2 * 2 * 7 * 64;
  CHECK(quantize_bytes(artifact, args) == 3 * q + 3 * k);  // two bytes in, one out
}

TEST_CASE("quantiles lie between neighbours") {
  CHECK(median({}) == 0);
  CHECK(median({3, 1, 2}) == 2);
  CHECK(median({4, 1, 3, 2}) == 2.5);
  CHECK(quantile({5, 1, 2, 3, 4}, 0.25) == 2);
  CHECK(quantile({1, 2}, 0.75) == 1.75);
  CHECK(quantile({7}, 1) == 7);
}

}  // namespace
}  // namespace sagejit::cli
