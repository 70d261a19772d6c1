#include "runtime/device/emulator/machine/async.h"

#include <fmt/format.h>

#include "runtime/device/emulator/machine/block.h"

namespace sagejit::emulator {
namespace {

void move_in(Block& block, const Segment& s) {
  std::byte* to = block.shared.data() + s.shared;
  if (s.global == nullptr) {
    std::memset(to, 0, s.bytes);
  } else {
    std::memcpy(to, s.global, s.bytes);
  }
}

void read_source(Block& block, BulkStore& store) {
  for (const Segment& s : store.segments) {
    const std::byte* from = block.shared.data() + s.shared;
    store.data.insert(store.data.end(), from, from + s.bytes);
  }
}

void write_target(BulkStore& store) {
  const std::byte* from = store.data.data();
  for (const Segment& s : store.segments) {
    if (s.global != nullptr && !store.written) std::memcpy(s.global, from, s.bytes);
    from += s.bytes;
  }
  store.written = true;
}

// Bytes of an effect are written by the copies of its mbarrier, in the phase they complete.
void land_segments(Block& block, const std::vector<Segment>& segments, uint32_t mbarrier,
                   uint32_t instr) {
  const unsigned agent = kMbarrierAgents + mbarrier;
  WarpClock clock;
  clock.now = block.mbarriers[mbarrier].phase + 1;
  const Access access{agent_thread(agent), instr, &clock, false};
  for (const Segment& s : segments) {
    move_in(block, s);
    block.shadow.land_copy(s.shared, s.bytes, access);
  }
}

// The cp.async of the arrival's thread that were issued before it. They count as copies of the
// mbarrier from here on.
void land_copies_of(Block& block, const CopyArrival& arrival) {
  const uint32_t lane = arrival.thread % kWarpLanes;
  Warp& w = block.warps[arrival.thread / kWarpLanes];
  for (AsyncCopy& copy : w.copies) {
    if (copy.number >= arrival.before || (copy.mask >> lane & 1) == 0) continue;
    const uint32_t filled = copy.source_bytes[lane];
    auto* source = reinterpret_cast<std::byte*>(copy.source[lane]);
    std::vector<Segment> segments;
    if (filled != 0) segments.push_back({source, copy.destination[lane], filled});
    if (filled != copy.bytes) {
      segments.push_back({nullptr, copy.destination[lane] + filled, copy.bytes - filled});
    }
    land_segments(block, segments, arrival.mbarrier, copy.instr);
    copy.mask &= ~(1u << lane);
  }
  std::erase_if(w.copies, [](const AsyncCopy& c) { return c.mask == 0; });
}

}  // namespace

void AsyncEngine::reset(uint32_t num_threads) {
  copies.clear();
  arrivals.clear();
  stores.clear();
  bulk_groups.assign(num_threads, 0);
}

void AsyncEngine::land(Block& block, size_t i) {
  const BulkCopy copy = std::move(copies[i]);
  copies.erase(copies.begin() + static_cast<std::ptrdiff_t>(i));
  land_segments(block, copy.segments, copy.mbarrier, copy.instr);
  Mbarrier& b = block.mbarriers[copy.mbarrier];
  b.copy_thread = copy.thread;
  b.tx -= copy.bytes;
  block.settle_mbarrier(copy.mbarrier);
}

void AsyncEngine::arrive(Block& block, size_t i) {
  const CopyArrival arrival = std::move(arrivals[i]);
  arrivals.erase(arrivals.begin() + static_cast<std::ptrdiff_t>(i));
  land_copies_of(block, arrival);
  Mbarrier& b = block.mbarriers[arrival.mbarrier];
  b.copy_thread = arrival.thread;
  join(b.arriving, arrival.released);
  --b.pending;
  block.settle_mbarrier(arrival.mbarrier);
}

bool AsyncEngine::deliver_awaited(Block& block) {
  for (size_t i = 0; i < copies.size(); ++i) {
    if (!block.awaited(kWaitsMbarrier + static_cast<int32_t>(copies[i].mbarrier))) continue;
    land(block, i);
    return true;
  }
  for (size_t i = 0; i < arrivals.size(); ++i) {
    if (!block.awaited(kWaitsMbarrier + static_cast<int32_t>(arrivals[i].mbarrier))) continue;
    arrive(block, i);
    return true;
  }
  return false;
}

void AsyncEngine::deliver_random(Block& block, uint64_t random) {
  const size_t total = copies.size() + arrivals.size();
  if (total == 0 || random % 4 != 0) return;
  const size_t i = random / 4 % total;
  if (i < copies.size()) {
    land(block, i);
  } else {
    arrive(block, i - copies.size());
  }
}

void AsyncEngine::issue(Block& block, BulkCopy copy) {
  copies.push_back(std::move(copy));
  if (block.launch.options.async == AsyncOrder::kEarly) land(block, copies.size() - 1);
}

void AsyncEngine::issue(Block& block, CopyArrival arrival) {
  arrivals.push_back(std::move(arrival));
  if (block.launch.options.async == AsyncOrder::kEarly) arrive(block, arrivals.size() - 1);
}

void AsyncEngine::issue(Block& block, BulkStore store) {
  stores.push_back(std::move(store));
  if (block.launch.options.async == AsyncOrder::kEarly) {
    read_source(block, stores.back());
    write_target(stores.back());
    stores.back().data.clear();
  }
}

void AsyncEngine::wait(Block& block, Warp& w, uint32_t thread, uint32_t groups_before,
                       bool only_read) {
  for (BulkStore& store : stores) {
    if (store.thread != thread || store.group >= groups_before) continue;
    if (!store.read) {
      if (!store.written) read_source(block, store);
      const Access access{thread, store.instr, &w.clock, false};
      for (const Segment& s : store.segments) block.shadow.end_store(s.shared, s.bytes, access);
      store.read = true;
    }
    if (!only_read) write_target(store);
  }
  std::erase_if(stores, [](const BulkStore& s) { return s.read && s.written; });
}

void AsyncEngine::finish(Block& block) {
  const auto fail = [&](uint32_t instr, uint32_t thread, const char* what) {
    Warp& w = block.warps[thread / kWarpLanes];
    w.current = &block.kernel.code[instr];
    w.fail(ErrorKind::kMissingWait, thread % kWarpLanes,
           fmt::format("the block ended with {} in flight that nobody waited for", what));
  };
  if (!copies.empty()) fail(copies[0].instr, copies[0].thread, "this bulk copy");
  if (!arrivals.empty()) fail(arrivals[0].instr, arrivals[0].thread, "copies of this arrival");
  for (BulkStore& s : stores) {
    if (!s.read) fail(s.instr, s.thread, "this bulk store");
    write_target(s);
  }
  stores.clear();
}

}  // namespace sagejit::emulator
