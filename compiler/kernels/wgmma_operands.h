// Operands of the warpgroup's products: shared-memory descriptors of core_matrix.h's layouts. P, in
// registers, is as for mma.sync (pv_operands.h).
#pragma once

#include "compiler/ir/builder.h"
#include "compiler/sema/variant.h"

namespace sagejit {

// Descriptor (PTX ISA, "Matrix Descriptor Format") of a tile at shared-memory address 16 `units`,
// no swizzle: Q, K with k along the rows' bytes.
ir::Value token_rows_descriptor(ir::Builder& b, ir::Value units, int row_bytes);
// V as the B operand of P V: 8-bit V with k along the channels' bytes, 16-bit V with k along the
// rows.
ir::Value value_descriptor(ir::Builder& b, const Variant& variant, ir::Value units);
// Two core matrices that are alike: 8 columns, k in either order.
ir::Value ones_descriptor(ir::Builder& b, ir::Value units);
// The descriptor of what lies `bytes` (a multiple of 16) further.
ir::Value moved(ir::Builder& b, ir::Value descriptor, int bytes);

}  // namespace sagejit
