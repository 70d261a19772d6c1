// TileLayout: a row-major tile in shared memory, in chunks of 16 bytes, swizzled so that the eight
// rows an ldmatrix phase reads at one logical chunk lie in eight different groups of four banks.
//
// With c chunks in a row and k = min(3, number of trailing zero bits of c), chunk j of row r is
// stored at j ^ ((r >> (3 - k)) mod 2^k): odd row lengths need no swizzle, lengths divisible by 8
// the full XOR with r mod 8. The pattern repeats every 8 rows, so a step of 8 rows is a constant
// number of bytes.
//
// Or chunk by chunk: chunk 0 of every row, then chunk 1, and so on. Then eight rows' chunks are
// neighbours, a core matrix (core_matrix.h), and need no swizzle. So lies 8-bit V.
#pragma once

#include <algorithm>
#include <bit>

namespace sagejit {

inline constexpr int kChunkBytes = 16;
inline constexpr int kSwizzlePeriodRows = 8;

struct TileLayout {
  int rows = 0;
  int row_chunks = 0;
  bool by_chunk = false;

  constexpr int row_bytes() const { return row_chunks * kChunkBytes; }
  constexpr int bytes() const { return rows * row_bytes(); }
  constexpr int swizzle_bits() const {
    return by_chunk ? 0 : std::min(3, std::countr_zero(static_cast<unsigned>(row_chunks)));
  }
  // r >> row_shift(), masked, is what a chunk index is XORed with.
  constexpr int row_shift() const { return 3 - swizzle_bits(); }
  constexpr int chunk_mask() const { return (1 << swizzle_bits()) - 1; }
  // Where chunk `chunk` of row `row` is stored, bytes from the tile's start.
  constexpr int offset_bytes(int row, int chunk) const {
    if (by_chunk) return (chunk * rows + row) * kChunkBytes;
    return row * row_bytes() + (chunk ^ ((row >> row_shift()) & chunk_mask())) * kChunkBytes;
  }
};

}  // namespace sagejit
