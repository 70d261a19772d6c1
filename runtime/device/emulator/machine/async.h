// Asynchronous copies of a block that are not tied to one thread's groups: bulk copies into shared
// memory, arrivals of cp.async on mbarriers, bulk stores out of shared memory.
#pragma once

#include "runtime/device/emulator/machine/clock.h"

namespace sagejit::emulator {

struct Block;
struct Warp;

// A contiguous piece. Global memory outside a tensor's bounds has no address: null.
struct Segment {
  std::byte* global = nullptr;
  uint32_t shared = 0;  // offset from the start of shared memory
  uint32_t bytes = 0;
};

// Global to shared memory, completing on an mbarrier.
struct BulkCopy {
  uint32_t instr = 0;
  uint32_t thread = 0;
  uint32_t mbarrier = 0;
  uint32_t bytes = 0;  // that complete_tx reports
  std::vector<Segment> segments{};
};

// cp.async.mbarrier.arrive of one lane: its copies so far land, then it arrives.
struct CopyArrival {
  uint32_t instr = 0;
  uint32_t thread = 0;
  uint32_t mbarrier = 0;
  uint64_t before = 0;  // the copies concerned: AsyncCopy::number is less
  Order released{};     // what the thread had done when it issued this
};

// Shared to global memory, in the issuing thread's bulk groups.
struct BulkStore {
  uint32_t instr = 0;
  uint32_t thread = 0;
  uint32_t group = 0;
  bool read = false;  // the source has been read (the bytes are in `data`) and may be overwritten
  bool written = false;  // the target has been written
  std::vector<Segment> segments{};
  std::vector<std::byte> data{};
};

struct AsyncEngine {
  std::vector<BulkCopy> copies;       // in order of issue
  std::vector<CopyArrival> arrivals;  // likewise
  std::vector<BulkStore> stores;      // likewise
  std::vector<uint32_t> bulk_groups;  // committed, by thread

  void reset(uint32_t num_threads);
  // Lands the first effect that somebody waits for; false when there is none.
  bool deliver_awaited(Block& block);
  // AsyncOrder::kRandom: maybe lands one of those in flight.
  void deliver_random(Block& block, uint64_t random);
  void issue(Block& block, BulkCopy copy);
  void issue(Block& block, CopyArrival arrival);
  void issue(Block& block, BulkStore store);
  // Waits of a thread: stores of its groups before `groups_before` have read (and, unless only
  // that is asked, written).
  void wait(Block& block, Warp& w, uint32_t thread, uint32_t groups_before, bool only_read);
  // Throws when the block ended with something in flight that needs its shared memory; writes what
  // has been read.
  void finish(Block& block);

 private:
  void land(Block& block, size_t copy);
  void arrive(Block& block, size_t arrival);
};

}  // namespace sagejit::emulator
