// setmaxnreg: registers move between warps through the block's pool.
//
// Every thread starts with an even share of the register file (Launch::thread_registers); .dec puts
// the rest into the pool at once, .inc takes from it, or waits until others have put enough there.
#include <fmt/format.h>

#include "runtime/device/emulator/machine/block.h"
#include "runtime/device/emulator/semantics/bind.h"
#include "runtime/device/emulator/semantics/collective.h"

namespace sagejit::emulator {
namespace {

// All warps of a warpgroup execute the same setmaxnreg instructions.
void check_log(Warp& w, Warpgroup& group, const Instr& in) {
  const uint32_t next = group.next_resize[w.index % kWarpgroupWarps];
  if (next == group.resizes.size()) group.resizes.push_back(in.index);
  const uint32_t other = group.resizes[next];
  if (other == in.index) return;
  w.fail(ErrorKind::kDivergentCollective, 0,
         fmt::format("the warps of a warpgroup execute different setmaxnreg: another executed line "
                     "{} here",
                     w.block->kernel.code[other].line));
}

// aux: the count, negative for .dec.
void exec_setmaxnreg(Warp& w, const Instr& in) {
  require_whole_warp(w);
  Block& b = *w.block;
  const uint32_t index = w.index / kWarpgroupWarps;
  if (index >= b.warpgroups.size()) {
    w.fail(ErrorKind::kDivergentCollective, 0,
           "setmaxnreg outside a whole warpgroup of 128 threads");
  }
  if (b.launch.thread_registers == 0) {
    w.fail(ErrorKind::kUnsupported, 0, "setmaxnreg in a kernel without .maxntid or .reqntid");
  }
  Warpgroup& group = b.warpgroups[index];
  check_log(w, group, in);
  const bool grows = static_cast<int32_t>(in.aux) > 0;
  const uint32_t wanted = static_cast<uint32_t>(std::abs(static_cast<int32_t>(in.aux)));
  uint32_t& held = w.mma.thread_registers;
  if (grows ? wanted < held : wanted > held) {
    w.fail(ErrorKind::kBarrierMisuse, 0,
           fmt::format("setmaxnreg.{} to {} registers by threads that have {}",
                       grows ? "inc" : "dec", wanted, held));
  }
  if (grows) {
    const uint32_t more = (wanted - held) * kWarpLanes;
    if (more > b.free_registers) return b.suspend(w, kWaitsRegisters);
    b.free_registers -= more;
  } else {
    b.free_registers += (held - wanted) * kWarpLanes;
  }
  held = wanted;
  ++group.next_resize[w.index % kWarpgroupWarps];
  b.wake(kWaitsRegisters);
}

void bind_setmaxnreg(const Match& m, Instr& in) {
  const int64_t count = m.constants.at(0);
  if (count < 24 || count > 256 || count % 8 != 0) return;
  in.aux = static_cast<uint32_t>(m.has("inc") ? count : -count);
  in.control = Control::kSync;
  in.exec = exec_setmaxnreg;
}

constexpr Row kRows[] = {
    {"setmaxnreg.inc|dec.sync.aligned.u32", "i", bind_setmaxnreg},
};

}  // namespace

std::span<const Row> setmaxnreg_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
