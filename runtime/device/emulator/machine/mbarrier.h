// mbarrier objects of a block: pending arrivals, transaction bytes, phases, and the order they
// carry.
//
// The eight bytes in shared memory are opaque; the state is here, found by the object's offset.
#pragma once

#include "runtime/device/emulator/machine/clock.h"

namespace sagejit::emulator {

inline constexpr uint32_t kMbarrierBytes = 8;
inline constexpr uint32_t kMaxMbarrierCount = (1u << 20) - 1;

struct Mbarrier {
  bool live = false;
  uint32_t offset = 0;    // from the start of shared memory
  uint32_t expected = 0;  // arrivals per phase
  uint32_t pending = 0;   // arrivals that the current phase still awaits
  int64_t tx = 0;      // bytes that the current phase still awaits; negative when they came early
  uint32_t phase = 0;  // phases completed
  Order arriving{};    // join of all arrivals
  Order done{};        // of those up to the last completed phase
  // Who initialised it, and who issued the last copy that completed on it: for order and messages.
  uint32_t init_thread = 0, init_clock = 0, init_instr = 0;
  uint32_t copy_thread = 0;
};

class MbarrierTable {
 public:
  void reset(uint32_t shared_bytes);
  // Index of the object at `offset`; -1: none there.
  int find(uint32_t offset) const {
    const uint32_t slot = offset / kMbarrierBytes;
    return offset % kMbarrierBytes == 0 && slot < at_.size() ? int{at_[slot]} - 1 : -1;
  }
  // New object; -1 when there are kMaxMbarriers already.
  int create(uint32_t offset);
  void destroy(uint32_t index);
  Mbarrier& operator[](size_t i) { return all_[i]; }
  const Mbarrier& operator[](size_t i) const { return all_[i]; }
  size_t size() const { return all_.size(); }

 private:
  std::vector<uint8_t> at_;  // by 8-byte slot of shared memory: index + 1
  std::vector<Mbarrier> all_;
};

}  // namespace sagejit::emulator
