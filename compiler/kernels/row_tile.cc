#include "compiler/kernels/row_tile.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

RowTile::RowTile(Builder& b, const KernelArgs& args, const QuantizePlan& plan,
                 const TilePlace& place)
    : b_(b),
      args_(args),
      plan_(plan),
      lanes_(b, plan.padded_head_dim),
      place_(place),
      first_token_(b.mul(place.tile, constant(plan.tile_rows))),
      num_tokens_(args[names_of(plan).tokens]),
      in_row_(b.less(lanes_.first, constant(plan.head_dim))),
      pieces_(b) {}

Value RowTile::num_code_tokens() const {
  return plan_.core_matrices ? args_["padded_" + std::string(names_of(plan_).tokens)] : num_tokens_;
}

Value RowTile::batch_head() const {
  if (plan_.operand == "k") return place_.kv_batch_head;
  return b_.add(b_.mul(place_.batch, args_[names_of(plan_).heads]), place_.head);
}

Value RowTile::row(int pass) const {
  return b_.add(lanes_.row, constant(pass * lanes_.rows_per_pass));
}
Value RowTile::token(int pass) const {
  return b_.add(first_token_, row(pass));
}

Value RowTile::before(Value end, int pass) const {
  const Value exists = b_.less(token(pass), end);
  if ((pass + 1) * lanes_.rows_per_pass <= plan_.tile_rows) return exists;
  return b_.both(exists, b_.less(row(pass), constant(plan_.tile_rows)));
}

void RowTile::load() {
  const std::string tokens(names_of(plan_).tokens);
  const RowPlace first{place_.batch, place_.head, token(0)};
  Value address = b_.address(row_address(b_, args_, plan_.operand, tokens, first), lanes_.first,
                             bits_of(plan_.input) / 8);
  for (int pass = 0; pass < num_passes(); ++pass) {
    if (pass > 0) address = b_.add64(address, args_[plan_.operand + "_pass_stride"]);
    pieces_.load(address, b_.both(in_tensor(pass), in_row_));
  }
}

void RowTile::load_mean() {
  wait_for_statistics(b_, args_, place_.kv_batch_head);
  const Value row = b_.address(args_["k_mean"], place_.kv_batch_head, plan_.head_dim * 4);
  mean_ = load_f32s(b_, b_.address(row, lanes_.first, 4), in_row_);
}

std::vector<Value> RowTile::smoothed(int pass) const {
  std::vector<Value> x = elements(pass);
  for (int i = 0; plan_.subtract_mean && i < kLaneElements; ++i) x[i] = b_.fsub(x[i], mean_[i]);
  return x;
}

Value RowTile::rows_amax(int first_pass, int end_pass) const {
  Value amax = constant_f32(0);
  for (int pass = first_pass; pass < end_pass; ++pass) {
    amax = b_.fmax(amax, plan_.subtract_mean ? smoothed_amax(pass) : plain_amax(pass));
  }
  return reduce_row(b_, lanes_, amax, Op::kMaxF32);
}

// Of this thread's elements of a pass; 0 outside the tensor.
Value RowTile::plain_amax(int pass) const {
  Value largest;
  for (const Value pair : pieces_.pairs(pass)) {
    const Value magnitudes = pair_abs(b_, pair);
    largest = largest ? pair_max(b_, plan_.input, largest, magnitudes) : magnitudes;
  }
  const std::vector<Value> last = unpack(b_, plan_.input, {largest});
  return b_.fmax(last[0], last[1]);
}
Value RowTile::smoothed_amax(int pass) const {
  Value amax = constant_f32(0);
  for (const Value x : smoothed(pass)) amax = b_.fmax(amax, b_.emit1(Op::kAbsF32, {x}));
  return b_.select(in_tensor(pass), amax, constant_f32(0));
}

}  // namespace sagejit
