// mbarrier operands, for all instructions that take one.
#pragma once

#include "runtime/device/emulator/machine/block.h"

namespace sagejit::emulator {

// Offset of an mbarrier's eight bytes from the start of shared memory: bounds and alignment.
uint32_t barrier_offset(Warp& w, unsigned lane, uint64_t address, bool generic);

// Index of the mbarrier there. Throws when there is none, or when its initialisation is not ordered
// before this thread.
uint32_t find_mbarrier(Warp& w, unsigned lane, uint32_t offset);

// The same for all active lanes.
std::array<uint32_t, kWarpLanes> mbarrier_operands(Warp& w, const Operand& base, int64_t offset,
                                                   bool generic);

// The async proxy is going to complete on it: its initialisation must have been fenced.
void require_init_fence(Warp& w, unsigned lane, uint32_t index);

// Checks and issues one lane's bulk copy (its mbarrier at shared address `barrier`) or store.
void issue_bulk_copy(Warp& w, unsigned lane, uint64_t barrier, BulkCopy copy);
void issue_bulk_store(Warp& w, unsigned lane, BulkStore store);

}  // namespace sagejit::emulator
