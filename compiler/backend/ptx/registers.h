// Which registers and variables of a kernel share a PTX register.
//
// A copy is more than text: what a product of a warpgroup reads may not be written between its
// fence and itself, not even by a move of the same value (PTX ISA, "wgmma.fence"). So one register
// holds
//   a variable and what `get` read of it, where the variable keeps that value until the last use;
//   a number and its bits;
//   a variable and what `set` or `var` gives it, where that instruction is the value's only use and
//   nothing touches the variable since the value was computed.
// What a product reads counts as in use until the wait that covers it: one that surely follows,
// after as many commits as the wait leaves in flight beside the product's own. Where the product's
// loop has no such wait behind it, the next iterations run beside the product, and nothing may be
// written in all of the loop, nor until a wait behind it.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/ir/ir.h"

namespace sagejit {

// By number of a register or variable: the one whose PTX register it has, often itself.
std::vector<uint64_t> share_registers(const ir::Function& function);

}  // namespace sagejit
