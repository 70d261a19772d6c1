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

std::vector<Value> load_pairs(Builder& b, Value address, Value valid) {
  std::vector<Var> words;
  for (int i = 0; i < kLaneElements / 2; ++i) words.push_back(b.var(constant(0)));
  b.when(valid, [&] {
    const std::vector<Value> loaded = b.emit(Op::kLdGlobalV4, {address, constant(0)});
    for (size_t i = 0; i < words.size(); ++i) b.set(words[i], loaded[i]);
  });
  std::vector<Value> pairs;
  for (const Var& word : words) pairs.push_back(b.get(word));
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

std::vector<Value> load_elements(Builder& b, DType type, Value address, Value valid) {
  return unpack(b, type, load_pairs(b, address, valid));
}

std::vector<Value> load_mean(Builder& b, const KernelArgs& args, const RowLanes& lanes,
                             int head_dim) {
  const Value block_head =
      b.add(b.mul(b.emit1(Op::kBlockZ, {}), args["heads"]), b.emit1(Op::kBlockY, {}));
  const Value row_bytes = constant(head_dim * 4);
  const Value first_chunk = b.mul64(b.zext(block_head), b.zext(args["num_chunks"]));
  Value base = b.add64(args["k_partial_sums"], b.mul64(first_chunk, b.zext(row_bytes)));
  base = b.address(base, lanes.first, 4);
  std::vector<Var> sums;
  for (int i = 0; i < kLaneElements; ++i) sums.push_back(b.var(constant_f32(0)));
  b.when(b.less(lanes.first, constant(head_dim)), [&] {
    b.loop(constant(0), args["num_chunks"], constant(1), [&](Value chunk) {
      const Value address = b.add64(base, b.mul64(b.zext(chunk), b.zext(row_bytes)));
      for (int i = 0; i < kLaneElements; i += 2) {
        const std::vector<Value> pair = b.emit(Op::kLdGlobalV2F32, {address, constant(i * 4)});
        for (int j = 0; j < 2; ++j) {
          b.set(sums[i + j], b.fadd(b.get(sums[i + j]), pair[j]));
        }
      }
    });
  });
  const Value count = b.emit1(Op::kF32FromS32, {args["tokens"]});
  std::vector<Value> mean;
  for (const Var& sum : sums) mean.push_back(b.fdiv(b.get(sum), count));
  return mean;
}

Value reduce_row(Builder& b, const RowLanes& lanes, Value value, Op op) {
  for (int distance = lanes.lanes_per_row / 2; distance > 0; distance /= 2) {
    const Value other = b.emit1(Op::kShflXorF32, {value, constant(distance)});
    value = b.emit1(op, {value, other});
  }
  return value;
}

}  // namespace sagejit
