// Warpgroups: the asynchronous matrix multiplications in flight, and the register pool.
//
// wgmma.mma_async is issued warp by warp; a warpgroup keeps one log of its operations that each of
// its four warps must go through alike. An operation reads shared memory and writes its
// accumulators when the first warp waits for its group (AsyncOrder::kLate), at issue by the fourth
// warp (kEarly), or either (kRandom). Until a warp has waited, the registers it lent are in flight
// and may not be touched.
#pragma once

#include <deque>

#include "runtime/device/emulator/machine/clock.h"

namespace sagejit::emulator {

struct Block;
struct Warp;

struct MmaOp {
  const Instr* instr = nullptr;
  uint64_t descriptor_a = 0, descriptor_b = 0;  // a: 0 when A is in registers
  bool scale_d = false;                         // D is added to, not overwritten
  uint32_t group = 0;                           // commit group
  uint32_t issued = 0;                          // warps of the group that issued it
  bool done = false;
  Order known{};  // what all of these warps know: what B may have been written by
};

// Per warp: a register that wgmma uses as accumulator or as A.
struct MmaRegister {
  uint32_t accumulating = 0;  // 1 + last commit group that writes it
  uint32_t feeding = 0;       // 1 + last commit group that reads it as A
  uint32_t shape = 0;         // of the operation that accumulates
  uint32_t fences = 0;        // wgmma.fences before that operation
  uint32_t touched = 0;       // 1 + number of wgmma.fences before another instruction's last access
  uint32_t instr = 0;         // that access; or the operation in flight
};

struct WarpMma {
  uint32_t fences = 0;                 // wgmma.fence executed
  uint32_t committed = 0;              // commit groups
  uint32_t waited = 0;                 // groups known to be complete
  uint32_t open = 0;                   // operations since the last commit
  std::vector<MmaRegister> registers;  // by slot of Kernel::mma_slots
  uint32_t thread_registers = 0;       // per thread, as setmaxnreg says
};

struct Warpgroup {
  std::deque<MmaOp> ops;
  uint64_t first_op = 0;                            // number of ops.front()
  std::array<uint64_t, kWarpgroupWarps> next_op{};  // by warp
  std::vector<uint32_t> resizes;                    // setmaxnreg instructions executed
  std::array<uint32_t, kWarpgroupWarps> next_resize{};

  // Logs the op of a warp; throws when it differs from that of the other warps.
  MmaOp& log(Warp& w, const MmaOp& op);
  // All warps have issued the operations of the groups before `groups`.
  bool issued(uint32_t groups) const;
  // Executes those in order.
  void finish(Block& block, uint32_t warpgroup, uint32_t groups);
  // Executes all operations up to `last`, which all warps have issued.
  void finish_to(Block& block, uint32_t warpgroup, const MmaOp& last);
  void forget_waited(const Block& block, uint32_t warpgroup);
};

// Called before an instruction that names a register of Kernel::mma_slots.
void touch_mma_registers(Warp& w, const Instr& in);

// Multiplies: reads shared memory and registers of the warpgroup's four warps, writes D
// (semantics/wgmma_compute.cc).
void execute_mma(Block& block, uint32_t warpgroup, const MmaOp& op);

}  // namespace sagejit::emulator
