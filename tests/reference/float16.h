// IEEE binary16 and bfloat16 as bit patterns: exact widening, and narrowing that rounds to nearest
// even.
//
// Subnormals, infinities and NaNs are kept (a NaN stays a quiet NaN of the same sign); values
// beyond the largest finite one round to infinity exactly where IEEE 754 says so. Pure functions.
#pragma once

#include <cstdint>

namespace sagejit::reference {

float f16_to_f32(uint16_t bits);
float bf16_to_f32(uint16_t bits);

uint16_t f32_to_f16(float value);
uint16_t f32_to_bf16(float value);

// Narrowing from double in one rounding: not the same as going through float.
uint16_t f64_to_f16(double value);
uint16_t f64_to_bf16(double value);

}  // namespace sagejit::reference
