#include "compiler/ir/bulk_ring.h"

namespace sagejit::ir {
namespace {

constexpr int kBarrierBytes = 8;
constexpr int kDataAlignment = 128;

}  // namespace

BulkRing::BulkRing(Builder& b, const std::string& name, int stages, int stage_bytes, int num_warps)
    : b_(b), stages_(stages), stage_bytes_(stage_bytes), num_warps_(num_warps) {
  data_ = b.smem(name, stages * stage_bytes, kDataAlignment);
  barriers_ = b.smem(name + "_barriers", 2 * stages * kBarrierBytes, kBarrierBytes);
}

Value BulkRing::full(Value stage) const {
  return b_.add(barriers_, b_.mul(stage, constant(kBarrierBytes)));
}
Value BulkRing::empty(Value stage) const {
  return b_.add(full(stage), constant(stages_ * kBarrierBytes));
}

BulkRing::Cursor BulkRing::cursor() const {
  return {b_.var(constant(0)), b_.var(constant(0))};
}

void BulkRing::initialize() const {
  for (int stage = 0; stage < stages_; ++stage) {
    b_.emit(Op::kMbarrierInit, {full(constant(stage)), constant(1)});
    b_.emit(Op::kMbarrierInit, {empty(constant(stage)), constant(num_warps_)});
  }
}

void BulkRing::fill(const Cursor& cursor, Value source, Value bytes) const {
  const Value stage = b_.get(cursor.stage);
  // The round before the first counts as released.
  b_.emit(Op::kMbarrierWait, {empty(stage), b_.bit_xor(b_.get(cursor.round), constant(1))});
  b_.emit(Op::kMbarrierExpect, {full(stage), bytes});
  b_.emit(Op::kBulkCopy, {address(cursor), source, bytes, full(stage)});
  advance(cursor);
}

void BulkRing::wait(const Cursor& cursor) const {
  b_.emit(Op::kMbarrierWait, {full(b_.get(cursor.stage)), b_.get(cursor.round)});
}

Value BulkRing::address(const Cursor& cursor) const {
  return b_.add(data_, b_.mul(b_.get(cursor.stage), constant(stage_bytes_)));
}

void BulkRing::release(const Cursor& cursor) const {
  const Value barrier = empty(b_.get(cursor.stage));
  b_.when(b_.equal(b_.lane(), constant(0)), [&] { b_.emit(Op::kMbarrierArrive, {barrier}); });
}

void BulkRing::advance(const Cursor& cursor, int step) const {
  const Value stage = b_.get(cursor.stage);
  const Value wraps = b_.emit1(Op::kGeS32, {stage, constant(stages_ - step)});
  b_.set(cursor.stage, b_.add(stage, b_.select(wraps, constant(step - stages_), constant(step))));
  b_.set(cursor.round,
         b_.bit_xor(b_.get(cursor.round), b_.select(wraps, constant(1), constant(0))));
}

}  // namespace sagejit::ir
