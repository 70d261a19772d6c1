#include "compiler/support/parallel.h"

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/catch.h"

namespace sagejit {

TEST_CASE("parallel_for: every item is done once") {
  for (const size_t count : {0, 1, 2, 1000}) {
    std::vector<std::atomic<int>> done(count);
    parallel_for(count, [&](size_t i) { ++done[i]; });
    for (const std::atomic<int>& times : done) CHECK(times == 1);
  }
}

TEST_CASE("parallel_for: items are done at the same time where there are processors") {
  if (std::thread::hardware_concurrency() < 2) return;
  std::atomic<int> arrived = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  parallel_for(2, [&](size_t) {
    ++arrived;
    // One thread alone would come here with only one arrived, and wait in vain.
    while (arrived < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    CHECK(arrived == 2);
  });
}

TEST_CASE("parallel_for: the first item's exception is thrown, after all items") {
  std::atomic<int> done = 0;
  const auto run = [&] {
    parallel_for(100, [&](size_t i) {
      ++done;
      if (i == 7 || i == 60) throw std::runtime_error(std::to_string(i));
    });
  };
  for (int round = 1; round <= 20; ++round) {
    CHECK_THROWS_WITH(run(), "7");
    CHECK(done == 100 * round);
  }
}

}  // namespace sagejit
