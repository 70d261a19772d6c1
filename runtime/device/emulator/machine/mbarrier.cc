#include "runtime/device/emulator/machine/mbarrier.h"

#include <fmt/format.h>

#include "runtime/device/emulator/machine/block.h"

namespace sagejit::emulator {

void MbarrierTable::reset(uint32_t shared_bytes) {
  at_.assign((shared_bytes + kMbarrierBytes - 1) / kMbarrierBytes, 0);
  all_.clear();
}

// A place that was an mbarrier before goes on with its phase count: copies of its former life are
// stamped with smaller clocks.
int MbarrierTable::create(uint32_t offset) {
  uint32_t index = 0;
  while (index < all_.size() && all_[index].live) ++index;
  if (index == kMaxMbarriers) return -1;
  if (index == all_.size()) all_.emplace_back();
  Mbarrier& b = all_[index];
  const uint32_t phase = (b.phase + 1) / 2 * 2;  // even: a new object starts in a phase of parity 0
  b = Mbarrier{};
  b.phase = phase;
  b.live = true;
  b.offset = offset;
  at_[offset / kMbarrierBytes] = static_cast<uint8_t>(index + 1);
  return static_cast<int>(index);
}

void MbarrierTable::destroy(uint32_t index) {
  all_[index].live = false;
  at_[all_[index].offset / kMbarrierBytes] = 0;
}

std::string Block::describe_mbarrier(uint32_t index) const {
  const Mbarrier& b = mbarriers[index];
  return fmt::format(
      "mbarrier {:#x} (phase {}: {} of {} arrivals and {} transaction bytes pending)",
      b.offset + kSharedBase, b.phase, b.pending, b.expected, b.tx);
}

void Block::settle_mbarrier(uint32_t index) {
  Mbarrier& b = mbarriers[index];
  if (b.pending != 0 || b.tx != 0) return;
  ++b.phase;
  ++report.mbarrier_phases;
  b.pending = b.expected;
  b.done = b.arriving;
  b.done[kMbarrierAgents + index] =
      b.phase + 1;  // copies of a phase are stamped with its number + 1
  wake(kWaitsMbarrier + static_cast<int32_t>(index));
}

}  // namespace sagejit::emulator
