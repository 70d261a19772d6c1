#include "compiler/kernels/core_rows.h"

#include "compiler/layout/core_matrix.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::Value;

Value token_rows_address(Builder& b, Value head, Value token, Value byte, int row_bytes) {
  const Value band = b.div(token, constant(kCoreRows));  // of 8 tokens
  const Value in_core = b.add(b.mul(b.rem(token, constant(kCoreRows)), constant(kCoreRowBytes)),
                              b.rem(byte, constant(kCoreRowBytes)));
  const Value core = b.mul(b.div(byte, constant(kCoreRowBytes)), constant(kCoreBytes));
  return b.address(b.address(head, band, kCoreRows * row_bytes), b.add(core, in_core), 1);
}

}  // namespace sagejit
