#include "compiler/kernels/prepare_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "compiler/plan/forward_plan.h"
#include "tests/unit/kernels/run_ir.h"

namespace sagejit {
namespace {

using ir::Builder;
using ir::constant;
using ir::Op;
using ir::Value;

struct Case {
  int heads, statistics, tiles, lag;
  int num_items() const { return heads * (statistics + tiles); }
};

struct Place {
  uint32_t exists = 0, is_statistics = 0, head = 0, index = 0;
  bool operator==(const Place&) const = default;
};

ir::Function walk() {
  Builder b("walk", 32);
  const Value out = b.param("out", ir::Type::kI64);
  const auto size = [&](const char* name) { return b.param(name, ir::Type::kI32); };
  const auto divisor = [&](const char* name, const char* reciprocal) {
    const Value value = size(name);
    return Divisor(b, value, size(reciprocal));
  };
  const Value heads = size("heads");
  const Divisor statistics = divisor("statistics", "per_statistics");
  const Divisor tiles = divisor("tiles", "per_tiles"), items = divisor("items", "per_items");
  const Value lag = size("lag"), lag_items = size("lag_items"), ahead = size("heads_ahead");
  const Value count = size("count");
  const PrepareOrder order(b, {heads, statistics, tiles, items, lag, lag_items, ahead});
  b.loop(b.tid(), count, constant(32), [&](Value number) {
    const PrepareOrder::Place place = order.find(number);
    const auto flag = [&](Value p) { return b.select(p, constant(1), constant(0)); };
    b.emit(Op::kStGlobalV4, {b.address(out, number, sizeof(Place)), constant(0), flag(place.exists),
                             flag(place.is_statistics), place.head, place.index});
  });
  return b.finish(80);
}

// The order as its description says it.
std::vector<Place> enumerate(const Case& c) {
  std::vector<Place> order;
  const auto add = [&](int count, bool is_statistics, int head) {
    for (int i = 0; i < count; ++i) {
      order.push_back({1, is_statistics, static_cast<uint32_t>(head), static_cast<uint32_t>(i)});
    }
  };
  for (int round = 0; round < c.heads + c.lag; ++round) {
    if (round < c.heads) add(c.statistics, true, round);
    if (round >= c.lag) add(c.tiles, false, round - c.lag);
  }
  return order;
}

std::vector<Case> cases() {
  std::vector<Case> cases;
  for (const int heads : {0, 1, 2, 5}) {
    for (const int statistics : {1, 3, 9}) {
      for (const int tiles : {1, 4, 40}) {
        for (const int lag : {0, 1, 2, heads}) {
          if (lag <= heads) cases.push_back({heads, statistics, tiles, lag});
        }
      }
    }
  }
  return cases;
}

// What items rest on: each is there once, and a head's statistics, of which the last is their fold,
// have smaller numbers than its tiles.
void check_dependences(const std::vector<Place>& order, const Case& c) {
  std::map<uint32_t, int> statistics, tiles;  // of a head, so far
  bool in_order = true;
  for (const Place& place : order) {
    std::map<uint32_t, int>& seen = place.is_statistics ? statistics : tiles;
    in_order = in_order && static_cast<int>(place.index) == seen[place.head]++;
    if (!place.is_statistics) in_order = in_order && statistics[place.head] == c.statistics;
  }
  CHECK(in_order);
  CHECK(static_cast<int>(statistics.size()) == c.heads);
  CHECK(static_cast<int>(tiles.size()) == c.heads);
  for (const auto& [head, count] : statistics) CHECK(count == c.statistics);
  for (const auto& [head, count] : tiles) CHECK(count == c.tiles);
}

}  // namespace

TEST_CASE("the statistics of a head are followed by the tiles of the head a lag before") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const test::IrProgram program(walk(), *nvrtc);
  constexpr int kPastTheEnd = 70;  // teams ask on until there is nothing
  for (const Case& c : cases()) {
    INFO(fmt::format("{} heads, {} statistics, {} tiles, lag {}", c.heads, c.statistics, c.tiles,
                     c.lag));
    const int count = c.num_items() + kPastTheEnd;
    std::vector<Place> found(static_cast<size_t>(count));
    const test::MemoryRange memory[] = {test::range(found, "out")};
    const auto reciprocal = [](int x) { return kReciprocalOf / std::max(1, x); };
    const int items = c.statistics + c.tiles;
    program.run(test::Params(found, c.heads, c.statistics, reciprocal(c.statistics), c.tiles,
                             reciprocal(c.tiles), items, reciprocal(items), c.lag,
                             c.lag * c.statistics, c.heads - c.lag, count),
                memory);
    const auto end = found.begin() + c.num_items();
    CHECK(std::none_of(end, found.end(), [](const Place& place) { return place.exists != 0; }));
    found.erase(end, found.end());
    CHECK(found == enumerate(c));
    check_dependences(found, c);
  }
}

}  // namespace sagejit
