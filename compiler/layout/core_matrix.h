// How quantized operands lie in the workspace for the wgmma kernels, and 8-bit V for those of
// mma.sync too: as the core matrices of 8 rows x 16 bytes that wgmma reads from shared memory (PTX
// ISA, "Shared Memory Matrix Layout", no swizzle), and ldmatrix reads without a bank conflict; so
// that one copy brings a tile of any size and nothing is rearranged on the way.
//
// Within one (batch, head), with row_bytes and columns as the struct says:
//   kTokenRows    Q, K and 16-bit V: byte x of token t is at
//                   (t / 8) (8 row_bytes) + (x / 16) 128 + (t % 8) 16 + x % 16
//   kChannelRows  8-bit V: the code of channel c at position p along the tokens is at
//                   (p / 16) (16 columns) + (c / 8) 128 + (c % 8) 16 + p % 16
// A tile of consecutive tokens (a multiple of 8, or of 32 for kChannelRows) is one contiguous
// range.
//
// Positions along the tokens of 8-bit V are permuted within every 32 so that the scores that a
// thread holds after Q K^T (columns 2t, 2t + 1 of each group of 8) are, in order, what it must hold
// as the A operand of P V (bytes 4t .. 4t + 3 of each 16): position p holds token
// token_at_position(p).
#pragma once

namespace sagejit {

inline constexpr int kCoreRows = 8;
inline constexpr int kCoreRowBytes = 16;
inline constexpr int kCoreBytes = kCoreRows * kCoreRowBytes;
inline constexpr int kPermutedTokens = 32;

// Bijective within each group of 32.
constexpr int token_at_position(int position) {
  const int half = position % 32 / 16, quad = position % 16 / 4, i = position % 4;
  return position / 32 * 32 + half * 16 + i / 2 * 8 + quad * 2 + i % 2;
}
constexpr int position_of_token(int token) {
  const int half = token % 32 / 16, pair = token % 16 / 8, quad = token % 8 / 2;
  return token / 32 * 32 + half * 16 + quad * 4 + pair * 2 + token % 2;
}

constexpr long token_rows_offset(long token, long byte, long row_bytes) {
  return token / kCoreRows * (kCoreRows * row_bytes) + byte / kCoreRowBytes * kCoreBytes +
         token % kCoreRows * kCoreRowBytes + byte % kCoreRowBytes;
}
constexpr long channel_rows_offset(long position, long channel, long columns) {
  return position / kCoreRowBytes * (kCoreRowBytes * columns) + channel / kCoreRows * kCoreBytes +
         channel % kCoreRows * kCoreRowBytes + position % kCoreRowBytes;
}

constexpr bool permutation_is_bijective() {
  for (int p = 0; p < 2 * kPermutedTokens; ++p) {
    if (position_of_token(token_at_position(p)) != p) return false;
  }
  return true;
}
static_assert(permutation_is_bijective());

}  // namespace sagejit
