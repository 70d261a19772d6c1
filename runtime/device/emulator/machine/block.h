// One block in execution and the launch it belongs to.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "runtime/device/emulator/machine/async.h"
#include "runtime/device/emulator/machine/mbarrier.h"
#include "runtime/device/emulator/machine/turns.h"
#include "runtime/device/emulator/machine/warp.h"

namespace sagejit::emulator {

inline constexpr unsigned kNumBarriers = 16;

// What all blocks of a launch share; read-only while blocks run.
struct Launch {
  const Module* module = nullptr;
  const Kernel* kernel = nullptr;
  Options options;
  Index3 grid{}, block{};
  uint32_t num_threads = 0;
  uint32_t shared_end = 0;  // first address behind static and dynamic shared memory
  uint32_t dynamic_shared_bytes = 0;
  uint32_t thread_registers = 0;  // each thread starts with; what setmaxnreg redistributes
  std::vector<std::byte> params;
  std::vector<MemoryRange> memory;                // sorted by address; with the module's variables
  std::vector<std::vector<std::byte>> variables;  // storage of module-level .global and .const
  std::vector<std::byte> constants;               // bank kConstants
  Turns* turns = nullptr;
  size_t number = 0;          // for `turns`
  bool is_dependent = false;  // LaunchConfig
};

struct Barrier {
  uint32_t arrived = 0;   // threads
  uint32_t expected = 0;  // 0: nobody waits
  bool reduces = false;
  uint32_t popc = 0, all = 1, any = 0;
  std::array<uint32_t, kMaxWarps> lanes{};  // that arrived, of each warp
  Order clock{};                            // join of the arrivals' orders
};

struct Block {
  explicit Block(const Launch& l);
  // Runs block `linear` of the grid from start to end.
  void run(uint64_t linear);

  const Launch& launch;
  const Kernel& kernel;
  Index3 ctaid{};
  std::vector<std::byte> shared;
  Shadow shadow;
  ClockTable clocks;
  std::array<Barrier, kNumBarriers> barriers{};
  MbarrierTable mbarriers;
  AsyncEngine async;
  std::vector<Warp> warps;
  std::vector<Warpgroup> warpgroups;  // of four whole warps each
  uint32_t free_registers = 0;        // of the pool that setmaxnreg moves registers through
  std::vector<uint32_t> range_hint;   // per instruction: index in Launch::memory
  Report report;

  // Lanes w.mask of the running group arrive at barrier `id` for `expected` threads (0: the
  // block's).
  void arrive(Warp& w, uint32_t id, uint32_t expected, bool waits);
  // Lanes of the running group end.
  void exit_lanes(Warp& w, uint32_t lanes);
  // Lanes w.mask of the running group wait for `what` (see Waits) and then execute the current
  // instruction again.
  void suspend(Warp& w, int32_t what);
  void wake(int32_t what);
  bool awaited(int32_t what) const;
  // Completes the current phase of an mbarrier if nothing is pending any more.
  void settle_mbarrier(uint32_t index);
  std::string describe_mbarrier(uint32_t index) const;
  // Something happened that a polling thread may see. Used to tell a slow wait from a deadlock.
  void note_progress() { ++progress_; }
  // `w` makes a load that may be one of many, until another block has written what it waits for.
  void poll(Warp& w);
  // Lanes w.mask execute griddepcontrol.wait.
  void await_grid(Warp& w);

 private:
  void start_warps();
  bool unblock();
  bool pass_grid_waits();
  void check_finished();
  void check_warpgroups();
  std::string describe_wait(const Warp& w, const Group& g) const;
  void step_group(Warp& w, uint64_t end);
  bool choose_group(Warp& w);
  int runnable_group(const Warp& w) const;
  void complete(uint32_t id);
  [[noreturn]] void fail_deadlock();
  uint32_t next_warp(uint32_t previous);

  std::vector<std::byte> register_file_, local_;
  std::vector<uint32_t> defined_;
  std::vector<uint8_t> local_written_;
  std::vector<Warp*> runnable_;
  uint64_t random_ = 0;
  uint32_t slow_group_ = 0;  // whose warps seldom get a turn; the first that does not exist: none
  uint64_t progress_ = 0;
  uint64_t progress_at_poll_ = 0;
  uint32_t polls_ = 0;         // rounds of waits given up since anything happened
  uint32_t vain_polls_ = 0;    // loads by poll() since another block failed
  uint64_t seen_ = 0;          // Turns::poll()
  bool awaited_grid_ = false;  // by any thread
};

// Writes the values of the special registers that the kernel reads (decode/special.cc).
void fill_specials(Warp& w, const Kernel& kernel);
// Hands the result of bar.red to the lanes of a released group (semantics/control.cc).
void finish_reduction(Warp& w, const Group& g, const Barrier& b);

// xorshift64*; state must not be 0.
inline uint64_t next_random(uint64_t& state) {
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 0x2545f4914f6cdd1dull;
}

}  // namespace sagejit::emulator
