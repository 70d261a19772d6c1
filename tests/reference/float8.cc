#include "tests/reference/float8.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sagejit::reference {
namespace {

struct Format {
  int mantissa_bits;
  int min_exponent;  // of normal numbers
  int largest;       // code of the largest number; those behind it are infinity, if any, and NaNs
  bool has_infinity;
};
constexpr Format kE4m3{3, -6, 0x7e, false}, kE5m2{2, -14, 0x7b, true};
constexpr uint8_t kNan = 0x7f;

float widened(const Format& format, uint8_t bits) {
  const int code = bits & 0x7f, steps = 1 << format.mantissa_bits;
  const int exponent = code / steps, mantissa = code % steps;
  const int significand = exponent ? steps + mantissa : mantissa;
  const int scale = std::max(exponent, 1) - 1 + format.min_exponent - format.mantissa_bits;
  float magnitude = std::ldexp(static_cast<float>(significand), scale);
  if (code > format.largest) {
    const bool is_infinite = format.has_infinity && code == format.largest + 1;
    magnitude = is_infinite ? std::numeric_limits<float>::infinity()
                            : std::numeric_limits<float>::quiet_NaN();
  }
  return bits & 0x80 ? -magnitude : magnitude;
}

uint8_t narrowed(const Format& format, double value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return sign | kNan;
  const auto largest = static_cast<uint8_t>(format.largest);
  const double magnitude = std::min(std::fabs(value), double{widened(format, largest)});
  const int exponent =
      magnitude == 0 ? format.min_exponent : std::max(std::ilogb(magnitude), format.min_exponent);
  // In units of the last place; a carry out of the mantissa raises the exponent by itself.
  const double units = std::nearbyint(std::ldexp(magnitude, format.mantissa_bits - exponent));
  const int code =
      ((exponent - format.min_exponent) << format.mantissa_bits) + static_cast<int>(units);
  return sign | static_cast<uint8_t>(std::min(code, format.largest));
}

const Format& format_of(DType type) {
  return type == DType::kE5M2 ? kE5m2 : kE4m3;
}

}  // namespace

float e4m3_to_f32(uint8_t bits) {
  return widened(kE4m3, bits);
}
float e5m2_to_f32(uint8_t bits) {
  return widened(kE5m2, bits);
}
float fp8_to_f32(DType type, uint8_t bits) {
  return widened(format_of(type), bits);
}

uint8_t f64_to_e4m3(double value) {
  return narrowed(kE4m3, value);
}
uint8_t f64_to_e5m2(double value) {
  return narrowed(kE5m2, value);
}
uint8_t f64_to_fp8(DType type, double value) {
  return narrowed(format_of(type), value);
}

}  // namespace sagejit::reference
