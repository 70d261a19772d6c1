// Wall time, for whoever wants to show where it went.
#pragma once

#include <chrono>

namespace sagejit {

class Stopwatch {
 public:
  // Milliseconds since the last lap, or since construction.
  double elapsed_ms() const {
    return std::chrono::duration<double, std::milli>(Clock::now() - start_).count();
  }
  // The same, and a new lap begins.
  double lap_ms() {
    const double ms = elapsed_ms();
    start_ = Clock::now();
    return ms;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace sagejit
