// Operands of the warpgroup's products: shared-memory descriptors of core_matrix.h's layouts, and P
// as the A operand in registers.
#pragma once

#include <array>
#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/scores.h"
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

struct PvProduct {
  ir::Op op;
  int keys;  // k of one instruction
};
PvProduct pv_product(const Variant& variant);

// P of keys [first_key, first_key + k) as an A operand: the thread's own elements, converted. 8-bit
// P relies on the permutation of V's tokens (core_matrix.h).
std::vector<ir::Value> p_fragment(ir::Builder& b, const Variant& variant, const Scores& p,
                                  int first_key);

}  // namespace sagejit
