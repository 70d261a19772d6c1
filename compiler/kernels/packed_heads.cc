#include "compiler/kernels/packed_heads.h"

namespace sagejit {

using ir::constant;
using ir::Op;
using ir::Value;

PackedHeads::PackedHeads(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args)
    : b_(b), args_(args), packs_(plan.packs_heads()) {}

Value PackedHeads::num_rows() const {
  return args_[packs_ ? "pack_rows" : "m"];
}

// floor(r / m) = floor((r + 1) R / 2^31) with R = floor((2^31 - 1) / m), for r m < 2^31: the error
// of (r + 1) R / 2^31 against (r + 1) / m is positive and at most (r + 1) / 2^31 <= 1 / m. Where
// heads are not packed, R is 0 and every row is of the first.
RowPlace PackedHeads::place_of(const QueryTile& tile, Value row) const {
  if (!packs_) return {tile.batch, tile.head, row};
  const Value twice_next = b_.add(b_.shl(row, 1), constant(2));
  const Value head = b_.emit1(Op::kMulHighU32, {twice_next, args_["token_reciprocal"]});
  return {tile.batch, b_.add(tile.head, head), b_.sub(row, b_.mul(head, args_["m"]))};
}

RowRange PackedHeads::tokens_of(Value first_row, int count) const {
  RowRange rows = existing_rows(b_, first_row, count, num_rows());
  if (!packs_) return rows;
  const Value is_packed = b_.not_equal(args_["token_reciprocal"], constant(0));
  rows.first = b_.select(is_packed, constant(0), rows.first);
  rows.last = b_.select(is_packed, b_.sub(args_["m"], constant(1)), rows.last);
  return rows;
}

}  // namespace sagejit
