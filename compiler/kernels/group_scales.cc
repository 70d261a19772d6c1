#include "compiler/kernels/group_scales.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

Value pack_group_scales(Builder& b, const std::vector<Value>& amax, float largest) {
  std::vector<Value> scales(4, constant_f32(0));
  for (size_t i = 0; i < amax.size(); ++i) {
    scales[i] = b.fmul(amax[i], constant_f32(1 / largest));
  }
  return b.emit1(Op::kPackE4M3, {scales[0], scales[1], scales[2], scales[3]});
}

// e4m3's four bits of exponent and three of mantissa, where f32 has the lowest of its exponent and
// the highest of its mantissa, are the number times 2^(7 - 127): subnormal ones, too.
Value group_divisor(Builder& b, Value scales, int index) {
  constexpr int kShift = 23 - 3, kBits = 0x7f << kShift;
  constexpr float kBiases = 0x1p120f, kLeast = 0x1p-9f;
  const int left = kShift - 8 * index;
  const Value moved = left >= 0 ? b.shl(scales, left) : b.shr(scales, -left);
  const Value small = b.emit1(Op::kF32Bits, {b.bit_and(moved, constant(kBits))});
  return b.fmax(b.fmul(small, constant_f32(kBiases)), constant_f32(kLeast));
}

Value pack_group_codes(Builder& b, const std::vector<Value>& x, Value inverse) {
  std::vector<Value> scaled;
  for (const Value one : x) scaled.push_back(b.fmul(one, inverse));
  return b.emit(Op::kPackE2M1, scaled)[0];
}

Value without_nan(Builder& b, Value x) {
  return b.select(b.emit1(Op::kEqF32, {x, x}), x, constant_f32(0));
}

}  // namespace sagejit
