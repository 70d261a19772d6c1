// What a front end does before an assembler sees a kernel.
#pragma once

#include "compiler/ir/ir.h"

namespace sagejit {

// The same kernel with less to assemble. It makes ptxas choose better instructions, not only
// sooner: scores and probabilities that share a variable's register would cost a permutation a
// register. What ptxas does as well (loop-invariant motion, strength reduction) is left to it:
// hoisting is best done by who allocates registers.
ir::Function simplify(ir::Function kernel);

}  // namespace sagejit
