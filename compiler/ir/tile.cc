#include "compiler/ir/tile.h"

#include "compiler/support/error.h"

namespace sagejit::ir {

Value chunk_offset(Builder& b, const TileLayout& layout, Value row, Value chunk) {
  if (layout.by_chunk) {
    return b.mul(b.add(b.mul(chunk, constant(layout.rows)), row), constant(kChunkBytes));
  }
  const Value pattern = b.bit_and(b.shr(row, layout.row_shift()), constant(layout.chunk_mask()));
  return b.add(b.mul(row, constant(layout.row_bytes())),
               b.shl(b.bit_xor(chunk, pattern), std::countr_zero(unsigned{kChunkBytes})));
}

TileLoader::TileLoader(Builder& b, const TileLayout& layout, int source_chunks,
                       Value row_stride_bytes)
    : b_(b), layout_(layout), row_stride_bytes_(row_stride_bytes) {
  const int threads = b.team_threads();
  const int total = layout.rows * layout.row_chunks;
  num_passes_ = (total + threads - 1) / threads;
  rows_per_pass_ = threads / layout.row_chunks;
  regular_ = threads % layout.row_chunks == 0 && rows_per_pass_ % kSwizzlePeriodRows == 0 &&
             total % threads == 0;
  for (int pass = 0; pass < (regular_ ? 1 : num_passes_); ++pass) {
    passes_.push_back(pass_at(pass * threads, source_chunks));
  }
  if (regular_) {
    pass_step_bytes_ = b.mul64(row_stride_bytes, b.zext(constant(rows_per_pass_)));
  }
}

TileLoader::Pass TileLoader::pass_at(int first_chunk, int source_chunks) const {
  const Value index = b_.add(b_.tid(), constant(first_chunk));
  const Value row = b_.div(index, constant(layout_.row_chunks));
  const Value chunk = b_.rem(index, constant(layout_.row_chunks));
  Pass pass;
  pass.row = row;
  pass.shared_offset = chunk_offset(b_, layout_, row, chunk);
  pass.global_offset = b_.add64(b_.mul64(b_.zext(row), row_stride_bytes_),
                                b_.zext(b_.mul(chunk, constant(kChunkBytes))));
  if (source_chunks < layout_.row_chunks) pass.has_source = b_.less(chunk, constant(source_chunks));
  const int left = layout_.rows * layout_.row_chunks - first_chunk;
  if (left < b_.team_threads()) pass.takes_part = b_.less(b_.tid(), constant(left));
  return pass;
}

void TileLoader::copy(const Pass& pass, Value tile, Value source, Value valid_rows) const {
  Value valid = b_.less(pass.row, valid_rows);
  if (pass.has_source) valid = b_.both(valid, pass.has_source);
  const Value bytes = b_.select(valid, constant(kChunkBytes), constant(0));
  b_.emit(Op::kCpAsync, {b_.add(tile, pass.shared_offset), constant(0),
                         b_.add64(source, pass.global_offset), constant(0), bytes});
}

void TileLoader::load_regular(Value tile, Value source, Value valid_rows) const {
  const Pass& pass = passes_[0];
  const Value shared = b_.add(tile, pass.shared_offset);
  const Value rows_left = b_.sub(valid_rows, pass.row);
  Value global = b_.add64(source, pass.global_offset);
  for (int i = 0; i < num_passes_; ++i) {
    Value valid = b_.greater(rows_left, constant(i * rows_per_pass_));
    if (pass.has_source) valid = b_.both(valid, pass.has_source);
    const Value bytes = b_.select(valid, constant(kChunkBytes), constant(0));
    const bool constant_stride = pass_step_bytes_.is_const();
    const int offset = constant_stride ? i * static_cast<int>(pass_step_bytes_.bits) : 0;
    b_.emit(Op::kCpAsync, {shared, constant(i * rows_per_pass_ * layout_.row_bytes()), global,
                           constant(offset), bytes});
    if (!constant_stride) global = b_.add64(global, pass_step_bytes_);
  }
}

void TileLoader::load(Value tile, Value source, Value valid_rows) const {
  if (regular_) return load_regular(tile, source, valid_rows);
  for (const Pass& pass : passes_) {
    if (pass.takes_part) {
      b_.when(pass.takes_part, [&] { copy(pass, tile, source, valid_rows); });
    } else {
      copy(pass, tile, source, valid_rows);
    }
  }
}

FragmentReader::FragmentReader(Builder& b, const TileLayout& layout, Order order, bool transposed)
    : b_(b), layout_(layout), transposed_(transposed) {
  const Value lane = b.lane();
  const Value low = b.bit_and(b.shr(lane, 3), constant(1)), high = b.shr(lane, 4);
  const bool rows_first = order == Order::kRowsFirst;
  const Value row = b.add(b.bit_and(lane, constant(7)), b.shl(rows_first ? low : high, 3));
  const Value chunk = rows_first ? high : low;
  num_patterns_ = std::max(1, (1 << layout.swizzle_bits()) / 2);
  offset_ = chunk_offset(b, layout, row, chunk);
}

// Rows are whole multiples of the swizzled bits, so a chunk's bits can be flipped in the finished
// address: one register is kept across tiles instead of one a pattern.
std::vector<Value> FragmentReader::at(Value tile) const {
  std::vector<Value> addresses = {b_.add(tile, offset_)};
  for (int i = 1; i < num_patterns_; ++i) {
    addresses.push_back(b_.bit_xor(addresses[0], constant(2 * i * kChunkBytes)));
  }
  return addresses;
}

std::vector<Value> FragmentReader::read(const std::vector<Value>& tile, int row, int chunk) const {
  if (row % kSwizzlePeriodRows || chunk % 2) {
    fail(ErrorKind::kInternal, "fragment read at row {} chunk {} breaks the swizzle", row, chunk);
  }
  const int pattern = chunk / 2 % num_patterns_;
  const int bytes = layout_.by_chunk
                        ? layout_.offset_bytes(row, chunk)
                        : row * layout_.row_bytes() + (chunk - 2 * pattern) * kChunkBytes;
  return b_.emit(transposed_ ? Op::kLdMatrixTrans : Op::kLdMatrix,
                 {tile[static_cast<size_t>(pattern)], constant(bytes)});
}

CopyRing::CopyRing(Builder& b, const std::string& name, int stages, int stage_bytes)
    : b_(b), stages_(stages), stage_bytes_(stage_bytes) {
  base_ = b.smem(name, stages * stage_bytes, 128);
  read_slot_ = b.var(base_);
  write_slot_ = b.var(base_);
}

Value CopyRing::advance(Value slot) const {
  const Value next = b_.add(slot, constant(stage_bytes_));
  const Value end = b_.add(base_, constant(stages_ * stage_bytes_));
  return b_.select(b_.equal(next, end), base_, next);
}

void CopyRing::fill(Value first, Value end, const Load& load) {
  for (int stage = 0; stage + 1 < stages_; ++stage) {
    const Value tile = b_.add(first, constant(stage));
    const Value slot = b_.get(write_slot_);
    b_.when(b_.less(tile, end), [&] { load(slot, tile); });
    b_.emit(Op::kCpAsyncCommit, {});
    b_.set(write_slot_, advance(slot));
  }
}

Value CopyRing::next(Value tile, Value end, const Load& load) {
  b_.emit(Op::kCpAsyncWait, {constant(stages_ - 2)});
  // One barrier publishes this tile's copies and, all threads being past the tile before it, frees
  // the stage that the next copies overwrite.
  b_.barrier();
  const Value ahead = b_.add(tile, constant(stages_ - 1));
  const Value write_slot = b_.get(write_slot_);
  b_.when(b_.less(ahead, end), [&] { load(write_slot, ahead); });
  b_.emit(Op::kCpAsyncCommit, {});
  b_.set(write_slot_, advance(write_slot));
  const Value read_slot = b_.get(read_slot_);
  b_.set(read_slot_, advance(read_slot));
  return read_slot;
}

}  // namespace sagejit::ir
