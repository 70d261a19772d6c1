// The measuring loops of `bench`: they know launches and clocks, and nothing of attention.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "runtime/device/device.h"

namespace sagejit::cli {

// Something that is timed. The problem exists in several copies, numbered from 0, and successive
// launches go through them in turn, so that none finds its inputs in the cache where the launch
// before left them.
struct Subject {
  std::function<void(int copy)> prepare;  // before a measurement, for every copy; may be empty
  std::function<void(int copy)> launch;   // enqueues one call
};

struct MeasureOptions {
  int rounds = 7;
  double min_time_ms = 20;  // of one measurement, and of the warm-up that finds out its launches
  int copies = 1;           // of the problem
};

struct Series {
  int launches = 0;               // in each measurement
  std::vector<double> ms;         // per launch; one of each round
  std::vector<int> sm_clock_mhz;  // likewise, read while the launches run; empty: unknown
};

// Where times come from.
struct DeviceClock {
  Timer& timer;
  std::function<std::optional<int>()> sm_clock_mhz;  // may be empty
};

// Warm-up: of every subject batches of 1, 2, 4, ... launches until a batch takes the least time
// and its time per launch lies within 2 % of the batch's before, or until the warm-up has taken
// kWarmUpLimit such times. The last batch says how many launches make a measurement.
// Rounds: one measurement of every subject; odd rounds go through them backwards, so that a clock
// that drifts steadily favours none.
inline constexpr int kWarmUpLimit = 16;
std::vector<Series> measure(std::span<const Subject> subjects, const MeasureOptions& options,
                            const DeviceClock& clock);

// How many copies of a problem it takes to exceed twice the cache, together at most kMaxCopyBytes
// (but at least one) and kMaxCopies.
inline constexpr int kMaxCopies = 1024;
inline constexpr uint64_t kMaxCopyBytes = uint64_t{4} << 30;
int num_copies(uint64_t bytes_of_one, uint64_t cache_bytes);

// What one call costs the host: the median over batches of kHostBatch calls, whose last is followed
// by an untimed wait. A batch is short enough never to find the device's queue full, or calls would
// wait for the device.
inline constexpr int kHostBatch = 50, kHostBatches = 21;
struct HostCall {
  std::function<void()> call;      // enqueues it
  std::function<void()> wait;      // for all that is enqueued
  std::function<double()> now_ms;  // any clock of the host
};
double host_us_per_call(const HostCall& host);

}  // namespace sagejit::cli
