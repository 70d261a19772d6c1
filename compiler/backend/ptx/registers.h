// Which registers and variables of a kernel share a PTX register.
//
// A copy is more than text: what a product of a warpgroup reads may not be written between its
// fence and itself, not even by a move of the same value (PTX ISA, "wgmma.fence"). So one register
// holds
//   a variable and what `get` read of it, where the variable keeps that value until the last use;
//   a number and its bits;
//   a variable and what `set` or `var` gives it, where that instruction is the value's only use and
//   nothing touches the variable since the value was computed.
// What a product reads counts as in use until the next wait for products.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/ir/ir.h"

namespace sagejit {

// By number of a register or variable: the one whose PTX register it has, often itself.
std::vector<uint64_t> share_registers(const ir::Function& function);

}  // namespace sagejit
