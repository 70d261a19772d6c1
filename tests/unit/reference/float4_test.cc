#include "tests/reference/float4.h"

#include <cmath>
#include <limits>

#include "tests/reference/host_tensor.h"
#include "tests/reference/quantizer.h"
#include "tests/support/catch.h"

namespace sagejit::reference {
namespace {

constexpr double kValues[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};

TEST_CASE("every e2m1 code widens to its value and narrows back to itself") {
  for (int code = 0; code < 8; ++code) {
    CAPTURE(code);
    const auto positive = static_cast<uint8_t>(code), negative = static_cast<uint8_t>(code | 8);
    CHECK(e2m1_to_f32(positive) == kValues[code]);
    CHECK(e2m1_to_f32(negative) == -kValues[code]);
    CHECK(f64_to_e2m1(kValues[code]) == positive);
    CHECK(f64_to_e2m1(-kValues[code]) == negative);
  }
}

TEST_CASE(
    "midpoints of e2m1 go to the even code, the rest to the nearest, what is beyond saturates") {
  for (int code = 0; code + 1 < 8; ++code) {
    CAPTURE(code);
    const double mid = (kValues[code] + kValues[code + 1]) / 2;
    CHECK(f64_to_e2m1(mid) == code + code % 2);
    CHECK(f64_to_e2m1(std::nextafter(mid, 0.0)) == code);
    CHECK(f64_to_e2m1(std::nextafter(mid, 10.0)) == code + 1);
  }
  CHECK(f64_to_e2m1(7.5) == 7);
  CHECK(f64_to_e2m1(-std::numeric_limits<double>::infinity()) == 15);
}

// 32 elements: a group whose largest is 3, so that its scale is 1/2, and one of zeros.
TEST_CASE("groups of 16 have a scale each") {
  HostTensor x(DType::kF32, {1, 1, 1, 32});
  x.set(0, 0, 0, 0, 3.0);
  x.set(0, 0, 0, 1, -0.7);
  x.set(0, 0, 0, 2, std::nan(""));
  const GroupQuantized rows = quantize_in_groups(x, {}, false);
  CHECK(rows.scales == std::vector<uint8_t>{0x30, 0});  // 2^-1
  CHECK(rows.codes[0] == 7);
  CHECK(rows.codes[1] == 11);  // -1.4 is nearest to -1.5
  CHECK(rows.codes[2] == 0);
  HostTensor v(DType::kF32, {1, 1, 17, 1});
  v.set(0, 0, 16, 0, 8.0);
  const GroupQuantized values = quantize_values_in_groups(v, 4.0f);
  CHECK(values.scales == std::vector<uint8_t>{0, 0x40});  // 2
  CHECK(values.codes[16] == 6);
}

TEST_CASE("what no scale reaches saturates or vanishes") {
  double large[] = {1e4, 1.0}, tiny[] = {0x1p-12, 0.0};
  round_group(large, 2);
  CHECK(large[0] == 2688);
  CHECK(large[1] == 0);
  round_group(tiny, 2);
  CHECK(tiny[0] == 0);
}

}  // namespace
}  // namespace sagejit::reference
