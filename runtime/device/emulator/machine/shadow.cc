#include "runtime/device/emulator/machine/shadow.h"

#include <algorithm>
#include <bit>

namespace sagejit::emulator {

void WarpClock::sync(uint32_t warp, uint32_t mask, bool whole) {
  ++now;
  if (whole) {
    order[warp] = now;
    return;
  }
  if (!lane_order) {
    lane_order = std::make_unique<std::array<std::array<uint32_t, kWarpLanes>, kWarpLanes>>();
    for (auto& row : *lane_order) row.fill(0);
  }
  for (unsigned a = 0; a < kWarpLanes; ++a) {
    for (unsigned b = 0; b < kWarpLanes; ++b) {
      if ((mask >> a & 1) != 0 && (mask >> b & 1) != 0) (*lane_order)[a][b] = now;
    }
  }
}

void Shadow::reset(uint32_t bytes, uint32_t num_warps, bool check_races) {
  num_granules_ = (bytes + 3) / 4;
  num_warps_ = num_warps;
  check_races_ = check_races;
  cells_.assign(num_granules_, Cell{});
  // Stale entries of reads_ are harmless: a cell without has_reads is never looked up, and the first read
  // after a write clears all warps.
  reads_.resize(size_t{num_granules_} * num_warps);
}

uint32_t Shadow::split(uint32_t granule) {
  if (cells_[granule].split != 0) return cells_[granule].split - 1;
  const auto first = static_cast<uint32_t>(cells_.size());
  for (int i = 0; i < 4; ++i) cells_.push_back(cells_[granule]);
  reads_.resize(cells_.size() * num_warps_);
  for (uint32_t i = 0; i < 4; ++i) {
    std::copy_n(reads_.begin() + granule * num_warps_, num_warps_, reads_.begin() + (first + i) * num_warps_);
  }
  cells_[granule].split = first + 1;
  return first;
}

bool Shadow::ordered(uint32_t thread, uint32_t clock, const Access& access) const {
  if (thread == access.thread) return true;
  const uint32_t warp = thread / kWarpLanes;
  if (clock < access.clock->order[warp]) return true;
  return warp == access.thread / kWarpLanes && access.clock->lane_order &&
         clock < (*access.clock->lane_order)[access.thread % kWarpLanes][thread % kWarpLanes];
}

Finding Shadow::read_cell(uint32_t index, const Access& access) {
  Cell& c = cells_[index];
  if (c.pending) return {Hazard::kMissingWait, 0, c.write_thread, c.write_instr};
  if (!c.initialized) return {Hazard::kUninitialized, 0, 0, ~0u};
  if (!check_races_) return {};
  if (!ordered(c.write_thread, c.write_clock, access) && !(c.write_strong && access.strong)) {
    return {Hazard::kRaceWithWrite, 0, c.write_thread, c.write_instr};
  }
  Read* reads = &reads_[size_t{index} * num_warps_];
  if (!c.has_reads) {
    std::fill_n(reads, num_warps_, Read{});
    c.has_reads = true;
  }
  Read& r = reads[access.thread / kWarpLanes];
  if (r.clock != access.clock->now || r.strong != access.strong) {
    // Lanes of an earlier clock stay on record unless they are ordered before this warp by now.
    const bool keep = r.lanes != 0 && r.clock >= access.clock->order[access.thread / kWarpLanes];
    r = {access.clock->now, keep ? r.lanes : 0, 0, access.strong && (!keep || r.strong)};
  }
  r.lanes |= 1u << access.thread % kWarpLanes;
  r.instr = access.instr;
  return {};
}

Finding Shadow::reader_conflict(uint32_t index, const Access& access) const {
  const Read* reads = &reads_[size_t{index} * num_warps_];
  const uint32_t own = access.thread / kWarpLanes;
  for (uint32_t w = 0; w < num_warps_; ++w) {
    const Read& r = reads[w];
    if (r.lanes == 0 || r.clock < access.clock->order[w] || (r.strong && access.strong)) continue;
    uint32_t lanes = r.lanes;
    if (w == own) lanes &= ~(1u << access.thread % kWarpLanes);
    for (; lanes != 0; lanes &= lanes - 1) {
      const uint32_t thread = w * kWarpLanes + static_cast<uint32_t>(std::countr_zero(lanes));
      if (!ordered(thread, r.clock, access)) return {Hazard::kRaceWithRead, 0, thread, r.instr};
    }
  }
  return {};
}

Finding Shadow::conflict_of_write(const Cell& c, uint32_t index, const Access& access) const {
  if (c.pending) return {Hazard::kRaceWithCopy, 0, c.write_thread, c.write_instr};
  if (!check_races_) return {};
  if (c.initialized && !ordered(c.write_thread, c.write_clock, access) && !(c.write_strong && access.strong)) {
    return {Hazard::kRaceWithWrite, 0, c.write_thread, c.write_instr};
  }
  return c.has_reads ? reader_conflict(index, access) : Finding{};
}

void Shadow::record_write(Cell& c, const Access& access) {
  c.write_clock = access.clock->now;
  c.write_instr = access.instr;
  c.write_thread = static_cast<uint16_t>(access.thread);
  c.write_strong = access.strong;
  c.has_reads = false;
}

Finding Shadow::write_cell(uint32_t index, const Access& access) {
  Cell& c = cells_[index];
  const Finding f = conflict_of_write(c, index, access);
  if (f.hazard != Hazard::kNone) return f;
  record_write(c, access);
  c.initialized = true;
  return {};
}

Finding Shadow::issue_cell(uint32_t index, const Access& access) {
  Cell& c = cells_[index];
  const Finding f = conflict_of_write(c, index, access);
  if (f.hazard != Hazard::kNone) return f;
  record_write(c, access);
  c.pending = true;
  return {};
}

Finding Shadow::land_cell(uint32_t index, const Access& access) {
  Cell& c = cells_[index];
  record_write(c, access);
  c.pending = false;
  c.initialized = true;
  return {};
}

}  // namespace sagejit::emulator
