// Shadow of a block's shared memory: who wrote and read each byte, and when.
//
// Order between accesses comes from barriers alone; see clock.h. An access stamped with clock c of
// warp w by thread t is ordered before one by thread u of warp v when t == u, or c < order_v[w];
// order_v[v] is the clock of v's last warp-wide sync, and lanes that synced with a partial mask
// have a matrix of their own.
//
// The async proxy (wgmma, bulk copies and stores) sees a generic write only when the writer has
// executed fence.proxy.async behind it and that fence is ordered before the access.
//
// State is kept per 4-byte granule, and per byte for granules that were ever accessed by parts.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/device/emulator/machine/clock.h"

namespace sagejit::emulator {

struct Access {
  uint32_t thread;  // linear index in the block, or agent_thread()
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
  kRaceWithCopy,
  kRaceWithStore,  // a bulk store in flight still reads the bytes
  kMissingFence,   // a generic write that the async proxy may not see yet
  kBarrierObject,  // the bytes hold an mbarrier
};

struct Finding {
  Hazard hazard = Hazard::kNone;
  uint32_t offset = 0;   // of the granule or byte, from the start of shared memory
  uint32_t thread = 0;   // of the other access
  uint32_t instr = ~0u;  // of the other access; ~0: none
};

class Shadow {
 public:
  // `bytes` of shared memory, all uninitialised. Keeps its storage between blocks. `table` must
  // outlive the use.
  void reset(uint32_t bytes, uint32_t num_warps, bool check_races, const ClockTable& table);

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
  // The same through the async proxy.
  Finding read_async(uint32_t offset, uint32_t bytes, const Access& access) {
    return visit<&Shadow::read_async_cell>(offset, bytes, access);
  }
  Finding issue_bulk(uint32_t offset, uint32_t bytes, const Access& access) {
    return visit<&Shadow::issue_bulk_cell>(offset, bytes, access);
  }
  // A bulk store reads the bytes from now (`begin`) until `end_store`.
  Finding begin_store(uint32_t offset, uint32_t bytes, const Access& access) {
    return visit<&Shadow::begin_store_cell>(offset, bytes, access);
  }
  void end_store(uint32_t offset, uint32_t bytes, const Access& access) {
    visit<&Shadow::end_store_cell>(offset, bytes, access);
  }
  // The bytes become an mbarrier object, or stop being one.
  Finding claim_barrier(uint32_t offset, uint32_t bytes, const Access& access) {
    return visit<&Shadow::claim_cell>(offset, bytes, access);
  }
  void free_barrier(uint32_t offset, uint32_t bytes, const Access& access) {
    visit<&Shadow::free_cell>(offset, bytes, access);
  }

  // Is an access by `thread` at `clock` ordered before `access`?
  bool ordered(uint32_t thread, uint32_t clock, const Access& access) const;
  // Has `thread` fenced its generic accesses up to `clock` for the async proxy, before `access`?
  // `init`: the access was an mbarrier.init, for which fence.mbarrier_init counts too.
  bool fenced(uint32_t thread, uint32_t clock, const Access& access, bool init = false) const;

 private:
  enum CellFlags : uint8_t {
    kInitialized = 1,
    kPending = 2,  // target of a copy in flight
    kStrongWrite = 4,
    kHasReads = 8,  // since the last write
    kStoring = 16,  // source of a bulk store in flight
    kBarrier = 32,  // part of an mbarrier object
  };
  struct Cell {
    uint32_t write_clock = 0;
    uint32_t write_instr = 0;
    uint32_t read_instr = 0;  // of the last read
    uint16_t write_thread = 0;
    uint8_t flags = 0;
    uint64_t readers = 0;  // columns of `reads_` that are valid: who read since the last write
  };
  struct Read {          // last reads of a cell by one warp or warpgroup's tensor core
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
    Read& r = reads_[size_t{index} * num_readers_ + warp];
    if (c.flags == (kInitialized | kHasReads) && (c.readers >> warp & 1) != 0 &&
        r.stamp == access.clock->now * 2 &&
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
    c.readers = 0;
  }

  uint32_t split(uint32_t granule);
  unsigned column(uint32_t thread) const {
    const unsigned agent = agent_of(thread);
    return agent < kWarpgroupAgents ? agent : agent - kWarpgroupAgents + num_warps_;
  }
  unsigned agent_in(unsigned column) const {
    return column < num_warps_ ? column : column - num_warps_ + kWarpgroupAgents;
  }
  Finding read_async_cell(uint32_t index, const Access& access);
  Finding issue_bulk_cell(uint32_t index, const Access& access);
  Finding begin_store_cell(uint32_t index, const Access& access);
  Finding end_store_cell(uint32_t index, const Access& access);
  Finding claim_cell(uint32_t index, const Access& access);
  Finding free_cell(uint32_t index, const Access& access);
  bool visible_to_async(const Cell& c, const Access& access) const;
  Finding read_cell_slow(Cell& c, uint32_t index, const Access& access);
  Finding write_cell_slow(Cell& c, uint32_t index, const Access& access);
  Finding issue_cell(uint32_t cell, const Access& access);
  Finding land_cell(uint32_t cell, const Access& access);
  Finding conflict_of_write(const Cell& c, uint32_t cell, const Access& access) const;
  Finding reader_conflict(uint32_t cell, const Access& access) const;

  std::vector<Cell> cells_;      // granules, then byte cells of split granules
  std::vector<uint32_t> split_;  // per granule: first of 4 byte cells + 1; 0: whole
  bool any_split_ = false;
  std::vector<Read> reads_;  // [cell][warp, then warpgroup]
  const ClockTable* table_ = nullptr;
  uint32_t num_granules_ = 0;
  uint32_t num_warps_ = 1;
  uint32_t num_readers_ = 1;
  bool check_races_ = true;
};

}  // namespace sagejit::emulator
