#include "tests/reference/quantized_attention.h"

#include <algorithm>
#include <numbers>

#include "compiler/support/error.h"
#include "tests/reference/float8.h"
#include "tests/reference/inputs.h"
#include "tests/reference/metrics.h"
#include "tests/support/catch.h"

namespace sagejit::reference {
namespace {

Variant sage1(int d) {
  Variant variant;
  variant.head_dim = variant.value_head_dim = d;
  variant.q = {DType::kS8, Granularity::kBlock, 128};
  variant.k = {DType::kS8, Granularity::kBlock, 64};
  variant.smooth_k = Smoothing::kMean;
  return variant;
}

struct Outcome {
  OutputMetrics output;
  double lse;
};
Outcome outcome(const Variant& variant, const Inputs& in) {
  const AttentionResult exact = exact_attention(variant, in.q, in.k, in.v);
  const AttentionResult model = quantized_attention(variant, in.q, in.k, in.v);
  return {compare_output({exact.b, exact.h, exact.m, exact.dv}, model.o, exact.o),
          max_lse_error(model.lse, exact.lse)};
}

TEST_CASE("int8 Q and K with f16 P and V keep the published accuracy on N(0, 1)") {
  const Inputs in = make_inputs("normal", {1, 2, 2, 256, 512, 64, 64}, DType::kF16, 1);
  const Outcome result = outcome(sage1(64), in);
  CHECK(result.output.overall.cosine > 0.9995);
  CHECK(result.output.overall.cosine < 0.999999);  // quantization does cost something
  CHECK(result.lse < 0.05);
}

TEST_CASE("smoothing K is what saves biased keys, and the LSE is of the true scores") {
  const Inputs in = make_inputs("biased_k", {1, 2, 1, 128, 256, 64, 64}, DType::kF16, 2);
  Variant variant = sage1(64);
  const Outcome smoothed = outcome(variant, in);
  CHECK(smoothed.output.overall.cosine > 0.9995);
  CHECK(smoothed.lse < 0.1);
  variant.smooth_k = Smoothing::kNone;
  CHECK(outcome(variant, in).output.overall.cosine < smoothed.output.overall.cosine - 0.0005);
}

Variant sage2_8_8(int d, double range) {
  Variant variant = sage1(d);
  variant.p = {DType::kE4M3, range, false};
  variant.v = {DType::kE4M3, Granularity::kChannel, 0, Smoothing::kNone, 0.0};
  return variant;
}

TEST_CASE("e4m3 P and V keep the published accuracy at any range") {
  const Inputs in = make_inputs("normal", {1, 2, 2, 256, 512, 64, 64}, DType::kF16, 1);
  const double f16 = outcome(sage1(64), in).output.overall.cosine;
  for (const double range : {448.0, 112.0, 16.0}) {
    CAPTURE(range);
    const Outcome result = outcome(sage2_8_8(64, range), in);
    CHECK(result.output.overall.cosine > 0.999);
    CHECK(result.output.overall.cosine < f16);
    CHECK(result.lse < 0.05);
  }
  // Where P is flushed to zero below 2^-10 of the maximum, and where it is not.
  CHECK(outcome(sage2_8_8(64, 1.0), in).output.overall.cosine < 0.9999 * f16);
}

TEST_CASE("the denominator sums e4m3 P before or after rounding") {
  const Inputs in = make_inputs("normal", {1, 1, 1, 64, 128, 64, 64}, DType::kBF16, 5);
  Variant variant = sage2_8_8(64, 448.0);
  const Outcome exact = outcome(variant, in);
  variant.row_sum = RowSum::kQuantized;
  const Outcome quantized = outcome(variant, in);
  CHECK(quantized.lse > exact.lse);
  CHECK(quantized.lse < 0.1);
  CHECK(quantized.output.overall.cosine > 0.999);
}

// Scores an eighth of a log2 unit apart, and one-hot values: what the output has of each key is its
// P, one code less than the one before.
TEST_CASE("codes of P written directly are a line between powers of 2") {
  constexpr int kKeys = 64, kDim = 64;
  Variant variant = sage2_8_8(kDim, 16.0);
  variant.smooth_k = Smoothing::kNone;
  variant.p.direct_code = true;
  variant.row_sum = RowSum::kQuantized;
  variant.score.scale = std::numbers::ln2 / 8 / 127;
  HostTensor q(DType::kF32, {1, 1, 1, kDim}), k(DType::kF32, {1, 1, kKeys, kDim}),
      v(DType::kF32, {1, 1, kKeys, kDim});
  for (HostTensor* x : {&q, &k, &v}) std::fill(x->bytes().begin(), x->bytes().end(), 0);
  q.set(0, 0, 0, 0, 127);
  for (int j = 0; j < kKeys; ++j) {
    k.set(0, 0, j, 0, static_cast<float>(127 - j));
    v.set(0, 0, j, j, 1);
  }
  const AttentionResult result = quantized_attention(variant, q, k, v);
  for (int j = 0; j < kKeys; ++j) {
    // The code of 16 is 88. The line's offset, less than half a code, does not show.
    const double p = e4m3_to_f32(static_cast<uint8_t>(88 - j)) / e4m3_to_f32(88);
    CHECK(result.o[static_cast<size_t>(j)] / result.o[0] == Approx(p));
  }
}

TEST_CASE("the denominator sums directly written codes") {
  const Inputs in = make_inputs("normal", {1, 2, 1, 64, 1000, 64, 64}, DType::kBF16, 5);
  Variant variant = sage2_8_8(64, 16.0);
  variant.row_sum = RowSum::kQuantized;
  const Outcome rounded = outcome(variant, in);
  variant.p.direct_code = true;
  const Outcome direct = outcome(variant, in);
  CHECK(direct.output.overall.relative_l1 > rounded.output.overall.relative_l1);
  CHECK(direct.output.overall.relative_l1 < 1.15 * rounded.output.overall.relative_l1);
  CHECK(direct.lse < 0.02);  // the offset leaves no bias
}

TEST_CASE("finer scales are better") {
  const Inputs in = make_inputs("normal", {1, 1, 1, 128, 256, 64, 64}, DType::kF16, 3);
  Variant coarse = sage1(64), fine = sage1(64);
  coarse.q.granularity = coarse.k.granularity = Granularity::kTensor;
  fine.q.granularity = fine.k.granularity = Granularity::kToken;
  CHECK(outcome(fine, in).output.overall.rmse < outcome(coarse, in).output.overall.rmse);
}

TEST_CASE("what is not modelled is refused by name") {
  const Inputs in = make_inputs("normal", {1, 1, 1, 1, 1, 64, 64}, DType::kF16, 1);
  Variant variant = sage1(64);
  variant.k.type = DType::kE5M2;
  CHECK_THROWS_WITH(quantized_attention(variant, in.q, in.k, in.v),
                    "the model of the quantized variant does not cover Q or K other than int8, "
                    "int4, fp4 or e4m3");
}

}  // namespace
}  // namespace sagejit::reference
