#include "compiler/kernels/pv_operands.h"

#include <array>

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

// 1.5 * 2^23: a number below 2^22 that is added to it is rounded to an integer, to nearest even,
// which then is the low bits of the sum.
constexpr float kRounding = 0x1.8p23f;

// Byte i of the result is byte 0 of x[i].
Value low_bytes(ir::Builder& b, const std::array<Value, 4>& x) {
  constexpr int kLowBytes = 0x0040, kLowHalves = 0x5410;
  const Value low = b.emit1(Op::kPrmt, {x[0], x[1], constant(kLowBytes)});
  const Value high = b.emit1(Op::kPrmt, {x[2], x[3], constant(kLowBytes)});
  return b.emit1(Op::kPrmt, {low, high, constant(kLowHalves)});
}

// Four integers of P, the first lowest. P is within the range of its type: nothing saturates.
Value pack_integers(ir::Builder& b, const std::array<Value, 4>& p) {
  std::array<Value, 4> rounded;
  for (size_t i = 0; i < p.size(); ++i) {
    rounded[i] = b.emit1(Op::kBitsF32, {b.fadd(p[i], constant_f32(kRounding))});
  }
  return low_bytes(b, rounded);
}

// Four codes that the softmax wrote (online_softmax.h): the conversion to f16 leaves them in the
// low bytes of halves.
Value pack_direct_codes(ir::Builder& b, const std::array<Value, 4>& p) {
  constexpr int kLowBytesOfHalves = 0x6420;
  const Value low = b.emit1(Op::kPackReluF16, {p[0], p[1]});
  const Value high = b.emit1(Op::kPackReluF16, {p[2], p[3]});
  return b.emit1(Op::kPrmt, {low, high, constant(kLowBytesOfHalves)});
}

Value pack_codes(ir::Builder& b, const Variant& variant, const std::array<Value, 4>& p) {
  if (variant.p.direct_code) return pack_direct_codes(b, p);
  if (is_fp8(variant.p.type)) {
    return b.emit1(ir::fp8_pack(variant.p.type), {p[0], p[1], p[2], p[3]});
  }
  return pack_integers(b, p);
}

}  // namespace

std::vector<Value> p_fragment(ir::Builder& b, const Variant& variant, const Scores& p, int row_tile,
                              int first_key) {
  const int tile = first_key / kFragmentColumns;
  std::vector<Value> registers;
  if (bits_of(variant.p.type) == 8) {
    for (const int pair : {tile, tile + 2}) {
      const std::array<Value, 4> low = p.elements(b, row_tile, pair);
      const std::array<Value, 4> high = p.elements(b, row_tile, pair + 1);
      for (const int row : {0, 2}) {
        registers.push_back(
            pack_codes(b, variant, {low[row], low[row + 1], high[row], high[row + 1]}));
      }
    }
    return registers;
  }
  const Op pack = variant.p.type == DType::kBF16 ? Op::kPackBF16 : Op::kPackF16;
  for (const int t : {tile, tile + 1}) {
    const std::array<Value, 4> e = p.elements(b, row_tile, t);
    registers.push_back(b.emit1(pack, {e[0], e[1]}));
    registers.push_back(b.emit1(pack, {e[2], e[3]}));
  }
  return registers;
}

Value unbias(ir::Builder& b, Value sum) {
  return b.fsub(b.emit1(Op::kF32Bits, {sum}), constant_f32(kScoreBias));
}

}  // namespace sagejit
