// How the tensor cores of sm_89 and sm_90 add up products of 8-bit floats into f32 accumulators.
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
// -0, sums that overflow (infinity). mma.sync on sm_89 is taken to do the same: that its sums keep
// 13 bits is published (SageAttention 2, arXiv 2411.10958), how it aligns and cuts off is not. Sums
// in f16, and mma.sync on other architectures, are the exact ones of numerics.h.
#pragma once

#include <cstdint>

#include "runtime/device/emulator/semantics/wgmma.h"

namespace sagejit::emulator {

// One product of kRows by at most kColumns, multiples of 2 and 8, and 32 along the sum. Rows of A
// and columns of B are set by code; then add_up() makes `out` of `c`.
template <unsigned kRows, unsigned kColumns>
struct Float8Sum {
  using Broadcast4 = float[4];
  using Broadcast8 = int16_t[8];

  // A's values and exponents stand in all lanes of a vector.
  alignas(64) Broadcast4 a[kRows][kMmaRowBytes];
  alignas(64) Broadcast8 exponent_a[kRows][kMmaRowBytes];
  alignas(64) float b[kMmaRowBytes][kColumns];
  alignas(64) int16_t exponent_b[kMmaRowBytes][kColumns];
  alignas(64) uint32_t c[kRows][kColumns];            // bits of f32
  alignas(64) uint32_t out[kRows][kColumns];          // likewise
  bool special_row[kRows], special_column[kColumns];  // with an infinity or a NaN

  void set_row(unsigned row, MmaElement type, bool negate, const std::byte* codes);
  void set_column(unsigned column, MmaElement type, const std::byte* codes);
  void add_up(unsigned n);

 private:
  void add_up_special(unsigned n);
};

using WgmmaFloat8Sum = Float8Sum<kMmaM, kMmaMaxN>;
using WarpFloat8Sum = Float8Sum<16, 8>;

}  // namespace sagejit::emulator
