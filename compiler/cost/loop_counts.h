// What the main loops of a kernel execute, counted in its IR.
//
// Counted is what is left once the compiler has done the obvious: values that do not change in the
// loop are computed before it, equal ones once, and reading or setting a variable, or another type
// for the same bits, is free. What an assembler saves beyond that (three-input additions, addresses
// folded into instructions) is not known here: counts of integer arithmetic are upper bounds, those
// of products, exponentials and conversions are exact. Pure and thread-safe.
#pragma once

#include <string>
#include <vector>

#include "compiler/ir/ir.h"

namespace sagejit::cost {

struct OpCount {
  ir::Op op = ir::Op::kCount;
  int columns = 0;              // n of a warpgroup's product, else 0
  bool a_in_registers = false;  // of a warpgroup's product
  int count = 0;  // per iteration and warp; a warpgroup's product counts for all of its 4 warps
};

// "mma.s8 m16n8k32", "wgmma.s8 m64n128k32", else the name in ops.def.
std::string name_of(const OpCount& count);

// An innermost `for` that holds tensor-core products, or bulk copies into shared memory.
struct LoopCount {
  std::string label;          // the comment in front of it, or empty
  std::vector<OpCount> ops;   // in the order of ir::Op, every branch counted as taken but these:
  std::vector<OpCount> rare;  // behind a vote of the warp: only where some row needs it
  int bulk_copy_bytes = 0;    // that bulk copies of an iteration bring, of constant length

  bool has_products() const;
};

// In the order of the program.
std::vector<LoopCount> count_loops(const ir::Function& kernel);

// Of the loops with products the one that executes least: the steady state, of which the others are
// copies with a mask. Null without any.
const LoopCount* main_loop(const std::vector<LoopCount>& loops);

}  // namespace sagejit::cost
