// From parsed kernels to executable ones.
#pragma once

#include <memory>

#include "runtime/device/emulator/decode/table.h"
#include "runtime/device/emulator/module.h"
#include "runtime/device/emulator/parse/lexer.h"

namespace sagejit::emulator {

// A register of the kernel before it has a place in the register bank.
struct VirtualRegister {
  uint8_t bytes;  // 0: predicate
  bool pinned;    // holds a value from the start (special registers)
};

std::unique_ptr<Kernel> decode_kernel(const Source& source, const AstModule& module, const AstKernel& ast);

// Finds basic blocks (Instr::block_start) and the order in which diverged lanes run (Instr::position).
void order_blocks(Kernel& kernel);

// Gives registers offsets in the register bank and written-lane words: sets Operand::offset and
// Operand::defined, which holds the register's number + 1 on entry. Needs order_blocks.
void assign_registers(Kernel& kernel, const std::vector<VirtualRegister>& registers);

}  // namespace sagejit::emulator
