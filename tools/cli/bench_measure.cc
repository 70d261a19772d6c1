#include "tools/cli/bench_measure.h"

#include <algorithm>
#include <cmath>

#include "tools/cli/statistics.h"

namespace sagejit::cli {
namespace {

constexpr double kStable = 0.02;  // relative difference of successive batches

class Loop {
 public:
  Loop(const MeasureOptions& options, const DeviceClock& clock)
      : options_(options), clock_(clock) {}

  // How many launches of the subject a measurement needs.
  int calibrate(const Subject& subject) const {
    double spent = 0, before = 0;
    for (int launches = 1;; launches *= 2) {
      const double ms = timed(subject, launches, nullptr);
      const double per_launch = ms / launches;
      const bool stable = std::abs(per_launch - before) <= kStable * per_launch;
      spent += ms;
      before = per_launch;
      const bool enough = ms >= options_.min_time_ms && stable;
      if (enough || spent >= kWarmUpLimit * options_.min_time_ms || launches >= kMaxLaunches) break;
    }
    const double needed = std::ceil(options_.min_time_ms / std::max(before, kShortestMs));
    return static_cast<int>(std::clamp<double>(needed, 1, kMaxLaunches));
  }

  void measure(const Subject& subject, Series& series) const {
    series.ms.push_back(timed(subject, series.launches, &series) / series.launches);
  }

 private:
  static constexpr int kMaxLaunches = 1 << 20;
  static constexpr double kShortestMs = 1e-6;

  // Milliseconds of all the launches. The clock is read between enqueuing them and waiting for
  // them: before and after, the device idles and so does its clock.
  double timed(const Subject& subject, int launches, Series* clocks) const {
    for (int copy = 0; subject.prepare && copy < options_.copies; ++copy) subject.prepare(copy);
    clock_.timer.start(nullptr);
    for (int i = 0; i < launches; ++i) subject.launch(i % options_.copies);
    clock_.timer.stop(nullptr);
    if (clocks && clock_.sm_clock_mhz) {
      if (const std::optional<int> mhz = clock_.sm_clock_mhz()) {
        clocks->sm_clock_mhz.push_back(*mhz);
      }
    }
    return clock_.timer.elapsed_ms();
  }

  const MeasureOptions& options_;
  const DeviceClock& clock_;
};

}  // namespace

std::vector<Series> measure(std::span<const Subject> subjects, const MeasureOptions& options,
                            const DeviceClock& clock) {
  const Loop loop(options, clock);
  std::vector<Series> series(subjects.size());
  for (size_t i = 0; i < subjects.size(); ++i) series[i].launches = loop.calibrate(subjects[i]);
  for (int round = 0; round < options.rounds; ++round) {
    for (size_t i = 0; i < subjects.size(); ++i) {
      const size_t next = round % 2 ? subjects.size() - 1 - i : i;
      loop.measure(subjects[next], series[next]);
    }
  }
  return series;
}

int num_copies(uint64_t bytes_of_one, uint64_t cache_bytes) {
  const uint64_t bytes = std::max<uint64_t>(bytes_of_one, 1);
  const uint64_t wanted = 2 * cache_bytes / bytes + 1;
  const uint64_t affordable = std::max<uint64_t>(kMaxCopyBytes / bytes, 1);
  return static_cast<int>(std::min({wanted, affordable, uint64_t{kMaxCopies}}));
}

double host_us_per_call(const HostCall& host) {
  std::vector<double> us;
  host.call();  // the first pays for what is done once
  host.wait();
  for (int batch = 0; batch < kHostBatches; ++batch) {
    const double start = host.now_ms();
    for (int i = 0; i < kHostBatch; ++i) host.call();
    us.push_back((host.now_ms() - start) * 1e3 / kHostBatch);
    host.wait();
  }
  return median(us);
}

}  // namespace sagejit::cli
