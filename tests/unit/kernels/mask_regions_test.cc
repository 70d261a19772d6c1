// Masks with constant sizes fold to constants, so that the runs of key tiles can be compared with
// the masks' definition (specs/language.md, "Masks") key by key.
#include "compiler/kernels/mask_regions.h"

#include "tests/support/catch.h"

namespace sagejit {
namespace {

struct Sizes {
  int m, n, first_row, num_rows, tile_keys;
};

bool sees(const Mask& mask, const Sizes& sizes, int row, int key) {
  const int diagonal = row + sizes.n - sizes.m;
  switch (mask.kind) {
    case MaskKind::kNone:
      return true;
    case MaskKind::kCausalTopLeft:
      return key <= row;
    case MaskKind::kCausalBottomRight:
      return key <= diagonal;
    default:
      return diagonal - mask.window_left <= key && key <= diagonal + mask.window_right;
  }
}

int folded(ir::Value value) {
  REQUIRE(value.is_const());
  return static_cast<int32_t>(value.bits);
}

RowRange rows_of(ir::Builder& b, const Sizes& sizes) {
  return existing_rows(b, ir::constant(sizes.first_row), sizes.num_rows, ir::constant(sizes.m));
}

// Runs are in order without gaps; a full tile is seen by every row, whole; a tile outside by none.
void check_runs(const Mask& mask, const Sizes& sizes) {
  INFO("m " << sizes.m << ", n " << sizes.n << ", first row " << sizes.first_row);
  ir::Builder b("k", 32);
  const MaskRegions regions(b, mask, ir::constant(sizes.m), ir::constant(sizes.n),
                            rows_of(b, sizes), sizes.tile_keys);
  const int num_tiles = (sizes.n + sizes.tile_keys - 1) / sizes.tile_keys;
  std::vector<int> visits(static_cast<size_t>(num_tiles), 0);  // 0 none, 1 masked, 2 full
  int at = folded(regions.first_tile());
  for (const TileRun& run : regions.runs()) {
    CHECK(folded(run.begin) == at);
    CHECK(folded(run.end) >= at);
    for (; at < folded(run.end); ++at) {
      REQUIRE(at < num_tiles);
      visits[static_cast<size_t>(at)] = run.masked ? 1 : 2;
    }
  }
  CHECK(at == folded(regions.end_tile()));
  const int end_row = std::min(sizes.m, sizes.first_row + sizes.num_rows);
  for (int key = 0; key < num_tiles * sizes.tile_keys; ++key) {
    const int visit = visits[static_cast<size_t>(key / sizes.tile_keys)];
    for (int row = sizes.first_row; row < end_row; ++row) {
      const bool visible = key < sizes.n && sees(mask, sizes, row, key);
      if (visible && visit == 0) FAIL("key " << key << " of row " << row << " is not visited");
      if (!visible && visit == 2) FAIL("key " << key << " of row " << row << " is not masked");
    }
  }
}

void check_bounds(const Mask& mask, const Sizes& sizes) {
  ir::Builder b("k", 32);
  const MaskRegions regions(b, mask, ir::constant(sizes.m), ir::constant(sizes.n),
                            rows_of(b, sizes), sizes.tile_keys);
  for (int row = sizes.first_row; row < std::min(sizes.m, sizes.first_row + sizes.num_rows);
       ++row) {
    const MaskRegions::Bounds bounds = regions.bounds_of(ir::constant(row));
    for (int key = 0; key < sizes.n; ++key) {
      const bool inside = key <= folded(bounds.high) && (!bounds.low || key >= folded(bounds.low));
      CHECK(inside == sees(mask, sizes, row, key));
    }
  }
}

const Mask kMasks[] = {
    {MaskKind::kNone, 0, 0, {}},
    {MaskKind::kCausalTopLeft, 0, 0, {}},
    {MaskKind::kCausalBottomRight, 0, 0, {}},
    {MaskKind::kWindow, 5, 0, {}},
    {MaskKind::kWindow, 0, 0, {}},
    {MaskKind::kWindow, 20, 9, {}},
    {MaskKind::kWindow, 1000, 1000, {}},
};

}  // namespace

TEST_CASE("key tiles are visited where a row sees them, and left unmasked where all rows do") {
  for (const Mask& mask : kMasks) {
    for (const int m : {1, 7, 16, 33}) {
      for (const int n : {1, 7, 8, 31, 40, 64}) {
        for (int first_row = 0; first_row < m; first_row += 16) {
          check_runs(mask, {m, n, first_row, 16, 8});
          check_bounds(mask, {m, n, first_row, 16, 8});
        }
      }
    }
  }
}

// A warpgroup skips the tiles of its block that come before and behind its own: these lie between
// the block's, even if all its rows lie behind the last one.
TEST_CASE("tiles of a part of the rows are among those of all") {
  for (const Mask& mask : kMasks) {
    for (const int m : {1, 7, 16, 17, 33, 64}) {
      for (const int n : {0, 1, 7, 8, 31, 40, 64}) {
        INFO("m " << m << ", n " << n);
        ir::Builder b("k", 32);
        const auto regions = [&](int first_row, int num_rows) {
          return MaskRegions(b, mask, ir::constant(m), ir::constant(n),
                             existing_rows(b, ir::constant(first_row), num_rows, ir::constant(m)),
                             8);
        };
        for (int block = 0; block < m; block += 48) {
          const MaskRegions whole = regions(block, 48);
          for (int part = block; part < block + 48; part += 16) {
            INFO("rows from " << part << " on");
            const MaskRegions own = regions(part, 16);
            CHECK(folded(whole.first_tile()) <= folded(own.first_tile()));
            CHECK(folded(own.first_tile()) <= folded(own.end_tile()));
            CHECK(folded(own.end_tile()) <= folded(whole.end_tile()));
            if (part >= m) CHECK(folded(own.first_tile()) == folded(own.end_tile()));
          }
        }
      }
    }
  }
}

TEST_CASE("without a mask only a last, partly filled tile is masked") {
  ir::Builder b("k", 32);
  const auto runs = [&](int n) {
    return MaskRegions(b, {}, ir::constant(64), ir::constant(n),
                       existing_rows(b, ir::constant(0), 64, ir::constant(64)), 16)
        .runs();
  };
  REQUIRE(runs(64).size() == 2);
  CHECK(folded(runs(64)[0].end) == 4);
  CHECK(folded(runs(64)[1].end) == 4);
  CHECK(folded(runs(65)[0].end) == 4);
  CHECK(folded(runs(65)[1].end) == 5);
}

TEST_CASE("a window has masked tiles on both sides of the full ones") {
  ir::Builder b("k", 32);
  const Mask window{MaskKind::kWindow, 64, 64, {}};
  const MaskRegions regions(b, window, ir::constant(256), ir::constant(256),
                            existing_rows(b, ir::constant(128), 16, ir::constant(256)), 16);
  REQUIRE(regions.runs().size() == 3);
  CHECK(regions.runs()[0].masked);
  CHECK_FALSE(regions.runs()[1].masked);
  CHECK(regions.runs()[2].masked);
  CHECK(folded(regions.runs()[1].begin) == 5);  // row 143 sees key 79 on
  CHECK(folded(regions.runs()[1].end) == 12);   // row 128 sees keys up to 192
}

TEST_CASE("a mask without row bounds has no regions") {
  ir::Builder b("k", 32);
  const Mask tensor{MaskKind::kTensorBool, 0, 0, {}};
  CHECK_THROWS_WITH(MaskRegions(b, tensor, ir::constant(1), ir::constant(1),
                                existing_rows(b, ir::constant(0), 16, ir::constant(1)), 16),
                    "mask regions: this mask has no row bounds");
}

}  // namespace sagejit
