#include "tests/reference/float16.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tests/support/catch.h"

namespace sagejit::reference {
namespace {

// The value of a bit pattern, straight from the definition of the format.
double defined_value(uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  const int exponent = (bits & 0x7fff) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa ? std::numeric_limits<double>::quiet_NaN()
                    : sign * std::numeric_limits<double>::infinity();
  }
  const int hidden = exponent ? 1 << mantissa_bits : 0;
  const int scale = (exponent ? exponent : 1) - bias - mantissa_bits;
  return sign * std::ldexp(static_cast<double>(hidden + mantissa), scale);
}

TEST_CASE("every 16-bit pattern widens to its defined value and narrows back to itself") {
  int wrong = 0;
  for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
    const auto bits = static_cast<uint16_t>(pattern);
    const double f16 = defined_value(bits, 5), bf16 = defined_value(bits, 8);
    if (std::isnan(f16)) {
      wrong +=
          !std::isnan(f16_to_f32(bits)) || !std::isnan(f16_to_f32(f32_to_f16(f16_to_f32(bits))));
    } else {
      wrong += f16_to_f32(bits) != f16 || f32_to_f16(f16_to_f32(bits)) != bits;
    }
    if (std::isnan(bf16)) {
      wrong += !std::isnan(bf16_to_f32(bits)) ||
               !std::isnan(bf16_to_f32(f32_to_bf16(bf16_to_f32(bits))));
    } else {
      wrong += bf16_to_f32(bits) != bf16 || f32_to_bf16(bf16_to_f32(bits)) != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("midpoints between neighbouring f16 values go to the even one, the rest to the nearest") {
  int wrong = 0;
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const double low = f16_to_f32(bits), high = f16_to_f32(bits + 1), mid = (low + high) / 2;
    const uint16_t even = bits & 1 ? bits + 1 : bits;
    wrong += f64_to_f16(mid) != even;
    wrong += f64_to_f16(std::nextafter(mid, 0)) != bits;
    wrong += f64_to_f16(std::nextafter(mid, 1e9)) != bits + 1;
    wrong += f64_to_f16(-mid) != (even | 0x8000);
  }
  CHECK(wrong == 0);
}

TEST_CASE("the ends of the ranges round as IEEE 754 says") {
  CHECK(f64_to_f16(65519.999) == 0x7bff);
  CHECK(f64_to_f16(65520.0) == 0x7c00);  // the midpoint to 65536, which is even
  CHECK(f64_to_f16(1e300) == 0x7c00);
  CHECK(f64_to_f16(-std::numeric_limits<double>::infinity()) == 0xfc00);
  CHECK(f64_to_f16(0x1p-25) == 0);  // half of the smallest subnormal: ties to zero
  CHECK(f64_to_f16(0x1.0001p-25) == 1);
  CHECK(f64_to_f16(-1e-300) == 0x8000);
  CHECK(f64_to_f16(0x1.ffdfp-15) == 0x0400);  // just below the normal range: carries into it
  CHECK(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(f32_to_bf16(0x1p-133f) == 1);
  CHECK(f32_to_bf16(1.00390625f) == 0x3f80);  // 1 + 2^-8: tie, to even
}

TEST_CASE("narrowing from double rounds once") {
  // Through float this would round to the tie 1 + 2^-11 first, and then down to 1.
  CHECK(f64_to_f16(1 + 0x1p-11 + 0x1p-40) == 0x3c01);
  CHECK(f32_to_f16(static_cast<float>(1 + 0x1p-11 + 0x1p-40)) == 0x3c00);
}

}  // namespace
}  // namespace sagejit::reference
