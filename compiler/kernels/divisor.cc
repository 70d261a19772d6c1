#include "compiler/kernels/divisor.h"

#include <string>

namespace sagejit {

using ir::constant;
using ir::Op;
using ir::Value;

Divisor::Divisor(ir::Builder& b, const KernelArgs& args, std::string_view name)
    : Divisor(b, args[name], args[std::string(name) + "_reciprocal"]) {}

// With R = floor((2^31 - 1) / d), x R / 2^31 is below x / d by less than 2 x / 2^31 < 1.
Divisor::Result Divisor::divide(Value x) const {
  const Value low = b_.emit1(Op::kMulHighU32, {b_.shl(x, 1), reciprocal_});
  const Value rest = b_.sub(x, b_.mul(low, divisor_));
  const Value is_low = b_.less_equal(divisor_, rest);
  return {b_.select(is_low, b_.add(low, constant(1)), low),
          b_.select(is_low, b_.sub(rest, divisor_), rest)};
}

}  // namespace sagejit
