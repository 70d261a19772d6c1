// From parsed kernels to executable ones.
#pragma once

#include <memory>

#include "runtime/device/emulator/decode/table.h"
#include "runtime/device/emulator/module.h"
#include "runtime/device/emulator/parse/lexer.h"

namespace sagejit::emulator {

// A register of the kernel before it has a place in the register bank.
struct VirtualRegister {
  uint8_t bytes;   // 0: predicate
  bool pinned;     // holds a value from the start (special registers)
  bool exclusive;  // shares its place with no other, wherever it is live
};

std::unique_ptr<Kernel> decode_kernel(const Source& source, const AstModule& module,
                                      const AstKernel& ast);

// Basic blocks in the order of the text.
struct Cfg {
  std::vector<uint32_t> starts;                   // first instruction of each block
  std::vector<std::vector<uint32_t>> successors;  // block numbers

  uint32_t end(size_t block, const Kernel& kernel) const {
    return block + 1 < starts.size() ? starts[block + 1]
                                     : static_cast<uint32_t>(kernel.code.size());
  }
};

// Finds basic blocks (Instr::block_start) and the order in which diverged lanes run
// (Instr::position).
Cfg order_blocks(Kernel& kernel);

// Gives registers offsets in the register bank and written-lane words: sets Operand::offset and
// Operand::defined, which holds the register's number + 1 on entry. Registers that are never live
// together share a place, which keeps the bank of a warp in the cache.
void assign_registers(Kernel& kernel, const std::vector<VirtualRegister>& registers,
                      const Cfg& cfg);

}  // namespace sagejit::emulator
