// One warp: registers, divergence state, and the helpers with which instruction bodies are written.
#pragma once

#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/device/emulator/machine/shadow.h"
#include "runtime/device/emulator/machine/warpgroup.h"
#include "runtime/device/emulator/module.h"

namespace sagejit::emulator {

struct Block;

// What a group of lanes waits for: a named barrier by its number, or one of these. Groups at a
// named barrier go on behind it; the others execute their instruction again when they are woken.
enum Waits : int32_t {
  kRuns = -1,
  kWaitsMbarrier = 32,    // + index
  kWaitsWgmma = 256,      // + warpgroup: for its other warps to issue
  kWaitsRegisters = 512,  // setmaxnreg.inc
  kWaitsGrid = 513,       // griddepcontrol.wait
};

// Lanes of a warp that are at the same place. Lanes that took different branches form several.
struct Group {
  uint32_t pc = 0;
  uint32_t mask = 0;
  int32_t barrier = kRuns;   // what it waits for
  bool gives_up = false;     // the next wait on an mbarrier may end without success
  uint32_t failed_at = ~0u;  // the wait on an mbarrier that ended without success last
};

// An instruction's asynchronous copies that have not landed: one entry per lane of `mask`.
struct AsyncCopy {
  uint64_t number = 0;  // in order of issue
  uint32_t mask = 0;
  uint32_t instr = 0;
  uint32_t moved = 0;                            // lanes whose data was copied already
  uint32_t bytes = 0;                            // written per lane; behind source_bytes: zeros
  std::array<uint32_t, kWarpLanes> destination;  // offset in shared memory
  std::array<uint64_t, kWarpLanes> source;
  std::array<uint8_t, kWarpLanes> source_bytes;
  std::array<uint32_t, kWarpLanes> group;  // commit group of the lane
};

struct Warp {
  std::byte* banks[2] = {nullptr,
                         nullptr};  // by Operand::Bank; the constants are shared and never written
  uint32_t* defined = nullptr;      // words of written-lane bits; word 0 is all ones
  uint32_t mask = 0;                // lanes executing the current instruction
  const Instr* current = nullptr;

  Block* block = nullptr;
  uint32_t index = 0;   // in the block
  uint32_t exists = 0;  // lanes that are threads
  uint32_t exited = 0;
  std::vector<Group> groups;
  uint32_t running = 0;  // index in groups
  // Groups may pass one that is set aside at an earlier place. Compilers make lanes rejoin, so this
  // is allowed only when nothing else can run.
  bool independent = false;

  WarpClock clock;
  WarpMma mma;
  std::vector<AsyncCopy> copies;  // in order of issue
  uint64_t copies_issued = 0;
  std::array<uint32_t, kWarpLanes> commit_groups{};  // groups committed per lane
  std::byte* local = nullptr;                        // [lane][Kernel::local_bytes]
  uint8_t* local_written = nullptr;                  // per local byte
  uint64_t random = 0;                               // state for AsyncOrder::kRandom
  uint64_t steps = 0;
  uint32_t awaited_grid = 0;  // lanes that griddepcontrol.wait has let pass
  // Lanes of a dependent launch that may have learned by an acquiring load what another launch has
  // written, and have not executed a fence.proxy.async for global memory since.
  uint32_t unfenced = 0;

  template <class T>
  const T* src(const Operand& op) const {
    return reinterpret_cast<const T*>(banks[op.bank] + op.offset);
  }
  template <class T>
  T* dst(const Operand& op) {
    return reinterpret_cast<T*>(banks[Operand::kRegisters] + op.offset);
  }
  // Bit per lane; lanes outside `mask` are meaningless.
  uint32_t predicate(const Operand& op) const {
    const uint32_t bits = *src<uint32_t>(op);
    return op.negated ? ~bits : bits;
  }
  void set_predicate(const Operand& op, uint32_t bits) {
    uint32_t& word = *dst<uint32_t>(op);
    word = (word & ~mask) | (bits & mask);
    defined[op.defined] |= mask;
  }
  uint32_t defined_lanes(const Operand& op) const { return defined[op.defined]; }
  void set_defined(const Operand& op, uint32_t lanes) {
    uint32_t& word = defined[op.defined];
    word = (word & ~mask) | (lanes & mask);
  }

  // Sources [first, num_ops) must have been written in all active lanes.
  void require_sources(const Instr& in) const { require(in, in.num_dst, in.num_ops); }
  void require(const Instr& in, unsigned first, unsigned end) const {
    uint32_t ok = mask;
    for (unsigned i = first; i < end; ++i) ok &= defined[in.op[i].defined];
    if (ok != mask) fail_undefined(in, first, end);
  }

  // Do lanes `lanes` include all that still run?
  bool is_whole(uint32_t lanes) const { return ((lanes | exited) & exists) == exists; }

  uint32_t thread(unsigned lane) const { return index * kWarpLanes + lane; }
  Index3 thread_index(uint32_t linear) const;

  [[noreturn]] void fail_undefined(const Instr& in, unsigned first, unsigned end) const;
  [[noreturn]] void fail_guard(const Instr& in) const;
  // Throws with the current instruction's place; `lane` names the thread.
  [[noreturn]] void fail(ErrorKind kind, unsigned lane, std::string message,
                         std::optional<LastWriter> writer = std::nullopt) const;
  unsigned first_lane() const {
    return mask == 0 ? 0 : static_cast<unsigned>(std::countr_zero(mask));
  }
};

// A lane's result depends on the same lane of the sources only, even where registers coincide.
// Clang finds out with checks at run time.
#ifdef __clang__
#define SAGEJIT_LANES_INDEPENDENT
#else
#define SAGEJIT_LANES_INDEPENDENT _Pragma("GCC ivdep")
#endif

// Runs `body(lane)` for the active lanes; the full-warp case is a plain loop that vectorises.
template <class Fn>
inline __attribute__((always_inline)) void for_lanes(uint32_t mask, Fn&& body) {
  if (mask == kAllLanes) {
    SAGEJIT_LANES_INDEPENDENT
    for (unsigned l = 0; l < kWarpLanes; ++l) body(l);
  } else {
    for (uint32_t m = mask; m != 0; m &= m - 1) body(static_cast<unsigned>(std::countr_zero(m)));
  }
}

// d = Fn(sources...) lane by lane. The types say how register bits are read; Fn is a stateless
// functor.
template <class D, class Fn, class... S>
void map_lanes(Warp& w, const Instr& in) {
  w.require_sources(in);
  D* __restrict d = w.dst<D>(in.op[0]);
  [&]<size_t... I>(std::index_sequence<I...>) {
    const auto sources = std::make_tuple(w.src<S>(in.op[1 + I])...);
    for_lanes(w.mask, [&](unsigned l) { d[l] = static_cast<D>(Fn{}(std::get<I>(sources)[l]...)); });
  }
  (std::index_sequence_for<S...>{});
  w.defined[in.op[0].defined] |= w.mask;
}

}  // namespace sagejit::emulator
