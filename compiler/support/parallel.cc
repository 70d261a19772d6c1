#include "compiler/support/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace sagejit {

void parallel_for(size_t count, const std::function<void(size_t)>& work) {
  std::vector<std::exception_ptr> thrown(count);
  std::atomic<size_t> next = 0;
  const auto drain = [&] {
    for (size_t i = next++; i < count; i = next++) {
      try {
        work(i);
      } catch (...) {
        thrown[i] = std::current_exception();
      }
    }
  };
  const size_t num_threads = std::min<size_t>(count, std::thread::hardware_concurrency());
  std::vector<std::thread> helpers;
  helpers.reserve(num_threads);
  try {
    while (helpers.size() + 1 < num_threads) helpers.emplace_back(drain);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that run do the work.
  }
  drain();
  for (std::thread& helper : helpers) helper.join();
  for (const std::exception_ptr& exception : thrown) {
    if (exception) std::rethrow_exception(exception);
  }
}

}  // namespace sagejit
