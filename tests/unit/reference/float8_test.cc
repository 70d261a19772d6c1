#include "tests/reference/float8.h"

#include <cmath>
#include <limits>

#include "tests/support/catch.h"

namespace sagejit::reference {
namespace {

constexpr uint8_t kNumFinite = 0x7f;  // positive codes 0 .. 0x7e

// The value of a code, straight from the definition of the format.
double defined_value(int code) {
  const int exponent = code >> 3, mantissa = code & 7;
  return exponent ? std::ldexp(1 + mantissa / 8.0, exponent - 7) : std::ldexp(mantissa / 8.0, -6);
}

TEST_CASE("every e4m3 code widens to its defined value and narrows back to itself") {
  for (int code = 0; code < kNumFinite; ++code) {
    CAPTURE(code);
    const auto positive = static_cast<uint8_t>(code), negative = static_cast<uint8_t>(code | 0x80);
    CHECK(e4m3_to_f32(positive) == defined_value(code));
    CHECK(e4m3_to_f32(negative) == -defined_value(code));
    CHECK(f64_to_e4m3(e4m3_to_f32(positive)) == positive);
    CHECK(f64_to_e4m3(e4m3_to_f32(negative)) == negative);
  }
  CHECK(std::isnan(e4m3_to_f32(0x7f)));
  CHECK(std::isnan(e4m3_to_f32(0xff)));
}

TEST_CASE("midpoints of e4m3 go to the even code, the rest to the nearest") {
  for (int code = 0; code + 1 < kNumFinite; ++code) {
    CAPTURE(code);
    const double mid = (defined_value(code) + defined_value(code + 1)) / 2;
    CHECK(f64_to_e4m3(mid) == code + code % 2);
    CHECK(f64_to_e4m3(std::nextafter(mid, 0)) == code);
    CHECK(f64_to_e4m3(std::nextafter(mid, 1e9)) == code + 1);
    CHECK(f64_to_e4m3(-mid) == (0x80 | (code + code % 2)));
  }
}

TEST_CASE("the ends of e4m3") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  CHECK(e4m3_to_f32(0x7e) == kMaxE4m3);
  for (const double beyond : {449.0, 464.0, 480.0, 1e300, kInfinity}) {
    CHECK(f64_to_e4m3(beyond) == 0x7e);
    CHECK(f64_to_e4m3(-beyond) == 0xfe);
  }
  CHECK(f64_to_e4m3(std::nan("")) == 0x7f);
  CHECK(f64_to_e4m3(0.0) == 0);
  CHECK(f64_to_e4m3(-0.0) == 0x80);
  CHECK(f64_to_e4m3(0x1p-10) == 0);  // half of the smallest subnormal: ties to zero
  CHECK(f64_to_e4m3(0x1.0001p-10) == 1);
  CHECK(f64_to_e4m3(5e-324) == 0);
  CHECK(f64_to_e4m3(0x1.fp-7) == 0x08);  // just below the normal range: carries into it
}

double defined_e5m2(int code) {
  const int exponent = code >> 2, mantissa = code & 3;
  return exponent ? std::ldexp(1 + mantissa / 4.0, exponent - 15) : std::ldexp(mantissa / 4.0, -14);
}

TEST_CASE(
    "every e5m2 code widens to its defined value, and what lies between goes to the nearest") {
  constexpr int kLargest = 0x7b;
  for (int code = 0; code <= kLargest; ++code) {
    CAPTURE(code);
    const auto positive = static_cast<uint8_t>(code), negative = static_cast<uint8_t>(code | 0x80);
    CHECK(e5m2_to_f32(positive) == defined_e5m2(code));
    CHECK(e5m2_to_f32(negative) == -defined_e5m2(code));
    CHECK(f64_to_e5m2(e5m2_to_f32(positive)) == positive);
    CHECK(f64_to_fp8(DType::kE5M2, fp8_to_f32(DType::kE5M2, negative)) == negative);
    if (code == kLargest) continue;
    const double mid = (defined_e5m2(code) + defined_e5m2(code + 1)) / 2;
    CHECK(f64_to_e5m2(mid) == code + code % 2);
    CHECK(f64_to_e5m2(std::nextafter(mid, 0)) == code);
    CHECK(f64_to_e5m2(std::nextafter(mid, 1e9)) == code + 1);
  }
}

TEST_CASE("the ends of e5m2") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  CHECK(e5m2_to_f32(0x7b) == kMaxE5m2);
  CHECK(e5m2_to_f32(0x7c) == kInfinity);
  CHECK(e5m2_to_f32(0xfc) == -kInfinity);
  for (const uint8_t nan : {0x7d, 0x7e, 0x7f, 0xff}) CHECK(std::isnan(e5m2_to_f32(nan)));
  for (const double beyond : {57345.0, 61440.0, 65536.0, 1e300, kInfinity}) {
    CHECK(f64_to_e5m2(beyond) == 0x7b);
    CHECK(f64_to_e5m2(-beyond) == 0xfb);
  }
  CHECK(f64_to_e5m2(std::nan("")) == 0x7f);
  CHECK(f64_to_e5m2(-0.0) == 0x80);
  CHECK(f64_to_e5m2(0x1p-17) == 0);
  CHECK(f64_to_e5m2(0x1.0001p-17) == 1);
}

}  // namespace
}  // namespace sagejit::reference
