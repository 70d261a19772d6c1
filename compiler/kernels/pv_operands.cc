#include "compiler/kernels/pv_operands.h"

#include <array>

#include "compiler/kernels/group_scales.h"
#include "compiler/layout/key_order.h"

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

// fp4 P of 64 keys of a 16-row tile, in two levels or one: the range is in P already (SageAttention
// 3, arXiv 2505.11594, two-level quantization). A thread has eight neighbouring keys of a row's
// first and last 32, half a group each; the next thread has the other half.
class GroupFragment {
 public:
  GroupFragment(ir::Builder& b, const Scores& p, int row_tile, int first_key) : b_(b) {
    for (int half = 0; half < 2; ++half) {
      for (int tile = 0; tile < kOrderedKeys / kFragmentColumns; ++tile) {
        const int key_tile = (first_key + half * kOrderedKeys) / kFragmentColumns + tile;
        const std::array<Value, 4> e = p.elements(b, row_tile, key_tile);
        for (int i = 0; i < 4; ++i) x_[half][i / 2].push_back(e[i]);
      }
    }
  }

  std::vector<Value> registers() const {
    std::vector<Value> amax;
    for (const auto& rows : x_) {
      for (const std::vector<Value>& x : rows) amax.push_back(group_max(x));
    }
    const Value scales = pack_group_scales(b_, amax, kLargestE2M1);  // [half][row]
    std::vector<Value> registers;
    for (int i = 0; i < 4; ++i) {
      // Half of an ulp more or less decides between codes that are equally far from P.
      const Value inverse = b_.emit1(Op::kRcpApprox, {group_divisor(b_, scales, i)});
      registers.push_back(pack_group_codes(b_, x_[i / 2][i % 2], inverse));
    }
    registers.push_back(scale_word(scales));
    return registers;
  }

 private:
  Value group_max(const std::vector<Value>& x) const {
    Value amax = x[0];
    for (size_t i = 1; i < x.size(); ++i) amax = b_.fmax(amax, x[i]);
    return b_.fmax(amax, b_.emit1(Op::kShflXorF32, {amax, constant(1)}));
  }

  // Of row 8 (t % 2) + lane / 4: the first pair of a quad has the groups 0 and 2, the second 1
  // and 3.
  Value scale_word(Value scales) const {
    constexpr int kEvenBytesInterleaved = 0x6240;
    const Value lane = b_.lane();
    const auto is_set = [&](int bit) {
      return b_.not_equal(b_.bit_and(lane, constant(bit)), constant(0));
    };
    const Value own = b_.select(is_set(1), b_.shr(scales, 8), scales);
    const Value other = b_.emit1(Op::kShflXorI32, {own, constant(2)});
    const Value first = b_.select(is_set(2), other, own), second = b_.select(is_set(2), own, other);
    return b_.emit1(Op::kPrmt, {first, second, constant(kEvenBytesInterleaved)});
  }

  ir::Builder& b_;
  std::vector<Value> x_[2][2];  // [half of the keys][row lane / 4 or that + 8]
};

}  // namespace

std::vector<Value> p_fragment(ir::Builder& b, const Variant& variant, const Scores& p, int row_tile,
                              int first_key) {
  if (variant.p.type == DType::kE2M1) return GroupFragment(b, p, row_tile, first_key).registers();
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
