// How the tensor cores of sm_90 add up products of 8-bit floats into f32 accumulators.
//
// The PTX ISA leaves it open. Measured on an NVIDIA H100 80GB HBM3 (driver 580.159.04, CUDA 13.0,
// 2026-11-24) with wgmma.m64n8k32.f32.e4m3.e4m3, and equal to it in every bit of 122880 results
// (a sample is in tests/unit/emulator/data):
//
//   The addends are C and the 32 products, which are exact; those that are 0 take no part. A
//   number's exponent is that of its leading bit, but for subnormals the least exponent of their
//   format: -6 in e4m3. A product's exponent is the sum of its factors' (so that its significand is
//   below 4, and below 1 with a subnormal factor).
//   E, the largest exponent of an addend, places a grid of 2^(E - 13) below all of them. Each
//   addend is cut off to the grid, towards zero; they are summed exactly, all 33 at once.
//   The sum is cut off, towards zero, to 13 bits behind its leading one. A sum of 0 is +0.
//
// So C itself loses what it has beyond 13 bits, in every instruction. Not measured, and assumed to
// be alike: e5m2 (least exponent -14), infinities and NaNs (as in IEEE arithmetic), C subnormal or
// -0, sums that overflow (infinity). Other architectures may differ; so may f16 accumulators, and
// mma.sync of 8-bit floats (sm_89, sm_120), which are the exact sums of numerics.h.
#pragma once

#include <cstdint>

#include "runtime/device/emulator/semantics/wgmma.h"

namespace sagejit::emulator {

// One wgmma. Rows of A and columns of B are set by code; then add_up() makes `out` of `c`.
struct Float8Sum {
  using Broadcast4 = float[4];
  using Broadcast8 = int16_t[8];

  // A's values and exponents stand in all lanes of a vector.
  alignas(64) Broadcast4 a[kMmaM][kMmaRowBytes];
  alignas(64) Broadcast8 exponent_a[kMmaM][kMmaRowBytes];
  alignas(64) float b[kMmaRowBytes][kMmaMaxN];
  alignas(64) int16_t exponent_b[kMmaRowBytes][kMmaMaxN];
  alignas(64) uint32_t c[kMmaM][kMmaMaxN];            // bits of f32
  alignas(64) uint32_t out[kMmaM][kMmaMaxN];          // likewise
  bool special_row[kMmaM], special_column[kMmaMaxN];  // with an infinity or a NaN

  void set_row(unsigned row, MmaElement type, bool negate, const std::byte* codes);
  void set_column(unsigned column, MmaElement type, const std::byte* codes);
  void add_up(unsigned n);

 private:
  void add_up_special(unsigned n);
};

}  // namespace sagejit::emulator
