// What the printers of CUDA C++ and of PTX share: an operation's PTX with its operands written in.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/ir/ir.h"

namespace sagejit {

// How the operand, or placeholder, of that number is written.
using SpellOperand = std::function<std::string(size_t number)>;

// What $0, $1, ... of a row of ops.def stand for: the results, then the operands.
std::vector<ir::Value> placeholders(const ir::Inst& inst);

// `text` with each $N replaced.
std::string substitute(std::string_view text, const SpellOperand& spell);

// A product of a warpgroup (wgmma.def), behind its fence if it has one; `spell` is asked for the
// operands that are variables, registers or descriptors.
std::string wgmma_instruction(const ir::Inst& inst, const SpellOperand& spell);

}  // namespace sagejit
