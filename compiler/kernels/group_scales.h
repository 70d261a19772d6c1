// Groups of 16 elements in fp4 with an e4m3 scale each (NVFP4), of Q, K, V and P alike
// (specs/numerics.md, 3.4):
//
//   scale = e4m3(amax * f32(1 / largest))        largest: what the group's largest element is
//   scaled to, 6 or less code  = e2m1(x * (1 / max(scale, 2^-9)))     where the scale is 0 the code
//   does not count
#pragma once

#include <vector>

#include "compiler/ir/builder.h"

namespace sagejit {

inline constexpr float kLargestE2M1 = 6.0f;

// The e4m3 scales of up to four groups, the first in the lowest byte; none is NaN unless amax is.
ir::Value pack_group_scales(ir::Builder& b, const std::vector<ir::Value>& amax, float largest);

// What elements of the group in byte `index` are divided by: its scale as f32, at least 2^-9.
ir::Value group_divisor(ir::Builder& b, ir::Value scales, int index);

// A word of eight codes, the first lowest, of elements times `inverse`.
ir::Value pack_group_codes(ir::Builder& b, const std::vector<ir::Value>& x, ir::Value inverse);

// x, or 0 for a NaN, which e2m1 has no code for.
ir::Value without_nan(ir::Builder& b, ir::Value x);

}  // namespace sagejit
