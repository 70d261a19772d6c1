#include "compiler/kernels/prepare.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;
using ir::Var;

RowLanes::RowLanes(Builder& b, int row_elements)
    : lanes_per_row(lanes_of_row(row_elements)),
      rows_per_pass(b.team_threads() / lanes_per_row),
      pass_rows(sagejit::pass_rows(row_elements)),
      number(b.div(b.tid(), constant(lanes_per_row))),
      lane(b.rem(b.tid(), constant(lanes_per_row))),
      first(b.mul(lane, constant(kLaneElements))) {}

Value RowLanes::first_row(Builder& b, int passes) const {
  const Value band = b.div(number, constant(pass_rows));
  return b.add(b.mul(band, constant(pass_rows * passes)), b.rem(number, constant(pass_rows)));
}

Value RowLanes::within(Builder& b, int elements) const {
  if (lanes_per_row * kLaneElements == elements) return {};
  return b.less(first, constant(elements));
}

std::vector<Value> load_pairs(Builder& b, Value address, Value valid, Value otherwise) {
  if (!valid) return b.emit(Op::kLdGlobalV4, {address, constant(0)});
  const Value condition = b.select(valid, constant(1), constant(0));
  return b.emit(Op::kLdGlobalV4If,
                {address, constant(0), condition, otherwise ? otherwise : constant(0)});
}

Pieces::Pieces(Builder& b, int count) : b_(b), words_(static_cast<size_t>(count)) {
  for (std::vector<Var>& words : words_) {
    for (int i = 0; i < kLaneElements / 2; ++i) words.push_back(b.var(constant(0)));
  }
}

void Pieces::load(int piece, Value address, Value valid, Value otherwise) const {
  const std::vector<Value> pairs = load_pairs(b_, address, valid, otherwise);
  for (size_t i = 0; i < pairs.size(); ++i) b_.set(words_[piece][i], pairs[i]);
}

std::vector<Value> Pieces::pairs(int piece) const {
  std::vector<Value> pairs;
  for (const Var& word : words_[piece]) pairs.push_back(b_.get(word));
  return pairs;
}

void Pieces::forget() const {
  for (const std::vector<Var>& words : words_) b_.tie(words);
}

Value pack_integers(Builder& b, int bits, const std::vector<Value>& x) {
  std::vector<Value> codes;
  for (const Value one : x) codes.push_back(b.emit1(Op::kS32FromF32, {one}));
  // A pack puts its two codes in front of what the third operand has in its lower bits.
  Value word = constant(0);
  for (size_t i = codes.size(); i > 0; i -= 2) {
    word = b.emit1(bits == 4 ? Op::kPackS4 : Op::kPackS8, {codes[i - 1], codes[i - 2], word});
  }
  return word;
}

Value pack_floats(Builder& b, DType type, const std::vector<Value>& x) {
  return b.emit1(ir::fp8_pack(type), {x[0], x[1], x[2], x[3]});
}

Value nan_flags(Builder& b, Value word) {
  return b.add(b.bit_and(word, constant(~kByteSigns)), constant(0x01010101));
}

Value without_nans(Builder& b, Value word) {
  const Value ones = b.shr(b.bit_and(nan_flags(b, word), constant(kByteSigns)), 7);
  const Value kept = b.bit_xor(b.mul(ones, constant(0xff)), constant(-1));
  return b.bit_and(word, kept);
}

Value pair_max(Builder& b, DType type, Value x, Value y) {
  return b.emit1(type == DType::kF16 ? Op::kMaxF16x2 : Op::kMaxBF16x2, {x, y});
}
Value pair_min(Builder& b, DType type, Value x, Value y) {
  return b.emit1(type == DType::kF16 ? Op::kMinF16x2 : Op::kMinBF16x2, {x, y});
}
Value pair_abs(Builder& b, Value x) {
  return b.bit_and(x, constant(0x7fff7fff));
}

std::vector<Value> unpack(Builder& b, DType type, const std::vector<Value>& pairs) {
  std::vector<Value> elements;
  for (const Value packed : pairs) {
    if (type == DType::kF16) {
      for (const Value element : b.emit(Op::kUnpackF16, {packed})) elements.push_back(element);
    } else {  // a bf16 is the upper half of an f32
      elements.push_back(b.emit1(Op::kF32Bits, {b.shl(packed, 16)}));
      elements.push_back(
          b.emit1(Op::kF32Bits, {b.bit_and(packed, constant(static_cast<int32_t>(0xFFFF0000u)))}));
    }
  }
  return elements;
}

void call(const std::function<void()>& work) {
  if (work) work();
}

Value both_if_set(Builder& b, Value x, Value y) {
  if (!x || !y) return x ? x : y;
  return b.both(x, y);
}

Value tid_again(Builder& b) {
  return b.bit_and(b.emit1(Op::kTidAgain, {}), constant(b.team_threads() - 1));
}

Value head_counters(Builder& b, const KernelArgs& args, Value batch_head) {
  return b.address(args["prepare_counters"], batch_head, kHeadCounters * 4);
}

namespace {

void wait_until(Builder& b, Value counters, int word, Value expected) {
  const Var missing = b.var(constant(1));
  b.loop_while(missing, [&] {
    const Value done = b.emit1(Op::kLdAcquireGlobalI32, {counters, constant(word * 4)});
    b.set(missing, b.sub(expected, done));
  });
}

}  // namespace

void wait_for_statistics(Builder& b, const KernelArgs& args, Value batch_head) {
  if (!args.has("prepare_counters")) return;
  wait_until(b, head_counters(b, args, batch_head), kStatisticsDone,
             b.add(args["head_statistics"], constant(1)));
}

void wait_for_tiles(Builder& b, const KernelArgs& args, Value batch_head) {
  wait_until(b, head_counters(b, args, batch_head), kTilesDone, args["head_tiles"]);
}

std::vector<Value> load_f32s(Builder& b, Value address, Value valid) {
  std::vector<Value> values;
  for (const int offset : {0, 16}) {
    const std::vector<Value> words =
        valid ? b.emit(Op::kLdGlobalV4If, {address, constant(offset),
                                           b.select(valid, constant(1), constant(0)), constant(0)})
              : b.emit(Op::kLdGlobalV4, {address, constant(offset)});
    for (const Value word : words) values.push_back(b.emit1(Op::kF32Bits, {word}));
  }
  return values;
}

Value reduce_rows(Builder& b, const RowLanes& lanes, int rows, Value value, Op op) {
  for (int distance = rows * lanes.lanes_per_row / 2; distance > 0; distance /= 2) {
    const Value other = b.emit1(Op::kShflXorF32, {value, constant(distance)});
    value = b.emit1(op, {value, other});
  }
  return value;
}

}  // namespace sagejit
