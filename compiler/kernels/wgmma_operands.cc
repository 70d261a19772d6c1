#include "compiler/kernels/wgmma_operands.h"

#include "compiler/layout/core_matrix.h"
#include "compiler/schedule/schedule.h"

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

}  // namespace sagejit
