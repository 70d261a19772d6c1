#include "compiler/layout/core_matrix.h"

#include <vector>

#include "tests/support/catch.h"

namespace sagejit {
namespace {

// Whether the offsets of a tile are its bytes 0 .. size, each once.
template <typename Offset>
bool fills(long rows, long bytes, Offset offset) {
  std::vector<bool> taken(static_cast<size_t>(rows * bytes));
  for (long row = 0; row < rows; ++row) {
    for (long byte = 0; byte < bytes; ++byte) {
      const long at = offset(row, byte);
      if (at < 0 || at >= rows * bytes || taken[static_cast<size_t>(at)]) return false;
      taken[static_cast<size_t>(at)] = true;
    }
  }
  return true;
}

TEST_CASE("rows of tokens and of channels fill a tile without gaps") {
  for (const long row_bytes : {32, 96, 128, 512}) {
    CHECK(fills(64, row_bytes, [&](long t, long x) { return token_rows_offset(t, x, row_bytes); }));
  }
  for (const long columns : {16, 48, 128, 256}) {
    CHECK(fills(64, columns, [&](long p, long c) { return channel_rows_offset(p, c, columns); }));
  }
}

TEST_CASE("a core matrix is 8 rows of 16 bytes, one after the other") {
  CHECK(token_rows_offset(0, 15, 64) == 15);
  CHECK(token_rows_offset(1, 0, 64) == 16);
  CHECK(token_rows_offset(7, 15, 64) == 127);
  CHECK(token_rows_offset(0, 16, 64) == 128);    // next to it along the row,
  CHECK(token_rows_offset(8, 0, 64) == 8 * 64);  // then the next 8 tokens
  CHECK(channel_rows_offset(15, 0, 48) == 15);
  CHECK(channel_rows_offset(0, 1, 48) == 16);
  CHECK(channel_rows_offset(0, 8, 48) == 128);
  CHECK(channel_rows_offset(16, 0, 48) == 16 * 48);
}

TEST_CASE("a tile that starts at a band of tokens is one range of memory") {
  for (long t = 0; t < 64; ++t) {
    CHECK(token_rows_offset(128 + t, 5, 96) == 128 * 96 + token_rows_offset(t, 5, 96));
    CHECK(channel_rows_offset(128 + t, 5, 48) == 128 * 48 + channel_rows_offset(t, 5, 48));
  }
}

// PTX ISA, fragments of wgmma: of a product with 32-bit sums a thread of quad lane q holds columns
// 8 j + 2 q, 8 j + 2 q + 1; as the A operand of 8-bit elements it holds bytes 4 q .. 4 q + 3 of
// each 16, in two registers for 32 keys.
TEST_CASE("positions are permuted so that scores stay with the thread that holds them") {
  for (int lane = 0; lane < 4; ++lane) {
    for (int half = 0; half < 4; ++half) {
      for (int i = 0; i < 4; ++i) {
        const int position = 16 * half + 4 * lane + i;
        const int column_group = 2 * half + i / 2;
        CHECK(token_at_position(position) == 8 * column_group + 2 * lane + i % 2);
        CHECK(position_of_token(token_at_position(position)) == position);
      }
    }
  }
}

}  // namespace
}  // namespace sagejit
