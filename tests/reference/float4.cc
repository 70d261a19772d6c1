#include "tests/reference/float4.h"

#include <algorithm>
#include <cmath>

namespace sagejit::reference {

float e2m1_to_f32(uint8_t code) {
  const int exponent = code >> 1 & 3, mantissa = code & 1;
  const float magnitude = exponent == 0
                              ? 0.5f * static_cast<float>(mantissa)
                              : std::ldexp(1 + 0.5f * static_cast<float>(mantissa), exponent - 1);
  return code & 8 ? -magnitude : magnitude;
}

uint8_t f64_to_e2m1(double value) {
  const double magnitude = std::min(std::fabs(value), double{kMaxE2m1});
  // Halves up to 2, wholes up to 4, then steps of two.
  const double code = magnitude < 2   ? std::nearbyint(2 * magnitude)
                      : magnitude < 4 ? std::nearbyint(magnitude) + 2
                                      : std::nearbyint(magnitude / 2) + 4;
  return static_cast<uint8_t>(static_cast<int>(code) | (std::signbit(value) ? 8 : 0));
}

}  // namespace sagejit::reference
