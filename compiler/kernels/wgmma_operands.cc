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

Op pv_product(const Variant& variant) {
  switch (variant.p.type) {
    case DType::kS8:
      return Op::kWgmmaS8;
    case DType::kU8:
      return Op::kWgmmaU8S8;
    case DType::kE4M3:
      return Op::kWgmmaE4M3F32;
    case DType::kF16:
      return variant.pv_accumulator.inner == DType::kF16 ? Op::kWgmmaF16F16 : Op::kWgmmaF16F32;
    case DType::kBF16:
      return Op::kWgmmaBF16F32;
    default:
      fail(ErrorKind::kInternal, "P has a type without a warpgroup product");
  }
}

}  // namespace sagejit
