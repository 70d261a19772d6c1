// Division of small numbers by a number that is known when a kernel is launched: two
// multiplications, where a division takes some thirty instructions one after the other.
#pragma once

#include <string_view>

#include "compiler/ir/builder.h"
#include "compiler/kernels/kernel_args.h"

namespace sagejit {

class Divisor {
 public:
  // reciprocal: floor(kReciprocalOf / divisor), which the launch brings. i32, both; a divisor of 0
  // gives anything.
  Divisor(ir::Builder& b, ir::Value divisor, ir::Value reciprocal)
      : b_(b), divisor_(divisor), reciprocal_(reciprocal) {}
  // Parameters NAME and NAME_reciprocal.
  Divisor(ir::Builder& b, const KernelArgs& args, std::string_view name);

  struct Result {
    ir::Value quotient, remainder;
  };
  // x: i32 in [0, 2^30).
  Result divide(ir::Value x) const;

  ir::Value value() const { return divisor_; }
  ir::Value reciprocal() const { return reciprocal_; }

 private:
  ir::Builder& b_;
  ir::Value divisor_, reciprocal_;
};

}  // namespace sagejit
