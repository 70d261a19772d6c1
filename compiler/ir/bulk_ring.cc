#include "compiler/ir/bulk_ring.h"

namespace sagejit::ir {
namespace {

constexpr int kBarrierBytes = 8;
constexpr int kUnitBytes = 16;
constexpr int kDataAlignment = 128;
constexpr int kWordBytes = 4;
constexpr int kWordsAlignment = 16;

}  // namespace

RingCursor::RingCursor(Builder& b, int stages, Value first)
    : b_(b), stages_(stages), stage_(b.var(first)), round_(b.var(constant(0))) {}

Value RingCursor::stage() const {
  return b_.get(stage_);
}
Value RingCursor::round() const {
  return b_.get(round_);
}

void RingCursor::advance(int step) {
  const Value at = stage();
  const Value wraps = b_.emit1(Op::kGeS32, {at, constant(stages_ - step)});
  b_.set(stage_, b_.add(at, b_.select(wraps, constant(step - stages_), constant(step))));
  b_.set(round_, b_.bit_xor(round(), b_.select(wraps, constant(1), constant(0))));
}

BulkRing::BulkRing(Builder& b, const std::string& name, const Shape& shape) : b_(b), shape_(shape) {
  for (const Piece& piece : shape.pieces) {
    pieces_.push_back(b.smem(piece.name, shape.stages * piece.bytes(), kDataAlignment));
  }
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

void BulkRing::initialize() const {
  for (int stage = 0; stage < shape_.stages; ++stage) {
    b_.emit(Op::kMbarrierInit, {full(constant(stage)), constant(1)});
    b_.emit(Op::kMbarrierInit, {empty(constant(stage)), constant(shape_.num_warps)});
  }
}

void BulkRing::begin(const RingCursor& at) const {
  // The round before the first counts as released.
  b_.emit(Op::kMbarrierWait, {empty(at.stage()), b_.bit_xor(at.round(), constant(1))});
}

void BulkRing::for_each_part(const std::function<void(size_t, int, int)>& visit) const {
  size_t part = 0;
  for (size_t index = 0; index < shape_.pieces.size(); ++index) {
    for (int i = 0; i < shape_.pieces[index].num_parts; ++i) {
      visit(part++, static_cast<int>(index), i);
    }
  }
}

void BulkRing::fill(const RingCursor& at, const std::vector<Source>& sources) const {
  if (shape_.num_words) b_.emit(Op::kWarpSync, {});
  const Value barrier = full(at.stage());
  b_.when(b_.equal(b_.lane(), constant(0)), [&] {
    Value total = constant(0);
    for_each_part([&](size_t part, int index, int) {
      const Value bytes = constant(shape_.pieces[index].part_bytes);
      const Value condition = sources[part].condition;
      total = b_.add(total, condition ? b_.select(condition, bytes, constant(0)) : bytes);
    });
    b_.emit(Op::kMbarrierExpect, {barrier, total});
    for_each_part([&](size_t part, int index, int in_piece) {
      const int bytes = shape_.pieces[index].part_bytes;
      const auto copy = [&] {
        const Value to = b_.add(piece(at.stage(), index), constant(in_piece * bytes));
        b_.emit(Op::kBulkCopy, {to, sources[part].address, constant(bytes), barrier});
      };
      sources[part].condition ? b_.when(sources[part].condition, copy) : copy();
    });
  });
}

void BulkRing::publish(const RingCursor& at) const {
  b_.emit(Op::kWarpSync, {});
  const Value barrier = full(at.stage());
  b_.when(b_.equal(b_.lane(), constant(0)), [&] { b_.emit(Op::kMbarrierArrive, {barrier}); });
}

void BulkRing::wait(const RingCursor& at) const {
  b_.emit(Op::kMbarrierWait, {full(at.stage()), at.round()});
}

Value BulkRing::piece(Value stage, int index) const {
  return b_.add(pieces_[index], b_.mul(stage, constant(shape_.pieces[index].bytes())));
}

Value BulkRing::units(const RingCursor& at, int index) const {
  const int bytes = shape_.pieces[index].bytes();
  return b_.add(b_.shr(pieces_[index], 4), b_.mul(at.stage(), constant(bytes / kUnitBytes)));
}

Value BulkRing::words(const RingCursor& at) const {
  return b_.add(words_, b_.mul(at.stage(), constant(shape_.num_words * kWordBytes)));
}

void BulkRing::release(const RingCursor& at) const {
  if (shape_.num_words) b_.emit(Op::kWarpSync, {});  // all lanes have read their words
  const Value barrier = empty(at.stage());
  b_.when(b_.equal(b_.lane(), constant(0)), [&] { b_.emit(Op::kMbarrierArrive, {barrier}); });
}

}  // namespace sagejit::ir
