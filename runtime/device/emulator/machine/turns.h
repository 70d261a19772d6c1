// How the launches of a stream take turns on the host's threads, with those that overlap by
// programmatic dependent launch in the order that shows most: a launch goes first whenever it can
// run at all, and those before it stand still until it waits for them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>

namespace sagejit::emulator {

// Thrown by a block that waits in vain: for another that has failed.
struct Abandoned {};

// Launches have numbers, in the order of the stream.
class Turns {
 public:
  // `threads`: of the host, that run its blocks. `is_dependent`: it may start before the launch
  // before it is complete.
  void add(unsigned threads, bool is_dependent);

  // --- For the host threads that run a launch's blocks.
  // Until the launch may start; false when one has failed and it never will.
  bool enter(size_t launch);
  // The last to leave completes the launch.
  void leave(size_t launch);
  void fail(size_t launch);
  bool has_failed() const { return failed_.load() != kNone; }
  bool another_failed(size_t launch) const { return has_failed() && failed_.load() != launch; }

  // --- For blocks, in the middle of an instruction or between two.
  void give_way(size_t launch) {
    if (later_runs(launch)) stand_still(launch);
  }
  void launch_dependents(size_t launch);
  bool is_previous_complete(size_t launch) const {
    return launch == 0 || stages_[launch - 1].is_complete.load();
  }
  // Returns when the previous launch is complete. Throws Abandoned.
  void await_previous(size_t launch);
  // The launch wrote something that others may poll.
  void wrote(size_t launch);
  // The launch is about to read something that others may write. If nobody has written since the
  // call before this one by the same block, whose `seen` it keeps, until somebody does.
  void poll(size_t launch, uint64_t& seen);

 private:
  static constexpr size_t kNone = ~size_t{0};

  struct Stage {
    unsigned threads = 0;
    bool is_dependent = false;
    std::atomic<bool> may_start{false};
    std::atomic<bool> is_complete{false};
    std::atomic<unsigned> running{0};  // threads that neither wait for another launch nor have left
    unsigned present = 0;              // threads that have not left
    unsigned polling = 0;              // threads in poll()
  };

  bool later_runs(size_t launch) const {
    for (size_t i = launch + 1; i < stages_.size(); ++i) {
      if (stages_[i].running.load() != 0) return true;
    }
    return false;
  }
  void stand_still(size_t launch);
  // With mutex_ held:
  void start(Stage& stage);
  void end_polls();

  std::deque<Stage> stages_;
  std::atomic<size_t> failed_{kNone};  // of those that have, the first in the stream
  std::atomic<uint64_t> writes_{0};
  std::atomic<unsigned> num_polling_{0};
  std::mutex mutex_;
  uint64_t polls_ended_ = 0;  // times that end_polls() was called
  std::condition_variable changed_;
};

}  // namespace sagejit::emulator
