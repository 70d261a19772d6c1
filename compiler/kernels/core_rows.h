// Addresses in operands that lie as core matrices (core_matrix.h).
#pragma once

#include "compiler/ir/builder.h"

namespace sagejit {

// Of byte `byte` (i32) of row `token` (i32) of a head laid out as kTokenRows, whose first byte is
// at `head` (i64).
ir::Value token_rows_address(ir::Builder& b, ir::Value head, ir::Value token, ir::Value byte,
                             int row_bytes);

}  // namespace sagejit
