#include "compiler/kernels/wgmma_operands.h"

#include "compiler/layout/core_matrix.h"
#include "compiler/schedule/schedule.h"
#include "compiler/support/error.h"

namespace sagejit {

using ir::constant;
using ir::Op;
using ir::Value;

namespace {

constexpr int kUnitBytes = 16;  // in which a descriptor counts

// leading: bytes between core matrices that follow each other along k; stride: along m or n. The
// low word holds the address and the leading distance, the high word the stride.
Value descriptor(ir::Builder& b, Value units, int leading_bytes, int stride_bytes) {
  const Value low = b.add(units, constant(leading_bytes / kUnitBytes << 16));
  const Value high{Value::Kind::kConst, ir::Type::kI64,
                   static_cast<uint64_t>(stride_bytes / kUnitBytes) << 32};
  return b.add64(b.zext(low), high);
}

}  // namespace

Value token_rows_descriptor(ir::Builder& b, Value units, int row_bytes) {
  return descriptor(b, units, kCoreBytes, kCoreRows * row_bytes);
}

Value value_descriptor(ir::Builder& b, const Variant& variant, Value units) {
  const int columns = padded_value_head_dim(variant);
  if (bits_of(variant.v.type) == 8)
    return descriptor(b, units, kCoreRowBytes * columns, kCoreBytes);
  return descriptor(b, units, kCoreRows * columns * 2, kCoreBytes);
}

Value moved(ir::Builder& b, Value descriptor, int bytes) {
  return b.add64(descriptor, b.zext(constant(bytes / kUnitBytes)));
}

Value ones_descriptor(ir::Builder& b, Value units) {
  return descriptor(b, units, kCoreBytes, kCoreBytes);
}

PvProduct pv_product(const Variant& variant) {
  switch (variant.p.type) {
    case DType::kE4M3:
      return {Op::kWgmmaE4M3F32, 32};
    case DType::kF16:
      return {variant.pv_accumulator.inner == DType::kF16 ? Op::kWgmmaF16F16 : Op::kWgmmaF16F32,
              16};
    case DType::kBF16:
      return {Op::kWgmmaBF16F32, 16};
    default:
      fail(ErrorKind::kInternal, "P has a type without a warpgroup product");
  }
}

namespace {

// Four codes of P, the first lowest: rounded here, or what the softmax made of them
// (online_softmax.h), which the conversion to f16 leaves in the low bytes of halves.
Value pack_codes(ir::Builder& b, const Variant& variant, const std::array<Value, 4>& p) {
  if (!variant.p.direct_code) return b.emit1(Op::kPackE4M3, {p[0], p[1], p[2], p[3]});
  constexpr int kLowBytesOfHalves = 0x6420;
  const Value low = b.emit1(Op::kPackReluF16, {p[0], p[1]});
  const Value high = b.emit1(Op::kPackReluF16, {p[2], p[3]});
  return b.emit1(Op::kPrmt, {low, high, constant(kLowBytesOfHalves)});
}

}  // namespace

std::vector<Value> p_fragment(ir::Builder& b, const Variant& variant, const Scores& p,
                              int first_key) {
  const int tile = first_key / kFragmentColumns;
  std::vector<Value> registers;
  if (variant.p.type == DType::kE4M3) {
    for (const int pair : {tile, tile + 2}) {
      const std::array<Value, 4> low = p.elements(b, 0, pair), high = p.elements(b, 0, pair + 1);
      for (const int row : {0, 2}) {
        registers.push_back(
            pack_codes(b, variant, {low[row], low[row + 1], high[row], high[row + 1]}));
      }
    }
    return registers;
  }
  const Op pack = variant.p.type == DType::kBF16 ? Op::kPackBF16 : Op::kPackF16;
  for (const int t : {tile, tile + 1}) {
    const std::array<Value, 4> e = p.elements(b, 0, t);
    registers.push_back(b.emit1(pack, {e[0], e[1]}));
    registers.push_back(b.emit1(pack, {e[2], e[3]}));
  }
  return registers;
}

}  // namespace sagejit
