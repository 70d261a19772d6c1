// How far an output is from the truth, over the tensor and at its worst.
//
//   cosine = sum(x y) / (|x| |y|);  relative L1 = sum |x - y| / sum |y|;  RMSE = sqrt(mean (x -
//   y)^2)
// with y the reference. (Definitions of the SageAttention paper, section 4.3.) Global cosine hides
// bad heads and rows, hence the worst (batch, head) and the worst row. Where the reference is all
// zero, the cosine is 1 and the relative L1 0 if the output is zero as well, else 0 and infinity.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/reference/host_tensor.h"

namespace sagejit::reference {

struct Closeness {
  double cosine = 1, relative_l1 = 0, rmse = 0;
};

struct OutputMetrics {
  Closeness overall;
  Closeness worst_head;  // of the (batch, head) with the lowest cosine
  int64_t worst_b = 0, worst_h = 0;
  double worst_row_relative_l1 = 0;
  int64_t worst_row_b = 0, worst_row_h = 0, worst_row = 0;
  double max_abs_error = 0;
  int64_t num_non_finite = 0;  // NaNs and infinities of the output; they make the figures above NaN
};

// Both [b, h, m, dv] in that order. Throws Error{kArgument} if the sizes differ from the shape's.
OutputMetrics compare_output(const Shape4& shape, const std::vector<double>& actual,
                             const std::vector<double>& expected);

// Largest absolute difference; equal infinities differ by 0, anything else not finite by infinity.
double max_lse_error(const std::vector<double>& actual, const std::vector<double>& expected);

}  // namespace sagejit::reference
