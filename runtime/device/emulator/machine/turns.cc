#include "runtime/device/emulator/machine/turns.h"

namespace sagejit::emulator {

void Turns::add(unsigned threads, bool is_dependent) {
  Stage& stage = stages_.emplace_back();
  stage.threads = stage.present = threads;
  stage.is_dependent = is_dependent;
  if (stages_.size() == 1) start(stage);
}

// Its threads count as running from here on, wherever they are: nobody is ahead of them.
void Turns::start(Stage& stage) {
  if (stage.may_start.load()) return;
  stage.running = stage.threads;
  stage.may_start = true;
  changed_.notify_all();
}

bool Turns::enter(size_t launch) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stages_[launch].may_start.load() || has_failed(); });
  return stages_[launch].may_start.load();
}

void Turns::leave(size_t launch) {
  const std::lock_guard lock(mutex_);
  Stage& stage = stages_[launch];
  if (stage.may_start.load()) --stage.running;
  if (--stage.present == 0) {
    stage.is_complete = true;
    end_polls();
    if (launch + 1 < stages_.size()) start(stages_[launch + 1]);
  }
  changed_.notify_all();
}

void Turns::fail(size_t launch) {
  const std::lock_guard lock(mutex_);
  if (launch < failed_.load()) failed_ = launch;
  end_polls();
  changed_.notify_all();
}

void Turns::stand_still(size_t launch) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !later_runs(launch) || has_failed(); });
}

void Turns::launch_dependents(size_t launch) {
  if (launch + 1 == stages_.size() || !stages_[launch + 1].is_dependent) return;
  if (!stages_[launch + 1].may_start.load()) {
    const std::lock_guard lock(mutex_);
    start(stages_[launch + 1]);
  }
  give_way(launch);
}

void Turns::await_previous(size_t launch) {
  std::unique_lock lock(mutex_);
  Stage& stage = stages_[launch];
  --stage.running;
  changed_.notify_all();
  changed_.wait(lock, [&] { return is_previous_complete(launch) || has_failed(); });
  ++stage.running;
  if (has_failed()) throw Abandoned{};
}

// The threads run again from here on, as in start().
void Turns::end_polls() {
  for (Stage& stage : stages_) {
    stage.running += stage.polling;
    stage.polling = 0;
  }
  num_polling_ = 0;
  ++polls_ended_;
  changed_.notify_all();
}

// A thread that is about to poll counts itself first and then looks at writes_; this looks in the
// opposite order: one of them sees the other.
void Turns::wrote(size_t launch) {
  ++writes_;
  if (num_polling_.load() != 0) {
    const std::lock_guard lock(mutex_);
    end_polls();
  }
  give_way(launch);
}

void Turns::poll(size_t launch, uint64_t& seen) {
  if (writes_.load() == seen && !is_previous_complete(launch)) {
    std::unique_lock lock(mutex_);
    ++num_polling_;
    if (writes_.load() != seen || is_previous_complete(launch) || has_failed()) {
      --num_polling_;
    } else {
      Stage& stage = stages_[launch];
      ++stage.polling;
      --stage.running;
      changed_.notify_all();
      changed_.wait(lock, [&, ended = polls_ended_] { return polls_ended_ != ended; });
    }
  }
  seen = writes_.load();
}

}  // namespace sagejit::emulator
