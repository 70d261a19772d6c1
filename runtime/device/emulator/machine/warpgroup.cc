#include "runtime/device/emulator/machine/warpgroup.h"

#include <fmt/format.h>

#include "runtime/device/emulator/machine/block.h"

namespace sagejit::emulator {
namespace {

constexpr uint32_t kAllWarps = (1u << kWarpgroupWarps) - 1;

bool same(const MmaOp& a, const MmaOp& b) {
  return a.instr == b.instr && a.descriptor_a == b.descriptor_a &&
         a.descriptor_b == b.descriptor_b && a.scale_d == b.scale_d && a.group == b.group;
}

std::string difference(const MmaOp& a, const MmaOp& b) {
  if (a.instr != b.instr) return fmt::format("the others executed line {} here", b.instr->line);
  if (a.group != b.group) return "the others committed their groups at other places";
  if (a.scale_d != b.scale_d) return "scale-d differs";
  return fmt::format("descriptors {:#x}, {:#x} against {:#x}, {:#x}", a.descriptor_a,
                     a.descriptor_b, b.descriptor_a, b.descriptor_b);
}

}  // namespace

MmaOp& Warpgroup::log(Warp& w, const MmaOp& op) {
  const uint64_t number = next_op[w.index % kWarpgroupWarps]++;
  const uint64_t at = number - first_op;
  if (at == ops.size()) ops.push_back(op);
  MmaOp& logged = ops[at];
  if (!same(op, logged)) {
    w.fail(ErrorKind::kDivergentCollective, w.first_lane(),
           fmt::format("the warps of a warpgroup execute different wgmma.mma_async: {}",
                       difference(op, logged)));
  }
  return logged;
}

bool Warpgroup::issued(uint32_t groups) const {
  for (const MmaOp& op : ops) {
    if (op.group < groups && op.issued != kAllWarps) return false;
  }
  return true;
}

void Warpgroup::finish(Block& block, uint32_t warpgroup, uint32_t groups) {
  for (MmaOp& op : ops) {
    if (op.group >= groups) break;
    if (!op.done) execute_mma(block, warpgroup, op);
    op.done = true;
  }
}

void Warpgroup::finish_to(Block& block, uint32_t warpgroup, const MmaOp& last) {
  for (MmaOp& op : ops) {
    if (!op.done) execute_mma(block, warpgroup, op);
    op.done = true;
    if (&op == &last) break;
  }
}

void Warpgroup::forget_waited(const Block& block, uint32_t warpgroup) {
  uint32_t waited = ~0u;
  for (uint32_t i = 0; i < kWarpgroupWarps; ++i) {
    waited = std::min(waited, block.warps[warpgroup * kWarpgroupWarps + i].mma.waited);
  }
  while (!ops.empty() && ops.front().group < waited) {
    ops.pop_front();
    ++first_op;
  }
}

void touch_mma_registers(Warp& w, const Instr& in) {
  const auto& slots = w.block->kernel.mma_slots;
  WarpMma& mma = w.mma;
  for (unsigned i = 0; i < in.num_ops; ++i) {
    const Operand& op = in.op[i];
    if (op.bank != Operand::kRegisters || slots[op.defined] == 0) continue;
    MmaRegister& r = mma.registers[slots[op.defined] - 1u];
    if (r.accumulating > mma.waited || r.feeding > mma.waited) {
      const bool accumulator = r.accumulating > mma.waited;
      const LastWriter other{w.block->kernel.code[r.instr].line,
                             w.thread_index(w.thread(w.first_lane())), accumulator};
      w.fail(ErrorKind::kMissingWait, w.first_lane(),
             fmt::format("operand {} is {} of a wgmma in flight; no wgmma.wait_group covers it yet",
                         i + 1, accumulator ? "an accumulator" : "a fragment of A"),
             other);
    }
    r.touched = mma.fences + 1;
    r.instr = in.index;
  }
}

}  // namespace sagejit::emulator
