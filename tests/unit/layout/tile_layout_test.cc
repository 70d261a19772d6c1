#include "compiler/layout/tile_layout.h"

#include <set>

#include "compiler/layout/core_matrix.h"
#include "tests/support/catch.h"

namespace sagejit {
namespace {

constexpr int kRows = 32;
constexpr int kBankGroups = 8;  // 32 banks of 4 bytes, in groups of one chunk

}  // namespace

TEST_CASE("eight rows' same chunk lie in distinct bank groups, for every row length") {
  for (int row_chunks = 1; row_chunks <= 32; ++row_chunks) {
    const TileLayout layout{kRows, row_chunks};
    for (int first = 0; first < kRows; first += kSwizzlePeriodRows) {
      for (int chunk = 0; chunk < row_chunks; ++chunk) {
        std::set<int> groups;
        for (int row = first; row < first + kSwizzlePeriodRows; ++row) {
          groups.insert(layout.offset_bytes(row, chunk) / kChunkBytes % kBankGroups);
        }
        INFO("row of " << row_chunks << " chunks, rows from " << first << ", chunk " << chunk);
        CHECK(groups.size() == kBankGroups);
      }
    }
  }
}

TEST_CASE("a tile's chunks fill it, each once, without leaving their row") {
  for (int row_chunks = 1; row_chunks <= 32; ++row_chunks) {
    const TileLayout layout{kRows, row_chunks};
    std::set<int> offsets;
    for (int row = 0; row < kRows; ++row) {
      for (int chunk = 0; chunk < row_chunks; ++chunk) {
        const int offset = layout.offset_bytes(row, chunk);
        CHECK(offset / layout.row_bytes() == row);
        CHECK(offset % kChunkBytes == 0);
        offsets.insert(offset);
      }
    }
    CHECK(offsets.size() == static_cast<size_t>(kRows * row_chunks));
    CHECK(*offsets.rbegin() + kChunkBytes == layout.bytes());
  }
}

TEST_CASE("the swizzle repeats every eight rows") {
  for (int row_chunks = 1; row_chunks <= 32; ++row_chunks) {
    const TileLayout layout{kRows, row_chunks};
    for (int row = 0; row + kSwizzlePeriodRows < kRows; ++row) {
      for (int chunk = 0; chunk < row_chunks; ++chunk) {
        CHECK(layout.offset_bytes(row + kSwizzlePeriodRows, chunk) ==
              layout.offset_bytes(row, chunk) + kSwizzlePeriodRows * layout.row_bytes());
      }
    }
  }
}

TEST_CASE("odd rows are not swizzled, rows of eight chunks by the whole row number") {
  const TileLayout odd{16, 5}, full{16, 8};
  CHECK(odd.swizzle_bits() == 0);
  CHECK(odd.offset_bytes(3, 4) == 3 * 80 + 64);
  CHECK(full.swizzle_bits() == 3);
  CHECK(full.offset_bytes(5, 3) == 5 * 128 + (3 ^ 5) * 16);
  CHECK(full.offset_bytes(13, 3) == 13 * 128 + (3 ^ 5) * 16);
}

TEST_CASE("chunk by chunk, eight rows are a core matrix, and the tile is one range") {
  const TileLayout layout{48, 4, true};
  CHECK(layout.swizzle_bits() == 0);
  std::set<int> offsets;
  for (int row = 0; row < 48; ++row) {
    for (int chunk = 0; chunk < 4; ++chunk) {
      offsets.insert(layout.offset_bytes(row, chunk));
      CHECK(layout.offset_bytes(row, chunk) ==
            channel_rows_offset(chunk * kChunkBytes, row, layout.rows));
    }
  }
  CHECK(offsets.size() == 48 * 4);
  CHECK(*offsets.rbegin() + kChunkBytes == layout.bytes());
}

}  // namespace sagejit
