// OCP e4m3 (1 sign, 4 exponent, 3 mantissa bits; bias 7; no infinities) and e5m2 (5 and 2; bias 15)
// as bit patterns: exact widening, and narrowing that rounds to nearest even and saturates.
//
// Magnitudes beyond the largest number, infinities included, become that number, 448 or 57344;
// subnormals, multiples of 2^-9 or 2^-16, are kept; a NaN is 0x7f with the sign of the operand.
// Pure functions.
#pragma once

#include <cstdint>

#include "compiler/support/dtype.h"

namespace sagejit::reference {

inline constexpr float kMaxE4m3 = 448.0f, kMaxE5m2 = 57344.0f;

float e4m3_to_f32(uint8_t bits);
float e5m2_to_f32(uint8_t bits);
float fp8_to_f32(DType type, uint8_t bits);  // e4m3 or e5m2

// One rounding: also what f32 values give, which are doubles.
uint8_t f64_to_e4m3(double value);
uint8_t f64_to_e5m2(double value);
uint8_t f64_to_fp8(DType type, double value);

}  // namespace sagejit::reference
