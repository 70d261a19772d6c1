// Which thread of a warp holds which element of a tensor-core operand, and in which register.
//
// With g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16 / mma.m16n8k32 /
// mma.m16n8k64"):
//   A (m x k, row): register r holds row g + 8 (r % 2), the 4 bytes from byte 4t + 16 (r / 2) of
//   that row B (k x n, col): register r holds column g, the 4 bytes from byte 4t + 16 r of that
//   column C (m x n):      element e of a thread is row g + 8 (e / 2), column 2t + e % 2
// The scale factors of fp4 products (PTX ISA, "Block Scaling for mma.sync"), ue4m3, one for 16
// elements along k, four to a register, the first lowest; a thread that the selectors leave out may
// hold anything:
//   A: the threads with t / 2 == thread_a (0 or 1) hold those of row g + 8 (t % 2)
//   B: the thread with t == thread_b (0 to 3) holds those of column g
// The layouts depend on bytes alone, so one definition serves 4-bit (k = 64), 8-bit (k = 32) and
// 16-bit (k = 16) shapes.
#pragma once

#include "compiler/ir/ir.h"

namespace sagejit::ir {

constexpr int kWarpThreads = 32;
constexpr int kRegisterBytes = 4;

struct Coordinate {
  int row = 0, column = 0;
};

constexpr int a_registers(const MmaInfo& mma) {
  return mma.m * mma.k * bits_of(mma.a) / 8 / kRegisterBytes / kWarpThreads;
}
constexpr int b_registers(const MmaInfo& mma) {
  return mma.k * mma.n * bits_of(mma.b) / 8 / kRegisterBytes / kWarpThreads;
}
constexpr int c_elements(const MmaInfo& mma) {
  return mma.m * mma.n / kWarpThreads;
}
constexpr int c_registers(const MmaInfo& mma) {
  return c_elements(mma) * bits_of(mma.c) / 8 / kRegisterBytes;
}

constexpr bool has_scale_factors(const MmaInfo& mma) {
  return mma.a == DType::kE2M1;
}

// Element `i` (from the lowest bits up) of register `r` of A: row of m, column of k.
constexpr Coordinate a_element(const MmaInfo& mma, int lane, int r, int i) {
  return {lane / 4 + 8 * (r % 2), (4 * (lane % 4) + 16 * (r / 2)) * 8 / bits_of(mma.a) + i};
}
// Element `i` of register `r` of B: row of k, column of n.
constexpr Coordinate b_element(const MmaInfo& mma, int lane, int r, int i) {
  return {(4 * (lane % 4) + 16 * r) * 8 / bits_of(mma.b) + i, lane / 4};
}
constexpr Coordinate c_element(int lane, int e) {
  return {lane / 4 + 8 * (e / 2), 2 * (lane % 4) + e % 2};
}

// True if the threads' registers together hold every element of A, B and C exactly once.
constexpr bool owns_each_element_once(const MmaInfo& mma) {
  constexpr int kMax = 64;
  int a[kMax][kMax] = {}, b[kMax][kMax] = {}, c[kMax][kMax] = {};
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    for (int r = 0; r < a_registers(mma); ++r) {
      for (int i = 0; i < 32 / bits_of(mma.a); ++i) {
        const Coordinate at = a_element(mma, lane, r, i);
        ++a[at.row][at.column];
      }
    }
    for (int r = 0; r < b_registers(mma); ++r) {
      for (int i = 0; i < 32 / bits_of(mma.b); ++i) {
        const Coordinate at = b_element(mma, lane, r, i);
        ++b[at.row][at.column];
      }
    }
    for (int e = 0; e < c_elements(mma); ++e) {
      const Coordinate at = c_element(lane, e);
      ++c[at.row][at.column];
    }
  }
  for (int row = 0; row < kMax; ++row) {
    for (int column = 0; column < kMax; ++column) {
      if (a[row][column] != (row < mma.m && column < mma.k)) return false;
      if (b[row][column] != (row < mma.k && column < mma.n)) return false;
      if (c[row][column] != (row < mma.m && column < mma.n)) return false;
    }
  }
  return true;
}

#define MMA(id, name, m, n, k, a, b, c, ptx_version, ptx) \
  static_assert(owns_each_element_once({Op::id, m, n, k, DType::a, DType::b, DType::c}), name);
#include "compiler/ir/mma.def"
#undef MMA

}  // namespace sagejit::ir
