#include "compiler/kernels/prepare.h"

#include <bit>

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;
using ir::Var;

RowLanes::RowLanes(Builder& b, int row_elements)
    : lanes_per_row(static_cast<int>(std::bit_ceil(
          static_cast<unsigned>((row_elements + kLaneElements - 1) / kLaneElements)))),
      rows_per_pass(b.block_threads() / lanes_per_row),
      row(b.div(b.tid(), constant(lanes_per_row))),
      lane(b.rem(b.tid(), constant(lanes_per_row))),
      first(b.mul(lane, constant(kLaneElements))) {}

std::vector<Var> load_words(Builder& b, Value address, Value valid) {
  std::vector<Var> words;
  for (int i = 0; i < kLaneElements / 2; ++i) words.push_back(b.var(constant(0)));
  b.when(valid, [&] {
    const std::vector<Value> loaded = b.emit(Op::kLdGlobalV4, {address, constant(0)});
    for (size_t i = 0; i < words.size(); ++i) b.set(words[i], loaded[i]);
  });
  return words;
}

std::vector<Value> load_pairs(Builder& b, Value address, Value valid) {
  std::vector<Value> pairs;
  for (const Var& word : load_words(b, address, valid)) pairs.push_back(b.get(word));
  return pairs;
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

void wait_for_statistics(Builder& b, const KernelArgs& args, Value batch_head) {
  if (!args.has("prepare_counters")) return;
  const Value counter = b.address(args["prepare_counters"], batch_head, 4);
  const Var missing = b.var(constant(1));
  b.loop_while(missing, [&] {
    const Value done = b.emit1(Op::kLdAcquireGlobalI32, {counter, constant(kStatisticsDone * 4)});
    b.set(missing, b.sub(args["head_statistics"], done));
  });
}

Value fold_chunks(Builder& b, const KernelArgs& args, const std::string& partial, int channels,
                  const ChunkPlace& place, Op op, float neutral) {
  constexpr int kInFlight = 8;
  const Value num_chunks = args["num_chunks"];
  const Value row_bytes = b.zext(constant(channels * 4));
  const Value first_row = b.mul64(b.zext(place.batch_head), b.zext(num_chunks));
  const Value base =
      b.address(b.add64(args[partial], b.mul64(first_row, row_bytes)), place.channel, 4);
  const Var total = b.var(constant_f32(neutral));
  b.loop(constant(0), num_chunks, constant(kInFlight), [&](Value first) {
    // A chunk that does not exist is neutral.
    std::vector<Var> loaded;
    for (int i = 0; i < kInFlight; ++i) {
      const Value chunk = b.add(first, constant(i));
      loaded.push_back(b.var(constant_f32(neutral)));
      b.when(b.less(chunk, num_chunks), [&] {
        const Value address = b.add64(base, b.mul64(b.zext(chunk), row_bytes));
        b.set(loaded.back(), b.emit1(Op::kLdGlobalF32, {address, constant(0)}));
      });
    }
    for (const Var& value : loaded) b.set(total, b.emit1(op, {b.get(total), b.get(value)}));
  });
  return b.get(total);
}

std::vector<Value> load_shared_f32s(Builder& b, Value address) {
  std::vector<Value> values;
  for (const int offset : {0, 16}) {
    for (const Value bits : b.emit(Op::kLdSharedV4, {address, constant(offset)})) {
      values.push_back(b.emit1(Op::kF32Bits, {bits}));
    }
  }
  return values;
}

Value reduce_row(Builder& b, const RowLanes& lanes, Value value, Op op) {
  for (int distance = lanes.lanes_per_row / 2; distance > 0; distance /= 2) {
    const Value other = b.emit1(Op::kShflXorF32, {value, constant(distance)});
    value = b.emit1(op, {value, other});
  }
  return value;
}

}  // namespace sagejit
