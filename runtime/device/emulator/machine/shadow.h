// Shadow of a block's shared memory: who wrote and read each byte, and when.
//
// Order between accesses comes from barriers alone. Each warp has a clock, advanced by every
// barrier or warp-wide sync it takes part in, and knows for every warp the clock up to which that
// warp's accesses are ordered before its own (its `order` vector). An access stamped with clock c
// of warp w by thread t is ordered before one by thread u of warp v when t == u, or c < order_v[w];
// order_v[v] is the clock of v's last warp-wide sync, and lanes that synced with a partial mask
// have a matrix of their own.
//
// State is kept per 4-byte granule, and per byte for granules that were ever accessed by parts.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/device/emulator/module.h"

namespace sagejit::emulator {

inline constexpr unsigned kMaxWarps = 32;

// Clocks of one warp.
struct WarpClock {
  uint32_t now = 1;
  std::array<uint32_t, kMaxWarps>
      order{};  // accesses of warp w before order[w] are ordered before ours
  // lane_order[a][b]: accesses of lane b before this clock are ordered before lane a's. Partial
  // masks only.
  std::unique_ptr<std::array<std::array<uint32_t, kWarpLanes>, kWarpLanes>> lane_order;

  // All lanes of `mask` wait for each other; `whole` when those are all lanes of the warp.
  void sync(uint32_t warp, uint32_t mask, bool whole);
};

struct Access {
  uint32_t thread;  // linear index in the block
  uint32_t instr;   // index in Kernel::code
  const WarpClock* clock;
  bool strong;  // atomic, volatile or with memory order: two of these never race
};

enum class Hazard : uint8_t {
  kNone,
  kUninitialized,
  kMissingWait,
  kRaceWithWrite,
  kRaceWithRead,
  kRaceWithCopy
};

struct Finding {
  Hazard hazard = Hazard::kNone;
  uint32_t offset = 0;   // of the granule or byte, from the start of shared memory
  uint32_t thread = 0;   // of the other access
  uint32_t instr = ~0u;  // of the other access; ~0: none
};

class Shadow {
 public:
  // `bytes` of shared memory, all uninitialised. Keeps its storage between blocks.
  void reset(uint32_t bytes, uint32_t num_warps, bool check_races);

  // Access of [offset, offset+bytes), inside the memory, bytes <= 16 and naturally aligned or a
  // row.
  Finding read(uint32_t offset, uint32_t bytes, const Access& access) {
    return visit<&Shadow::read_cell>(offset, bytes, access);
  }
  Finding write(uint32_t offset, uint32_t bytes, const Access& access) {
    return visit<&Shadow::write_cell>(offset, bytes, access);
  }
  // Asynchronous copy: issued (bytes become pending) and later landed in the name of the issuing
  // thread.
  Finding issue_copy(uint32_t offset, uint32_t bytes, const Access& access) {
    return visit<&Shadow::issue_cell>(offset, bytes, access);
  }
  void land_copy(uint32_t offset, uint32_t bytes, const Access& access) {
    visit<&Shadow::land_cell>(offset, bytes, access);
  }

 private:
  enum CellFlags : uint8_t {
    kInitialized = 1,
    kPending = 2,  // target of a copy in flight
    kStrongWrite = 4,
    kHasReads = 8,  // since the last write
  };
  struct Cell {
    uint32_t write_clock = 0;
    uint32_t write_instr = 0;
    uint32_t read_instr = 0;  // of the last read
    uint16_t write_thread = 0;
    uint8_t flags = 0;
  };
  struct Read {          // last reads of a cell by one warp
    uint32_t stamp = 0;  // clock * 2, + 1 for strong reads
    uint32_t lanes = 0;
  };
  using CellFn = Finding (Shadow::*)(uint32_t cell, const Access&);

  template <CellFn Fn>
  Finding visit(uint32_t offset, uint32_t bytes, const Access& access) {
    const uint32_t end = offset + bytes;
    for (uint32_t at = offset; at < end;) {
      const uint32_t granule = at / 4;
      const uint32_t stop = std::min(end, granule * 4 + 4);
      if (stop - at == 4 && (!any_split_ || split_[granule] == 0)) {
        const Finding f = (this->*Fn)(granule, access);
        if (f.hazard != Hazard::kNone) [[unlikely]]
          return located(f, at);
      } else {
        const uint32_t first = split(granule);
        for (uint32_t b = at; b < stop; ++b) {
          const Finding f = (this->*Fn)(first + b % 4, access);
          if (f.hazard != Hazard::kNone) return located(f, b);
        }
      }
      at = stop;
    }
    return {};
  }

  static Finding located(Finding f, uint32_t offset) {
    f.offset = offset;
    return f;
  }

  // The common read: written before the last barrier, read by this warp since.
  Finding read_cell(uint32_t index, const Access& access) {
    Cell& c = cells_[index];
    const uint32_t warp = access.thread / kWarpLanes;
    Read& r = reads_[size_t{index} * num_warps_ + warp];
    if (c.flags == (kInitialized | kHasReads) && r.stamp == access.clock->now * 2 &&
        c.write_clock < access.clock->order[c.write_thread / kWarpLanes] && !access.strong)
        [[likely]] {
      r.lanes |= 1u << access.thread % kWarpLanes;
      c.read_instr = access.instr;
      return {};
    }
    return read_cell_slow(c, index, access);
  }

  // The common write: last written before the last barrier, or by this thread, and not read since.
  Finding write_cell(uint32_t index, const Access& access) {
    Cell& c = cells_[index];
    const bool mine = c.write_thread == access.thread;
    if ((c.flags & ~kStrongWrite) == kInitialized && !access.strong &&
        (mine || c.write_clock < access.clock->order[c.write_thread / kWarpLanes])) [[likely]] {
      record_write(c, access);
      return {};
    }
    return write_cell_slow(c, index, access);
  }
  void record_write(Cell& c, const Access& access) {
    c.write_clock = access.clock->now;
    c.write_instr = access.instr;
    c.write_thread = static_cast<uint16_t>(access.thread);
    c.flags = static_cast<uint8_t>((c.flags & kInitialized) | (access.strong ? kStrongWrite : 0));
  }

  uint32_t split(uint32_t granule);
  bool ordered(uint32_t thread, uint32_t clock, const Access& access) const;
  Finding read_cell_slow(Cell& c, uint32_t index, const Access& access);
  Finding write_cell_slow(Cell& c, uint32_t index, const Access& access);
  Finding issue_cell(uint32_t cell, const Access& access);
  Finding land_cell(uint32_t cell, const Access& access);
  Finding conflict_of_write(const Cell& c, uint32_t cell, const Access& access) const;
  Finding reader_conflict(uint32_t cell, const Access& access) const;

  std::vector<Cell> cells_;      // granules, then byte cells of split granules
  std::vector<uint32_t> split_;  // per granule: first of 4 byte cells + 1; 0: whole
  bool any_split_ = false;
  std::vector<Read> reads_;  // [cell][warp]
  uint32_t num_granules_ = 0;
  uint32_t num_warps_ = 1;
  bool check_races_ = true;
};

}  // namespace sagejit::emulator
