#include "compiler/kernels/row_tile.h"

#include <cmath>

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
      first_row_(lanes_.first_row(b, num_passes())),
      in_row_(lanes_.within(b, plan.head_dim)),
      pieces_(b, num_passes()) {}

RowTile::CodePlace RowTile::code_place() const {
  const Value padded = plan_.token_multiple > 1
                           ? args_["padded_" + std::string(names_of(plan_).tokens)]
                           : num_tokens_;
  const auto first_of = [&](Value pack) { return b_.mul64(b_.zext(pack), b_.zext(padded)); };
  if (plan_.packed_heads.empty()) return {first_of(batch_head()), constant(0), padded};
  const Value packed = args_["packed_heads"], alone = b_.equal(packed, constant(1));
  const Value in_group = b_.sub(batch_head(), b_.mul(place_.kv_batch_head, args_["group_heads"]));
  const Value in_pack = b_.select(alone, constant(0), in_group);
  const Value pack = b_.select(alone, batch_head(), place_.kv_batch_head);
  const Value first = b_.mul(in_pack, num_tokens_);
  const Value is_last = b_.equal(in_pack, b_.sub(packed, constant(1)));
  return {first_of(pack), first, b_.select(is_last, b_.sub(padded, first), num_tokens_)};
}

Value RowTile::batch_head() const {
  if (plan_.operand == "k") return place_.kv_batch_head;
  return b_.add(b_.mul(place_.batch, args_[names_of(plan_).heads]), place_.head);
}

Value RowTile::row(int pass) const {
  return b_.add(first_row_, constant(pass * lanes_.pass_rows));
}
Value RowTile::token(int pass) const {
  return b_.add(first_token_, row(pass));
}

Value RowTile::before(Value end, int pass) const {
  const Value exists = b_.greater(b_.sub(end, token(0)), constant(pass * lanes_.pass_rows));
  if (passes_fill_tile()) return exists;
  return b_.both(exists, b_.less(row(pass), constant(plan_.tile_rows)));
}

// Most tiles lie within the tensor: theirs are loaded with no look at the rows. In a block of their
// own, loads are not held back by assemblers for work on the first of them.
void RowTile::load() const {
  if (!passes_fill_tile()) return load_passes(false);
  const Value end = b_.add(first_token_, constant(plan_.tile_rows));
  b_.when_uniform(
      b_.less_equal(end, num_tokens_), [&] { load_passes(true); }, [&] { load_passes(false); });
}

void RowTile::load_passes(bool all_exist) const {
  const std::string tokens(names_of(plan_).tokens);
  const RowPlace first{place_.batch, place_.head, token(0)};
  Value address = b_.address(row_address(b_, args_, plan_.operand, tokens, first), lanes_.first,
                             bits_of(plan_.input) / 8);
  const Value nan = constant(kNanPair);
  const Value otherwise = in_row_ ? b_.select(in_row_, nan, constant(0)) : nan;
  for (int pass = 0; pass < num_passes(); ++pass) {
    if (pass > 0) address = b_.add64(address, args_[plan_.operand + "_pass_stride"]);
    const Value valid = all_exist ? in_row_ : both_if_set(b_, in_tensor(pass), in_row_);
    pieces_.load(pass, address, valid, otherwise);
  }
}

void RowTile::wait_for_means() const {
  wait_for_statistics(b_, args_, place_.kv_batch_head);
  if (plan_.subtract_mean) mean(0);
}

std::vector<Value> RowTile::load_key_mean() const {
  const Value row = b_.address(args_["k_mean"], place_.kv_batch_head, plan_.head_dim * 4);
  return load_f32s(b_, b_.address(row, lanes_.first, 4), in_row_);
}

// Passes of the same number share their mean in every thread: its rows lie in a run of the tile
// that is a multiple or a part of a mean's, or for all that is known each in another block.
int RowTile::block_of(int pass) const {
  if (plan_.mean_span == 0 || plan_.mean_span % plan_.tile_rows == 0) return 0;
  const int run = num_passes() * lanes_.pass_rows;
  const bool begins_with_block = plan_.tile_rows % plan_.mean_span == 0;
  if (begins_with_block && plan_.mean_span % run == 0) return 0;
  const bool is_aligned =
      begins_with_block && run % plan_.mean_span == 0 && plan_.mean_span % lanes_.pass_rows == 0;
  return is_aligned ? pass * lanes_.pass_rows / plan_.mean_span : pass;
}

const std::vector<Value>& RowTile::mean(int pass) const {
  if (mean_block_ == block_of(pass)) return mean_;
  mean_block_ = block_of(pass);
  if (plan_.operand == "k") return mean_ = load_key_mean();
  const Value num_blocks = args_["q_blocks"];
  const Value block =
      b_.min(b_.div(token(pass), constant(plan_.mean_span)), b_.sub(num_blocks, constant(1)));
  const Value index =
      b_.add64(b_.mul64(b_.zext(batch_head()), b_.zext(num_blocks)), b_.zext(block));
  const Value row =
      b_.add64(args_["q_mean"], b_.mul64(index, b_.zext(constant(plan_.head_dim * 4))));
  return mean_ = load_f32s(b_, b_.address(row, lanes_.first, 4), in_row_);
}

std::vector<Value> RowTile::operand(int pass) const {
  std::vector<Value> x = elements(pass);
  if (plan_.subtract_mean) {
    const std::vector<Value>& subtracted = mean(pass);
    for (int i = 0; i < kLaneElements; ++i) x[i] = b_.fsub(x[i], subtracted[i]);
  }
  if (plan_.rotates) rotate(x);
  return x;
}

// The fast Walsh-Hadamard transform of a row: strides below 8 within a thread, the others between
// the lanes of the row.
void RowTile::rotate(std::vector<Value>& x) const {
  for (int stride = 1; stride < kLaneElements; stride *= 2) {
    for (int i = 0; i < kLaneElements; ++i) {
      if (i & stride) continue;
      const Value first = x[i], second = x[i + stride];
      x[i] = b_.fadd(first, second);
      x[i + stride] = b_.fsub(first, second);
    }
  }
  for (int distance = 1; distance < plan_.head_dim / kLaneElements; distance *= 2) {
    const Value is_second =
        b_.emit1(Op::kNeI32, {b_.bit_and(lanes_.lane, constant(distance)), constant(0)});
    const Value sign = b_.select(is_second, constant_f32(-1), constant_f32(1));
    for (Value& own : x) {
      const Value other = b_.emit1(Op::kShflXorF32, {own, constant(distance)});
      own = b_.fma(own, sign, other);  // one rounding: of the sum, or of the difference
    }
  }
  const Value norm = constant_f32(static_cast<float>(1 / std::sqrt(plan_.head_dim)));
  for (Value& element : x) element = b_.fmul(element, norm);
}

Value RowTile::rows_amax(int first_pass, int end_pass, int rows) const {
  Value amax = constant_f32(0);
  if (plan_.rotates) {
    for (int pass = first_pass; pass < end_pass; ++pass) amax = b_.fmax(amax, rotated_amax(pass));
  } else {
    amax = b_.fmax(amax, plan_.subtract_mean ? centred_amax(first_pass, end_pass)
                                             : plain_amax(first_pass, end_pass));
  }
  return reduce_rows(b_, lanes_, rows, amax, Op::kMaxF32);
}

// Of this thread's elements; NaN if there is nothing else. Extremes take fewer operations than
// magnitudes.
Value RowTile::plain_amax(int first_pass, int end_pass) const {
  Value highest, lowest;
  for (int pass = first_pass; pass < end_pass; ++pass) {
    for (const Value pair : pieces_.pairs(pass)) {
      highest = highest ? pair_max(b_, plan_.input, highest, pair) : pair;
      lowest = lowest ? pair_min(b_, plan_.input, lowest, pair) : pair;
    }
  }
  Value amax;
  for (const Value x : unpack(b_, plan_.input, {highest, lowest})) {
    const Value magnitude = b_.emit1(Op::kAbsF32, {x});
    amax = amax ? b_.fmax(amax, magnitude) : magnitude;
  }
  return amax;
}

// As rounding is monotone, the largest |x - mean| of a channel is that of its highest or its lowest
// element, which pairs find.
Value RowTile::centred_amax(int first_pass, int end_pass) const {
  Value amax;
  for (int first = first_pass, end; first < end_pass; first = end) {
    std::vector<Value> highest = pieces_.pairs(first), lowest = highest;
    for (end = first + 1; end < end_pass && block_of(end) == block_of(first); ++end) {
      const std::vector<Value> pairs = pieces_.pairs(end);
      for (size_t i = 0; i < pairs.size(); ++i) {
        highest[i] = pair_max(b_, plan_.input, highest[i], pairs[i]);
        lowest[i] = pair_min(b_, plan_.input, lowest[i], pairs[i]);
      }
    }
    const std::vector<Value>& subtracted = mean(first);
    std::vector<std::vector<Value>> both = {highest};
    if (end > first + 1) both.push_back(lowest);
    for (const std::vector<Value>& extremes : both) {
      const std::vector<Value> x = unpack(b_, plan_.input, extremes);
      for (int i = 0; i < kLaneElements; ++i) {
        const Value magnitude = b_.emit1(Op::kAbsF32, {b_.fsub(x[i], subtracted[i])});
        amax = amax ? b_.fmax(amax, magnitude) : magnitude;
      }
    }
  }
  return amax;
}

Value RowTile::rotated_amax(int pass) const {
  Value amax = constant_f32(0);
  for (const Value x : operand(pass)) amax = b_.fmax(amax, b_.emit1(Op::kAbsF32, {x}));
  return amax;
}

}  // namespace sagejit
