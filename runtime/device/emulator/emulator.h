// A PTX interpreter on the CPU: the device of machines without a GPU, and the referee of generated
// kernels.
//
// It runs a subset of PTX (sm_80..sm_90a, what NVRTC emits for attention kernels with mma.sync, or
// warp-specialised with wgmma) warp by warp and is adversarial: asynchronous effects take place as
// late as they may, uninitialised registers and shared bytes are poison, and every hazard (see
// ErrorKind) stops the launch with the PTX line, block, thread and last writer. Anything outside
// the subset is refused when parsing; nothing is ignored.
//
// Modelled of Hopper: mbarriers with arrivals, transaction bytes and phases; bulk and tensor copies
// (tensor_map.h) in both directions; wgmma for 8-bit integers and floats, f16 and bf16, in every
// layout of shared memory; setmaxnreg and the register pool; named barriers; elect. Order between
// threads flows through barriers and mbarriers only (machine/clock.h). What the async proxy reads
// or overwrites must have been fenced by its writer; registers of a wgmma in flight are not
// touched; bytes of a copy are not read before a wait on its mbarrier phase, nor overwritten while
// somebody may still read them; all four warps of a warpgroup execute the same wgmma and
// setmaxnreg; a block does not end with an operation in flight that uses its shared memory.
//
// Stricter than the device in ways that portable kernels respect:
//   a thread that has exited does not count at a barrier (deadlock) nor in a collective that names
//   it; lanes of a warp are ordered through shared memory by barriers, mbarriers and bar.warp.sync
//   only,
//     not by shuffles or by lockstep;
//   fence.proxy.async counts for the generic writes of the thread that executes it only, and before
//     the synchronisation that orders them, not behind it;
//   registers of A count as in flight until the wait, also against being overwritten (an assembler
//     may rename them; tie them to the wait in inline assembly);
//   a block of a dependent launch executes griddepcontrol.wait in at least one thread, even if it
//     needs nothing of the launch before; one of the whole grid would keep the stream's order;
//   a dependent launch starts when the first block executes griddepcontrol.launch_dependents, not
//     when all have done so;
//   a lane of a dependent launch that has acquired something from global memory executes
//     fence.proxy.async for global memory, or griddepcontrol.wait, before it issues a bulk copy,
//     whatever that reads;
//   a wait on an mbarrier returns false at least once when its phase is not complete;
//   a block runs when a host thread is free and stays there to its end: one that waits for a block
//     which no running block lets start ends with kStepLimit.
//
// Launches of a stream that overlap by programmatic dependent launch are run so that what is not
// waited for is not there yet: the later launch goes first whenever it can run at all, and the
// earlier one goes on only while every block of the later one that has a host thread waits, in
// griddepcontrol.wait or by reading again and again, with a memory order, what nobody has written
// since.
//
// Not modelled: races through global memory, ordering by fences and flags in shared memory (only
// barriers order plain accesses), texture, calls, clusters of more than one block (no multicast, no
// remote shared memory), wgmma for tf32 and sparse matrices or with a descriptor's base offset,
// im2col and reducing copies, tensor maps changed on the device. Copies of cp.async that arrive on
// an mbarrier count as written through the async proxy. More than 128 threads that arrive on
// mbarriers without the rest of their warp release for their whole warp. Module-level .global
// variables start from their initialisers at every launch. Of launches that overlap: that memory
// shows writes in another order than they were made in; overlap of different calls of run(); a
// dependent launch that waits by atomics or plain loads alone (it ends with kStepLimit); fences
// between the proxies for bulk stores, and for copies by other threads than acquired the data.
// Numeric models are in semantics/numerics.h.
//
// Thread safety: Program is immutable; run() may be called from many threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/emulator/error.h"

namespace sagejit::emulator {

struct Module;  // parsed and decoded form

struct ParamInfo {
  std::string name;
  std::string type;  // element type as written: "u64", "b8"
  uint32_t offset;   // byte offset in the packed parameter buffer
  uint32_t bytes;
};

struct KernelInfo {
  std::string name;
  std::vector<ParamInfo> params;
  uint32_t param_bytes = 0;  // size of the packed parameter buffer
  Index3 max_ntid{0, 0, 0};  // .maxntid; 0 = not given
  Index3 req_ntid{0, 0, 0};  // .reqntid; 0 = not given
  uint32_t static_shared_bytes = 0;
  std::string target;   // "sm_90a"
  std::string version;  // "9.0"
};

class Program {
 public:
  // Parses and decodes; throws Error (kParse, kUnsupported) with the line.
  static Program parse(std::string_view ptx);

  const std::vector<KernelInfo>& kernels() const;
  const Module& module() const { return *module_; }

 private:
  std::shared_ptr<const Module> module_;
};

// Memory the kernel may touch. Device addresses are host addresses.
struct MemoryRange {
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool writable = true;
  std::string name;  // for messages
};

// When an asynchronous copy or wgmma reads its sources and writes its destination.
enum class AsyncOrder {
  kLate,    // at the wait that covers it; on an mbarrier, when nothing else can run
  kEarly,   // at issue
  kRandom,  // anywhere between, chosen by Options::seed
};

struct Options {
  AsyncOrder async = AsyncOrder::kLate;
  uint64_t seed = 0;  // not 0: warps are also scheduled in pseudo-random order. Same seed, same run
  unsigned num_threads = 0;  // host threads; 0 = one per core
  // Warp instructions per block before kStepLimit; a load with a memory order counts as 64, because
  // blocks that wait for others repeat it.
  uint64_t max_steps = uint64_t{1} << 31;
  bool check_races = true;
};

struct LaunchConfig {
  std::string_view kernel;
  uint32_t grid[3] = {1, 1, 1};
  uint32_t block[3] = {1, 1, 1};
  uint32_t dynamic_shared_bytes = 0;
  std::span<const std::byte> params;  // packed as KernelInfo::params says
  std::span<const MemoryRange> memory;
  Options options;
  // With the attribute of programmatic dependent launch: it may overlap the launch before it.
  bool is_dependent = false;
};

// Sums over all blocks.
struct Report {
  uint64_t warp_steps = 0;         // warp instructions executed
  uint64_t instructions = 0;       // thread instructions (warp instructions times active lanes)
  uint64_t divergent_steps = 0;    // warp instructions executed while the warp was diverged
  uint64_t barriers = 0;           // block or named barriers completed
  uint64_t mma = 0;                // mma.sync executed
  uint64_t global_accesses = 0;    // warp loads, stores and atomics of global memory
  uint64_t async_copies = 0;       // warp cp.async instructions
  uint64_t shared_accesses = 0;    // warp ld/st/ldmatrix/stmatrix of shared memory
  uint64_t shared_wavefronts = 0;  // shared-memory passes these needed on 32 banks of 4 bytes
  uint64_t shared_conflicts = 0;   // wavefronts beyond the fewest possible for the bytes touched
  uint64_t wgmma = 0;              // wgmma.mma_async executed, once per warpgroup
  uint64_t bulk_copies = 0;        // bulk and tensor copies and stores, once per thread
  uint64_t mbarrier_phases = 0;    // phases of mbarriers completed
};

// Runs one launch to completion. Throws Error; with several failing blocks, that of the lowest
// block index. After an error the contents of writable ranges are unspecified.
Report run(const Program& program, const LaunchConfig& config);

struct QueuedLaunch {
  Program program;
  LaunchConfig config;
};

// Runs launches as a stream does, in their order; those that are dependent overlap. Throws Error;
// with several failing launches, that of the first in the stream: others may only follow from it.
std::vector<Report> run(std::span<const QueuedLaunch> launches);

}  // namespace sagejit::emulator
