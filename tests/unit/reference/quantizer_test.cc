#include "tests/reference/quantizer.h"

#include <bit>
#include <cmath>
#include <limits>

#include "compiler/support/error.h"
#include "tests/reference/float8.h"
#include "tests/reference/inputs.h"
#include "tests/support/catch.h"

namespace sagejit::reference {
namespace {

Variant with_key(Granularity granularity, int span) {
  Variant variant;
  variant.head_dim = variant.value_head_dim = 16;
  variant.k = {DType::kS8, granularity, span};
  variant.q = {DType::kS8, granularity, span};
  return variant;
}

HostTensor rows_of(std::initializer_list<std::initializer_list<double>> rows) {
  HostTensor x(DType::kF16, {1, 1, static_cast<int64_t>(rows.size()),
                             static_cast<int64_t>(rows.begin()->size())});
  int64_t t = 0;
  for (const auto& row : rows) {
    int64_t d = 0;
    for (double value : row) x.set(0, 0, t, d++, value);
    ++t;
  }
  return x;
}

TEST_CASE("codes of a hand-computed group") {
  // amax 127: scale and inverse are 1, so halves show the rounding to even.
  const HostTensor x = rows_of({{127, 0.5, 1.5, 2.5}, {-127, -0.5, -1.5, -126.5}});
  const Quantized result = quantize(x, {2, 1, false}, {});
  CHECK(result.scales == std::vector<float>{1.0f});
  CHECK(result.codes == std::vector<int8_t>{127, 0, 2, 2, -127, 0, -2, -126});
}

TEST_CASE("int4 codes of a hand-computed group") {
  const HostTensor x = rows_of({{7, 0.5, 1.5, 2.5}, {-7, -0.5, -1.5, -6.5}});
  const Quantized result = quantize(x, {2, 1, false, DType::kS4}, {});
  CHECK(result.scales == std::vector<float>{1.0f});
  CHECK(result.codes == std::vector<int8_t>{7, 0, 2, 2, -7, 0, -2, -6});
  Variant variant = with_key(Granularity::kToken, 0);
  variant.k.type = DType::kS4;
  CHECK(key_groups(variant).largest_code() == 7.0f);
}

TEST_CASE("e4m3 codes of a hand-computed group") {
  const HostTensor x = rows_of({{448, 1, 17, 18}, {-448, -0.0, 0.0009765625, 2.125}});
  const Quantized result = quantize(x, {2, 1, false, DType::kE4M3}, {});
  CHECK(result.scales == std::vector<float>{1.0f});
  // 17 and 2.125 lie between two codes, and go to the even one; 2^-10 is half of the least.
  const std::vector<uint8_t> codes = {0x7e, 0x38, 0x58, 0x59, 0xfe, 0x80, 0x00, 0x40};
  CHECK(result.codes == std::vector<int8_t>(codes.begin(), codes.end()));
  Variant variant = with_key(Granularity::kToken, 0);
  variant.k.type = DType::kE4M3;
  CHECK(key_groups(variant).largest_code() == 448.0f);
}

TEST_CASE("the mean is subtracted in f32 before anything else") {
  const HostTensor x = rows_of({{10, 4}, {12, -4}});
  const Quantized result = quantize(x, {2, 1, false}, {{11.0f, 0.0f}, 0});
  CHECK(result.scales == std::vector<float>{4.0f / 127.0f});
  CHECK(result.codes == std::vector<int8_t>{-32, 127, 32, -127});  // 31.75 rounds to 32
}

TEST_CASE("means of blocks, the last of which is short") {
  const HostTensor x = rows_of({{1, 5}, {3, 7}, {8, -2}});
  CHECK(block_mean(x, 2) == std::vector<double>{2, 6, 8, -2});
  CHECK(token_mean(x) == std::vector<double>{4, 10.0 / 3});
  const Means means{{2, 6, 8, -2}, 2};
  const Quantized result = quantize(x, {1, 1, false, DType::kS4}, means);
  CHECK(result.codes == std::vector<int8_t>{-7, -7, 7, 7, 0, 0});
  CHECK(result.scales == std::vector<float>{1 / 7.0f, 1 / 7.0f, 0.0f});
}

TEST_CASE("the scores of the means of Q's blocks") {
  const HostTensor k = rows_of({{1, 2}, {3, 5}});
  const Means means{{1, 10, -1, 0}, 2};
  CHECK(mean_scores(means, {1, 1, 3, 2}, k, {1, 1}, 0.5f) == std::vector<float>{5, 21, 0, -1});
  CHECK(mean_scores(means, {1, 1, 3, 2}, k, {}, 1.0f) == std::vector<float>{21, 53, -1, -3});
}

TEST_CASE("rotation is by the orthonormal Hadamard matrix") {
  for (const size_t d : {16, 64, 128}) {
    for (size_t j = 0; j < d; j += 5) {
      std::vector<float> x(d, 0.0f);
      x[j] = 1;
      rotate(x);
      for (size_t i = 0; i < d; ++i) {
        const double sign = std::popcount(i & j) % 2 ? -1 : 1;
        CHECK(x[i] == static_cast<float>(sign / std::sqrt(static_cast<double>(d))));
      }
    }
  }
  std::vector<float> x = {3, 1, -2, 5};
  rotate(x);
  CHECK(x == std::vector<float>{3.5f, -2.5f, 0.5f, 4.5f});
  const Quantized result = quantize(rows_of({{3, 1, -2, 5}}), {1, 1, false, DType::kS4}, {}, true);
  CHECK(result.scales == std::vector<float>{4.5f / 7.0f});
  CHECK(result.codes == std::vector<int8_t>{5, -4, 1, 7});
}

TEST_CASE("a zero group has scale 0 and codes 0; NaN becomes 0") {
  const HostTensor zeros = rows_of({{0, -0.0}});
  CHECK(quantize(zeros, {1, 1, false}, {}).scales == std::vector<float>{0.0f});
  CHECK(quantize(zeros, {1, 1, false}, {}).codes == std::vector<int8_t>{0, 0});
  const HostTensor nan = rows_of({{std::nan(""), 1}});
  CHECK(quantize(nan, {1, 1, false}, {}).codes == std::vector<int8_t>{0, 127});
}

TEST_CASE("groups are those of one thread of an m16n8k32 product") {
  const GroupRule q = query_groups(with_key(Granularity::kThread, 32));
  const GroupRule k = key_groups(with_key(Granularity::kThread, 64));
  CHECK(q.num_groups(33) == 16);
  CHECK(k.num_groups(129) == 12);
  for (int64_t t = 0; t < 256; ++t) {
    // A C fragment: row = lane / 4 (+ 8), columns = 2 * (lane % 4) + {0, 1} (+ 8).
    CHECK(q.group_of(t) == t / 32 * 8 + t % 8);
    CHECK(k.group_of(t) == t / 64 * 4 + t % 8 / 2);
  }
}

TEST_CASE("the other granularities") {
  CHECK(key_groups(with_key(Granularity::kBlock, 64)).group_of(130) == 2);
  CHECK(key_groups(with_key(Granularity::kWarp, 16)).num_groups(17) == 2);
  CHECK(key_groups(with_key(Granularity::kToken, 0)).group_of(77) == 77);
  CHECK(key_groups(with_key(Granularity::kHead, 0)).num_groups(1000) == 1);
  CHECK(key_groups(with_key(Granularity::kTensor, 0)).whole_tensor);
  CHECK_THROWS_AS(key_groups(with_key(Granularity::kChannel, 0)), Error);
}

TEST_CASE("a tensor-wide scale is the largest of all heads") {
  HostTensor x(DType::kF16, {2, 1, 1, 2});
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t d = 0; d < 2; ++d) x.set(b, 0, 0, d, b == 1 && d == 1 ? -254 : 2);
  }
  const Quantized result = quantize(x, {0, 1, true}, {});
  CHECK(result.scales == std::vector<float>{2.0f, 2.0f});
  CHECK(result.codes == std::vector<int8_t>{1, 1, 1, -127});
}

TEST_CASE("decoded values stay within half a step of the input, in every granularity") {
  const Inputs in = make_inputs("biased_k", {2, 3, 3, 1, 100, 24, 24}, DType::kBF16, 4);
  const GroupRule rules[] = {{64, 1, false}, {64, 4, false}, {32, 8, false},
                             {1, 1, false},  {0, 1, false},  {0, 1, true}};
  for (const GroupRule& rule : rules) {
    const Quantized result = quantize(in.k, rule, {});
    double worst = 0;
    for_each_index(in.k.shape(), [&](int64_t b, int64_t h, int64_t t, int64_t d) {
      const int64_t head = b * 3 + h;
      const double scale =
          result.scales[static_cast<size_t>(head * result.num_groups + rule.group_of(t))];
      const double code = result.codes[static_cast<size_t>((head * 100 + t) * 24 + d)];
      worst = std::max(worst, std::abs(code * scale - in.k.get(b, h, t, d)) / scale);
    });
    CHECK(worst > 0.4);
    CHECK(worst < 0.5001);
  }
}

TEST_CASE("V per channel: codes of a hand-computed tensor") {
  // Channel 0 has the scale 1; 17 and 19 lie between the codes 16, 18 and 20.
  const HostTensor x =
      rows_of({{448, 0.5, 0}, {17, -2, 0}, {19, 1, 0}, {std::nan(""), 0.25, -0.0}});
  const QuantizedValues result = quantize_values(x, DType::kE4M3, 448.0f);
  CHECK(result.scales == std::vector<float>{1.0f, 2.0f / 448.0f, 0.0f});
  CHECK(result.codes ==
        std::vector<uint8_t>{0x7e, 0x6e, 0, 0x58, 0xfe, 0, 0x5a, 0x76, 0, 0, 0x66, 0x80});
  const QuantizedValues narrow = quantize_values(x, DType::kE4M3, 2.25f);
  CHECK(narrow.scales[0] == 448.0f / 2.25f);
  CHECK(narrow.codes[0] == 0x41);  // 2.25
}

TEST_CASE("V about its mean") {
  const HostTensor x = rows_of({{1, 5}, {3, 5}});
  const QuantizedValues result = quantize_values(x, DType::kE4M3, 448.0f, {2.0f, 5.0f});
  CHECK(result.scales == std::vector<float>{1.0f / 448.0f, 0.0f});
  CHECK(result.codes == std::vector<uint8_t>{0xfe, 0, 0x7e, 0});
}

TEST_CASE("V in int8: rounded to even, symmetric") {
  const HostTensor x = rows_of({{127, -4}, {2.5, 1}, {3.5, 0}, {-127, 0.5}, {std::nan(""), 2}});
  const QuantizedValues result = quantize_values(x, DType::kS8, 127.0f);
  CHECK(result.scales == std::vector<float>{1.0f, 4.0f / 127.0f});
  CHECK(result.codes == std::vector<uint8_t>{127, 0x81, 2, 32, 4, 0, 0x81, 16, 0, 64});
  CHECK(decoded_value(DType::kS8, 0x81) == -127.0f);
}

TEST_CASE("V survives the ends of its types") {
  HostTensor tiny(DType::kBF16, {1, 1, 2, 1});
  tiny.set(0, 0, 0, 0, 0x1p-133);  // range / amax overflows f32
  tiny.set(0, 0, 1, 0, 0);
  CHECK(quantize_values(tiny, DType::kE4M3, 448.0f).codes == std::vector<uint8_t>{0x7e, 0});
  CHECK(quantize_values(tiny, DType::kE4M3, 448.0f).scales ==
        std::vector<float>{0x1p-133f / 448.0f});
  const HostTensor huge = rows_of({{65504, -65504}});
  CHECK(quantize_values(huge, DType::kE4M3, 448.0f).codes == std::vector<uint8_t>{0x7e, 0xfe});
}

TEST_CASE("decoded V stays within half a step of e4m3") {
  const Inputs in = make_inputs("normal", {2, 3, 3, 1, 100, 24, 24}, DType::kBF16, 4);
  const QuantizedValues result = quantize_values(in.v, DType::kE4M3, 448.0f);
  double worst = 0;
  for_each_index(in.v.shape(), [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    const int64_t head = b * 3 + h;
    const double scale = result.scales[static_cast<size_t>(head * 24 + d)];
    const double decoded =
        scale * e4m3_to_f32(result.codes[static_cast<size_t>((head * 100 + t) * 24 + d)]);
    const double x = in.v.get(b, h, t, d);
    worst = std::max(worst, std::abs(decoded - x) / std::max(std::abs(x), scale * 0x1p-6));
  });
  CHECK(worst > 0.05);
  CHECK(worst < 0x1.001p-4);
}

TEST_CASE("the mean over tokens") {
  const std::vector<double> mean = token_mean(rows_of({{1, -8}, {2, 4}, {6, 1}}));
  CHECK(mean == std::vector<double>{3.0, -1.0});
  CHECK(token_mean(HostTensor(DType::kF16, {1, 1, 0, 2})) == std::vector<double>{0.0, 0.0});
}

}  // namespace
}  // namespace sagejit::reference
