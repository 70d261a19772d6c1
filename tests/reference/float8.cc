#include "tests/reference/float8.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sagejit::reference {
namespace {

constexpr int kMantissaBits = 3;
constexpr int kMinExponent = -6;  // of normal numbers
constexpr uint8_t kNan = 0x7f;
constexpr int kLargest = 0x7e;  // 448

}  // namespace

float e4m3_to_f32(uint8_t bits) {
  const int exponent = (bits & 0x7f) >> kMantissaBits, mantissa = bits & 7;
  if ((bits & 0x7f) == kNan) return std::numeric_limits<float>::quiet_NaN();
  const int significand = exponent ? 8 + mantissa : mantissa;
  const int scale = std::max(exponent, 1) - 1 + kMinExponent - kMantissaBits;
  const float magnitude = std::ldexp(static_cast<float>(significand), scale);
  return bits & 0x80 ? -magnitude : magnitude;
}

uint8_t f64_to_e4m3(double value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return sign | kNan;
  const double magnitude = std::min(std::fabs(value), double{kMaxE4m3});
  const int exponent =
      magnitude == 0 ? kMinExponent : std::max(std::ilogb(magnitude), kMinExponent);
  // In units of the last place; a carry out of the mantissa raises the exponent by itself.
  const double units = std::nearbyint(std::ldexp(magnitude, kMantissaBits - exponent));
  const int code = (exponent - kMinExponent) * 8 + static_cast<int>(units);
  return sign | static_cast<uint8_t>(std::min(code, kLargest));
}

}  // namespace sagejit::reference
