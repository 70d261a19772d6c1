// OCP e2m1 (1 sign, 2 exponent, 1 mantissa bit: 0, 0.5, 1, 1.5, 2, 3, 4, 6; no infinity, no NaN) as
// bit patterns.
//
// Narrowing rounds to nearest, ties to the even code; magnitudes beyond 6 become 6. Pure functions.
#pragma once

#include <cstdint>

namespace sagejit::reference {

inline constexpr float kMaxE2m1 = 6.0f;

float e2m1_to_f32(uint8_t code);  // of the lower four bits

// Not of a NaN.
uint8_t f64_to_e2m1(double value);

}  // namespace sagejit::reference
