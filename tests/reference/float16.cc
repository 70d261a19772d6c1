#include "tests/reference/float16.h"

#include <bit>

namespace sagejit::reference {
namespace {

// A 16-bit binary format: 1 sign bit, `exponent_bits`, the rest mantissa.
struct Format {
  int exponent_bits;
  constexpr int mantissa_bits() const { return 15 - exponent_bits; }
  constexpr int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  constexpr uint16_t infinity() const {
    return static_cast<uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits());
  }
};
constexpr Format kBinary16{5};
constexpr Format kBfloat16{8};

// `significand` / 2^shift, rounded to nearest, ties to even.
uint64_t shift_right_nearest_even(uint64_t significand, int shift) {
  if (shift <= 0) return significand << -shift;
  if (shift > 63) return 0;  // significand < 2^53, so it is less than half of 2^shift
  const uint64_t kept = significand >> shift;
  const uint64_t rest = significand & ((uint64_t{1} << shift) - 1);
  const uint64_t half = uint64_t{1} << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1)));
}

uint16_t narrow(double value, Format format) {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 63) << 15);
  const int exponent_field = static_cast<int>((bits >> 52) & 0x7ff);
  const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
  if (exponent_field == 0x7ff) {
    const uint16_t quiet = fraction ? 1 << (format.mantissa_bits() - 1) : 0;
    return sign | format.infinity() | quiet;
  }
  // Doubles below the normal range are far below half the smallest subnormal of either format.
  if (exponent_field == 0) return sign;
  const int exponent = exponent_field - 1023;
  const int min_exponent = 1 - format.bias();
  // Units of the last place: 2^(exponent - mantissa_bits), or fixed once the result is subnormal.
  const int below_normal = exponent < min_exponent ? min_exponent - exponent : 0;
  const uint64_t significand = fraction | (uint64_t{1} << 52);
  uint64_t rounded =
      shift_right_nearest_even(significand, 52 - format.mantissa_bits() + below_normal);
  if (below_normal == 0) {
    if (exponent > format.bias()) return sign | format.infinity();
    // Adding lets a carry out of the mantissa raise the exponent, up to infinity.
    rounded += (static_cast<uint64_t>(exponent + format.bias() - 1)) << format.mantissa_bits();
  }
  return sign | static_cast<uint16_t>(rounded);
}

}  // namespace

float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 31;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {
    // A multiple of 2^-24, exact in f32.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 127 - 15) << 23) | (mantissa << 13));
}

float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint16_t f32_to_f16(float value) {
  return narrow(value, kBinary16);
}
uint16_t f32_to_bf16(float value) {
  return narrow(value, kBfloat16);
}
uint16_t f64_to_f16(double value) {
  return narrow(value, kBinary16);
}
uint16_t f64_to_bf16(double value) {
  return narrow(value, kBfloat16);
}

}  // namespace sagejit::reference
