// Places registers in the bank.
#include "runtime/device/emulator/decode/decode.h"

namespace sagejit::emulator {
namespace {

// Predicates are one word, but keep vectors of other registers on 32-byte boundaries.
uint32_t size_of(const VirtualRegister& r) { return r.bytes == 0 ? 32 : r.bytes * kWarpLanes; }

}  // namespace

void assign_registers(Kernel& kernel, const std::vector<VirtualRegister>& registers) {
  std::vector<uint32_t> offset(registers.size());
  for (const bool pinned : {true, false}) {
    for (size_t r = 0; r < registers.size(); ++r) {
      if (registers[r].pinned != pinned) continue;
      offset[r] = kernel.register_bytes;
      kernel.register_bytes += size_of(registers[r]);
    }
  }
  const auto place = [&](Operand& op) {
    if (op.bank != Operand::kRegisters) return;
    const uint32_t r = op.defined - 1;
    op.offset = offset[r];
    op.defined = registers[r].pinned ? 0 : r + 1;
  };
  for (Operand& op : kernel.operands) place(op);
  for (Instr& in : kernel.code) {
    if (in.guarded) place(in.guard);
  }
  kernel.num_defined = static_cast<uint32_t>(registers.size()) + 1;
}

}  // namespace sagejit::emulator
