#include "compiler/kernels/prepare_order.h"

#include <algorithm>
#include <vector>

#include "tests/support/catch.h"

namespace sagejit {
namespace {

using ir::constant;

struct Case {
  int heads, head_statistics, head_tiles, lag, q_tiles;
  int num_items() const { return heads * (head_statistics + head_tiles) + q_tiles; }
};

// The builder folds constants: the kernel's own arithmetic, on numbers. One entry per item: whether
// it is a statistic.
std::vector<bool> order_of(const Case& c) {
  ir::Builder b("k", 32);
  const PrepareOrder order(
      b, {constant(c.heads), constant(c.head_statistics), constant(c.head_tiles), constant(c.lag)});
  std::vector<bool> kinds;
  int before = 0;
  for (int item = 0; item < c.num_items(); ++item) {
    const ir::Value among = order.statistics_among(constant(item + 1));
    REQUIRE(among.is_const());
    const int now = static_cast<int>(among.bits);
    REQUIRE((now == before || now == before + 1));
    kinds.push_back(now != before);
    before = now;
  }
  return kinds;
}

std::string text(const std::vector<bool>& kinds) {
  std::string result;
  for (const bool is_statistic : kinds) result += is_statistic ? 's' : 't';
  return result;
}

}  // namespace

TEST_CASE("the statistics of a head are followed by the tiles of the head a lag before") {
  CHECK(
      text(order_of({.heads = 3, .head_statistics = 2, .head_tiles = 3, .lag = 1, .q_tiles = 4})) ==
      "ss"
      "ssttt"
      "ssttt"
      "ttt"
      "tttt");
  CHECK(
      text(order_of({.heads = 2, .head_statistics = 1, .head_tiles = 2, .lag = 2, .q_tiles = 1})) ==
      "ss"
      "tttt"
      "t");
  CHECK(
      text(order_of({.heads = 2, .head_statistics = 1, .head_tiles = 2, .lag = 0, .q_tiles = 0})) ==
      "stt"
      "stt");
}

TEST_CASE("without keys or without statistics there are tiles alone") {
  CHECK(
      text(order_of({.heads = 2, .head_statistics = 0, .head_tiles = 1, .lag = 2, .q_tiles = 2})) ==
      "tttt");
  CHECK(text(order_of(
            {.heads = 2, .head_statistics = 0, .head_tiles = 0, .lag = 1, .q_tiles = 2})) == "tt");
}

TEST_CASE("an item needs only items with smaller numbers, and those of heads within the lag") {
  for (const int heads : {1, 2, 5, 16}) {
    for (const int head_statistics : {1, 4, 8}) {
      for (const int head_tiles : {1, 3, 16}) {
        for (int lag = 0; lag <= std::min(heads, 6); ++lag) {
          const Case c{heads, head_statistics, head_tiles, lag, 5};
          CAPTURE(heads, head_statistics, head_tiles, lag);
          int statistics = 0, tiles = 0;
          bool in_order = true, close = true;
          for (const bool is_statistic : order_of(c)) {
            const int tile_head = std::min(tiles / head_tiles, heads - 1);
            if (!is_statistic)
              in_order = in_order && statistics >= (tile_head + 1) * head_statistics;
            close = close && statistics <= (tile_head + 1 + lag) * head_statistics;
            ++(is_statistic ? statistics : tiles);
          }
          CHECK(in_order);
          CHECK(close);
          CHECK(statistics == heads * head_statistics);
          CHECK(tiles == heads * head_tiles + c.q_tiles);
        }
      }
    }
  }
}

}  // namespace sagejit
