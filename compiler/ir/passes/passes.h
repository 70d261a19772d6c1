// Passes over kernel IR: each takes a function that verifies and returns one that does the same
// with less. Results of floating-point operations stay the same bit for bit; what has an effect
// stays, in its order. They are pure, and safe to call from several threads.
#pragma once

#include "compiler/ir/ir.h"

namespace sagejit::ir {

// Straight-line code reads registers instead of variables: what `get` would read is used directly
// where the variable's value is known. A `tie`, a product or a wait leaves the values of its
// variables unknown.
Function forward_variables(Function function);

// Removes what computes nothing that is used: pure operations and loads without uses, writes to
// variables that are not read before the next one, `if`s without instructions.
Function remove_dead(Function function);

// Computes integers that are constant, and simplifies those that nearly are: identities of
// arithmetic, sums of a register and several constants. Floating point stays as it is.
Function fold_constants(Function function);

// Pure operations with the same operands are computed once, where the first of them dominates the
// others: before them in the same block or in one around it.
Function merge_common(Function function);

// Integers, addresses and descriptors among them, that are the same in every iteration are computed
// in front of the loop. ptxas does that with most sums of 32 bits by itself, but computes
// descriptors of warpgroup products, sums of 64 bits, again in every iteration.
Function hoist_invariants(Function function);

// Constants that are added to an address become part of the instruction, where it has room for one:
// [address + constant].
Function fold_addresses(Function function);

}  // namespace sagejit::ir
