// OCP e4m3 (1 sign, 4 exponent, 3 mantissa bits; bias 7; no infinities) as bit patterns: exact
// widening, and narrowing that rounds to nearest even and saturates.
//
// Magnitudes beyond 448, infinities included, become 448; subnormals, multiples of 2^-9, are kept;
// a NaN is 0x7f with the sign of the operand. Pure functions.
#pragma once

#include <cstdint>

namespace sagejit::reference {

inline constexpr float kMaxE4m3 = 448.0f;

float e4m3_to_f32(uint8_t bits);

// One rounding: also what f32 values give, which are doubles.
uint8_t f64_to_e4m3(double value);

}  // namespace sagejit::reference
