// Checked access to every state space. All loads, stores, atomics and copies go through here.
#pragma once

#include "runtime/device/emulator/machine/block.h"

namespace sagejit::emulator {

using Addresses = std::array<uint64_t, kWarpLanes>;
using Pointers = std::array<std::byte*, kWarpLanes>;

enum class AccessKind : uint8_t { kRead, kWrite, kReadWrite };

struct Request {
  Space space = Space::kGlobal;  // kReg stands for generic addressing
  AccessKind kind = AccessKind::kRead;
  uint32_t bytes = 4;   // per lane; also the alignment demanded
  bool strong = false;  // atomic, volatile, or with memory order
};

// Base operand plus offset, for all lanes.
void compute_addresses(const Warp& w, const Operand& base, int64_t offset, Addresses& out);

// Checks the active lanes' accesses (bounds, alignment, shared-memory hazards), counts them, and
// gives the host pointers. Throws Error with the first offending lane.
void resolve(Warp& w, const Instr& in, const Request& request, const Addresses& address,
             Pointers& pointer);

// Global bounds of one lane, without alignment.
void check_global(Warp& w, unsigned lane, uint64_t address, uint64_t bytes, bool write);

// One lane's shared range: bounds and alignment. Returns the offset from the start of shared
// memory.
uint32_t check_shared(Warp& w, unsigned lane, uint64_t address, uint32_t bytes, uint32_t align);

// Adds a warp access of `bytes` per lane to the bank-conflict counters. offsets: from the start of
// shared memory, for the lanes of `mask`.
void count_shared(Report& report, uint32_t mask, const uint32_t* offsets, uint32_t bytes);

// Throws for a hazard that the shadow found; `what` is "read", "write" or "asynchronous copy".
void report_hazard(Warp& w, unsigned lane, const Finding& finding, const char* what);

// Behind a write with a memory order, or an atomic: of what others may wait for.
inline void wrote(const Warp& w, Space space) {
  if (space != Space::kShared) w.block->launch.turns->wrote(w.block->launch.number);
}

// Pointer into a thread's local memory -> index in Warp::local_written; negative for other memory.
std::ptrdiff_t local_index(const Warp& w, const std::byte* pointer);

}  // namespace sagejit::emulator
