// Integer arithmetic on constants: what an operation is the same as.
#pragma once

#include <optional>

#include "compiler/ir/ir.h"

namespace sagejit::ir {

// a op b of an operation with two integer operands.
struct Expression {
  Op op;
  Value a, b;
};

// True if a op b == b op a, for integers.
bool is_commutative(Op op);

// The same, with the constant on the right if operands may be exchanged, and products, quotients
// and remainders (unsigned) of powers of two as shifts and masks.
Expression simplified(Expression expression);

// The constant, or the operand, that the expression equals; empty if there is none. Integers wrap,
// and a shift by the width or more gives 0, as in PTX.
std::optional<Value> value_of(const Expression& expression);

}  // namespace sagejit::ir
