#include "compiler/ir/bulk_ring.h"

namespace sagejit::ir {
namespace {

constexpr int kBarrierBytes = 8;
constexpr int kDataAlignment = 128;
constexpr int kWordBytes = 4;
constexpr int kWordsAlignment = 16;

}  // namespace

BulkRing::BulkRing(Builder& b, const std::string& name, const Shape& shape) : b_(b), shape_(shape) {
  data_ = b.smem(name, shape.stages * shape.data_bytes, kDataAlignment);
  if (shape.num_words) {
    words_ = b.smem(name + "_words", shape.stages * shape.num_words * kWordBytes, kWordsAlignment);
  }
  barriers_ = b.smem(name + "_barriers", 2 * shape.stages * kBarrierBytes, kBarrierBytes);
}

Value BulkRing::full(Value stage) const {
  return b_.add(barriers_, b_.mul(stage, constant(kBarrierBytes)));
}
Value BulkRing::empty(Value stage) const {
  return b_.add(full(stage), constant(shape_.stages * kBarrierBytes));
}

BulkRing::Cursor BulkRing::cursor() const {
  return {b_.var(constant(0)), b_.var(constant(0))};
}

void BulkRing::initialize() const {
  for (int stage = 0; stage < shape_.stages; ++stage) {
    b_.emit(Op::kMbarrierInit, {full(constant(stage)), constant(1)});
    b_.emit(Op::kMbarrierInit, {empty(constant(stage)), constant(shape_.num_warps)});
  }
}

void BulkRing::begin(const Cursor& cursor) const {
  // The round before the first counts as released.
  const Value round = b_.bit_xor(b_.get(cursor.round), constant(1));
  b_.emit(Op::kMbarrierWait, {empty(b_.get(cursor.stage)), round});
}

void BulkRing::fill(const Cursor& cursor, Value source) const {
  if (shape_.num_words) b_.emit(Op::kWarpSync, {});
  const Value barrier = full(b_.get(cursor.stage)), bytes = constant(shape_.data_bytes);
  b_.when(b_.equal(b_.lane(), constant(0)), [&] {
    b_.emit(Op::kMbarrierExpect, {barrier, bytes});
    b_.emit(Op::kBulkCopy, {address(cursor), source, bytes, barrier});
  });
  advance(cursor);
}

void BulkRing::publish(const Cursor& cursor) const {
  b_.emit(Op::kWarpSync, {});
  const Value barrier = full(b_.get(cursor.stage));
  b_.when(b_.equal(b_.lane(), constant(0)), [&] { b_.emit(Op::kMbarrierArrive, {barrier}); });
  advance(cursor);
}

void BulkRing::wait(const Cursor& cursor) const {
  b_.emit(Op::kMbarrierWait, {full(b_.get(cursor.stage)), b_.get(cursor.round)});
}

Value BulkRing::address(const Cursor& cursor) const {
  return b_.add(data_, b_.mul(b_.get(cursor.stage), constant(shape_.data_bytes)));
}
Value BulkRing::words(const Cursor& cursor) const {
  return b_.add(words_, b_.mul(b_.get(cursor.stage), constant(shape_.num_words * kWordBytes)));
}

void BulkRing::release(const Cursor& cursor) const {
  if (shape_.num_words) b_.emit(Op::kWarpSync, {});  // all lanes have read their words
  const Value barrier = empty(b_.get(cursor.stage));
  b_.when(b_.equal(b_.lane(), constant(0)), [&] { b_.emit(Op::kMbarrierArrive, {barrier}); });
}

void BulkRing::advance(const Cursor& cursor, int step) const {
  const Value stage = b_.get(cursor.stage);
  const Value wraps = b_.emit1(Op::kGeS32, {stage, constant(shape_.stages - step)});
  b_.set(cursor.stage,
         b_.add(stage, b_.select(wraps, constant(step - shape_.stages), constant(step))));
  b_.set(cursor.round,
         b_.bit_xor(b_.get(cursor.round), b_.select(wraps, constant(1), constant(0))));
}

}  // namespace sagejit::ir
