#include "tests/reference/inputs.h"

#include <cmath>

#include "compiler/support/error.h"
#include "tests/reference/attention.h"
#include "tests/support/catch.h"

namespace sagejit::reference {
namespace {

constexpr ProblemShape kShape{2, 4, 2, 50, 60, 32, 40};

struct Moments {
  double mean, deviation, largest;
};
Moments moments(const HostTensor& x) {
  double sum = 0, squares = 0, largest = 0;
  for (const double value : x.to_f64()) {
    sum += value;
    squares += value * value;
    largest = std::max(largest, std::abs(value));
  }
  const auto count = static_cast<double>(x.num_elements());
  return {sum / count, std::sqrt(squares / count - sum / count * sum / count), largest};
}

TEST_CASE("every distribution fills every element, and only the seed changes it") {
  for (const std::string_view name : input_names()) {
    CAPTURE(name);
    const Inputs in = make_inputs(name, kShape, DType::kF16, 7);
    CHECK(in.q.shape() == Shape4{2, 4, 50, 32});
    CHECK(in.k.shape() == Shape4{2, 2, 60, 32});
    CHECK(in.v.shape() == Shape4{2, 2, 60, 40});
    for (const HostTensor* x : {&in.q, &in.k, &in.v}) CHECK(moments(*x).largest <= 65504);
    CHECK(make_inputs(name, kShape, DType::kF16, 7).k.bytes() == in.k.bytes());
    if (name != "constant") {
      CHECK(make_inputs(name, kShape, DType::kF16, 8).v.bytes() != in.v.bytes());
    }
  }
}

TEST_CASE("known first values: the generator is the same everywhere") {
  const Inputs in = make_inputs("normal", {1, 1, 1, 1, 1, 16, 16}, DType::kF16, 1);
  // Computed independently (arbitrary-precision integers, IEEE double log and cos).
  const double expected[] = {-1.3623046875, 0.176513671875, -0.6708984375};
  for (int d = 0; d < 3; ++d) CHECK(in.q.get(0, 0, 0, d) == expected[d]);
}

TEST_CASE("normal has the moments of N(0, 1), independent in Q, K and V") {
  const Inputs in = make_inputs("normal", {2, 8, 8, 100, 100, 64, 64}, DType::kF16, 11);
  for (const HostTensor* x : {&in.q, &in.k, &in.v}) {
    CHECK(std::abs(moments(*x).mean) < 0.02);
    CHECK(std::abs(moments(*x).deviation - 1) < 0.02);
  }
  double product = 0;
  const std::vector<double> q = in.q.to_f64(), k = in.k.to_f64();
  for (size_t e = 0; e < q.size(); ++e) product += q[e] * k[e];
  CHECK(std::abs(product / static_cast<double>(q.size())) < 0.02);
}

TEST_CASE("a sink takes nearly all of every row") {
  const Inputs in = make_inputs("sink", {1, 4, 2, 64, 256, 64, 64}, DType::kF16, 5);
  Variant variant;
  variant.head_dim = variant.value_head_dim = 64;
  const AttentionResult result = exact_attention(variant, in.q, in.k, in.v);
  double worst = 0;
  for (int64_t h = 0; h < 4; ++h) {
    for (int64_t i = 0; i < 64; ++i) {
      for (int64_t d = 0; d < 64; ++d) {
        const double o = result.o[static_cast<size_t>((h * 64 + i) * 64 + d)];
        worst = std::max(worst, std::abs(o - in.v.get(0, h / 2, 0, d)));
      }
    }
  }
  CHECK(worst < 0.5);
}

TEST_CASE("zero has zero heads and zero channels, and not only those") {
  const Inputs in = make_inputs("zero", {1, 4, 4, 3, 3, 16, 16}, DType::kF16, 5);
  CHECK(in.q.get(0, 0, 1, 1) == 0);
  CHECK(in.k.get(0, 1, 1, 1) == 0);
  CHECK(in.v.get(0, 2, 1, 1) == 0);
  CHECK(in.q.get(0, 1, 1, 4) == 0);
  CHECK(in.q.get(0, 1, 1, 5) != 0);
}

TEST_CASE("fp16_max reaches the f16 maximum") {
  const Inputs in = make_inputs("fp16_max", kShape, DType::kF16, 5);
  CHECK(moments(in.q).largest == 65504);
  CHECK(moments(in.v).largest == 65504);
}

TEST_CASE("an unknown distribution is answered with the known ones") {
  CHECK_THROWS_WITH(
      make_inputs("gauss", kShape, DType::kF16, 1),
      "no input distribution is called 'gauss'; there are normal, biased_k, biased_qk, outlier_v, "
      "sink, zero, constant, fp16_max, growing");
}

}  // namespace
}  // namespace sagejit::reference
