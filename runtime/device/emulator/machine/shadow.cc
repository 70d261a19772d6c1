#include "runtime/device/emulator/machine/shadow.h"

#include <algorithm>
#include <bit>

namespace sagejit::emulator {

void Shadow::reset(uint32_t bytes, uint32_t num_warps, bool check_races, const ClockTable& table) {
  table_ = &table;
  num_granules_ = (bytes + 3) / 4;
  num_warps_ = num_warps;
  num_readers_ = num_warps + num_warps / kWarpgroupWarps;
  check_races_ = check_races;
  cells_.assign(num_granules_, Cell{});
  split_.assign(num_granules_, 0);
  any_split_ = false;
  // Stale entries of reads_ are harmless: Cell::readers says which count.
  reads_.resize(size_t{num_granules_} * num_readers_);
}

uint32_t Shadow::split(uint32_t granule) {
  if (split_[granule] != 0) return split_[granule] - 1;
  const auto first = static_cast<uint32_t>(cells_.size());
  cells_.insert(cells_.end(), 4, Cell(cells_[granule]));
  reads_.resize(cells_.size() * num_readers_);
  for (uint32_t i = 0; i < 4; ++i) {
    std::copy_n(reads_.begin() + granule * num_readers_, num_readers_,
                reads_.begin() + (first + i) * num_readers_);
  }
  split_[granule] = first + 1;
  any_split_ = true;
  return first;
}

bool Shadow::ordered(uint32_t thread, uint32_t clock, const Access& access) const {
  if (thread == access.thread) return true;
  const uint32_t warp = thread / kWarpLanes;
  const uint32_t lane = access.thread % kWarpLanes;
  const WarpClock& known = *access.clock;
  if (clock < known.known(lane, warp)) return true;
  if (is_thread(thread) && table_->thread_agent[thread] != 0 &&
      clock < known.known(lane, table_->thread_agent[thread])) {
    return true;
  }
  return warp == access.thread / kWarpLanes && known.lane_order &&
         clock < (*known.lane_order)[lane][thread % kWarpLanes];
}

bool Shadow::fenced(uint32_t thread, uint32_t clock, const Access& access, bool init) const {
  const auto& fences = table_->fences[agent_of(thread)];
  auto at = std::lower_bound(fences.begin(), fences.end(), clock,
                             [](const ProxyFence& f, uint32_t c) { return f.clock < c; });
  for (; at != fences.end(); ++at) {
    if (at->only_inits && !init) continue;
    if ((at->lanes >> thread % kWarpLanes & 1) != 0) return ordered(thread, at->clock, access);
  }
  return false;
}

// What other agents than threads wrote, they wrote through the async proxy.
bool Shadow::visible_to_async(const Cell& c, const Access& access) const {
  return (c.flags & kInitialized) == 0 || !is_thread(c.write_thread) || !check_races_ ||
         fenced(c.write_thread, c.write_clock, access);
}

Finding Shadow::read_cell_slow(Cell& c, uint32_t index, const Access& access) {
  if ((c.flags & kBarrier) != 0) return {Hazard::kBarrierObject, 0, c.write_thread, c.write_instr};
  if ((c.flags & kPending) != 0) return {Hazard::kMissingWait, 0, c.write_thread, c.write_instr};
  if ((c.flags & kInitialized) == 0) return {Hazard::kUninitialized, 0, 0, ~0u};
  if (!check_races_) return {};
  if (!ordered(c.write_thread, c.write_clock, access) &&
      !((c.flags & kStrongWrite) != 0 && access.strong)) {
    return {Hazard::kRaceWithWrite, 0, c.write_thread, c.write_instr};
  }
  const uint32_t warp = access.thread / kWarpLanes;
  const unsigned own = column(access.thread);
  Read& r = reads_[size_t{index} * num_readers_ + own];
  if ((c.readers >> own & 1) == 0) r = Read{};
  c.readers |= uint64_t{1} << own;
  c.flags |= kHasReads;
  const uint32_t stamp = access.clock->now * 2 + (access.strong ? 1 : 0);
  if (r.stamp != stamp) {
    // Lanes of an earlier stamp stay on record while they are not ordered before this access; a
    // strong read among plain ones then counts as plain.
    uint32_t keep = 0;
    for (uint32_t lanes = r.lanes; lanes != 0; lanes &= lanes - 1) {
      const auto lane = static_cast<uint32_t>(std::countr_zero(lanes));
      if (!ordered(warp * kWarpLanes + lane, r.stamp / 2, access)) keep |= 1u << lane;
    }
    r.stamp = keep != 0 ? stamp & ~1u : stamp;
    r.lanes = keep;
  }
  r.lanes |= 1u << access.thread % kWarpLanes;
  c.read_instr = access.instr;
  return {};
}

Finding Shadow::reader_conflict(uint32_t index, const Access& access) const {
  const Read* reads = &reads_[size_t{index} * num_readers_];
  const uint32_t own = access.thread / kWarpLanes;
  for (uint64_t rest = cells_[index].readers; rest != 0; rest &= rest - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(rest));
    const Read& r = reads[i];
    const uint32_t w = agent_in(i);
    if (r.lanes == 0 || r.stamp / 2 < access.clock->order[w] ||
        ((r.stamp & 1) != 0 && access.strong))
      continue;
    uint32_t lanes = r.lanes;
    if (w == own) lanes &= ~(1u << access.thread % kWarpLanes);
    for (; lanes != 0; lanes &= lanes - 1) {
      const uint32_t thread = w * kWarpLanes + static_cast<uint32_t>(std::countr_zero(lanes));
      if (!ordered(thread, r.stamp / 2, access))
        return {Hazard::kRaceWithRead, 0, thread, cells_[index].read_instr};
    }
  }
  return {};
}

Finding Shadow::conflict_of_write(const Cell& c, uint32_t index, const Access& access) const {
  if ((c.flags & kBarrier) != 0) return {Hazard::kBarrierObject, 0, c.write_thread, c.write_instr};
  if ((c.flags & kPending) != 0) return {Hazard::kRaceWithCopy, 0, c.write_thread, c.write_instr};
  if ((c.flags & kStoring) != 0) return {Hazard::kRaceWithStore, 0, 0, ~0u};
  if (!check_races_) return {};
  const bool both_strong = (c.flags & kStrongWrite) != 0 && access.strong;
  if ((c.flags & kInitialized) != 0 && !ordered(c.write_thread, c.write_clock, access) &&
      !both_strong) {
    return {Hazard::kRaceWithWrite, 0, c.write_thread, c.write_instr};
  }
  return (c.flags & kHasReads) != 0 ? reader_conflict(index, access) : Finding{};
}

Finding Shadow::write_cell_slow(Cell& c, uint32_t index, const Access& access) {
  const Finding f = conflict_of_write(c, index, access);
  if (f.hazard != Hazard::kNone) return f;
  record_write(c, access);
  c.flags |= kInitialized;
  return {};
}

Finding Shadow::issue_cell(uint32_t index, const Access& access) {
  Cell& c = cells_[index];
  const Finding f = conflict_of_write(c, index, access);
  if (f.hazard != Hazard::kNone) return f;
  record_write(c, access);
  c.flags |= kPending;
  return {};
}

Finding Shadow::land_cell(uint32_t index, const Access& access) {
  Cell& c = cells_[index];
  record_write(c, access);
  c.flags |= kInitialized;
  return {};
}

Finding Shadow::read_async_cell(uint32_t index, const Access& access) {
  const Finding f = read_cell_slow(cells_[index], index, access);
  if (f.hazard != Hazard::kNone) return f;
  const Cell& c = cells_[index];
  if (visible_to_async(c, access)) return {};
  return {Hazard::kMissingFence, 0, c.write_thread, c.write_instr};
}

Finding Shadow::issue_bulk_cell(uint32_t index, const Access& access) {
  const Cell& c = cells_[index];
  const Finding f = conflict_of_write(c, index, access);
  if (f.hazard != Hazard::kNone) return f;
  if (!visible_to_async(c, access)) {
    return {Hazard::kMissingFence, 0, c.write_thread, c.write_instr};
  }
  return issue_cell(index, access);
}

Finding Shadow::begin_store_cell(uint32_t index, const Access& access) {
  const Finding f = read_async_cell(index, access);
  if (f.hazard == Hazard::kNone) cells_[index].flags |= kStoring;
  return f;
}

// From here on the reads count as the waiting thread's own.
Finding Shadow::end_store_cell(uint32_t index, const Access& access) {
  Cell& c = cells_[index];
  c.flags &= static_cast<uint8_t>(~kStoring);
  return read_cell_slow(c, index, access);
}

Finding Shadow::claim_cell(uint32_t index, const Access& access) {
  const Finding f = conflict_of_write(cells_[index], index, access);
  if (f.hazard != Hazard::kNone) return f;
  record_write(cells_[index], access);
  cells_[index].flags = kBarrier;
  return {};
}

// What an mbarrier leaves behind is no value.
Finding Shadow::free_cell(uint32_t index, const Access& access) {
  record_write(cells_[index], access);
  cells_[index].flags = 0;
  return {};
}

}  // namespace sagejit::emulator
