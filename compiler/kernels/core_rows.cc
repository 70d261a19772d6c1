#include "compiler/kernels/core_rows.h"

#include <algorithm>
#include <vector>

#include "compiler/layout/core_matrix.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::Op;
using ir::Value;

// Of a row in the band, in the core matrix `core` of those side by side.
Value CoreRowStage::turned(Value row, Value core) const {
  const int cores = row_bytes_ / kCoreRowBytes;
  const Value turn = b_.mul(core, constant(std::max(1, kCoreRows / cores)));
  return b_.bit_xor(row, b_.rem(turn, constant(kCoreRows)));
}

Value CoreRowStage::place(Value row, Value byte) const {
  const Value core = b_.div(byte, constant(kCoreRowBytes));
  const Value band = b_.mul(b_.div(row, constant(kCoreRows)), constant(row_stride(kCoreRows)));
  const Value in_band =
      b_.add(b_.mul(core, constant(kCoreBytes)),
             b_.mul(turned(b_.rem(row, constant(kCoreRows)), core), constant(kCoreRowBytes)));
  return b_.add(b_.add(shared_, band), b_.add(in_band, b_.rem(byte, constant(kCoreRowBytes))));
}

// Rows of core matrices, 16 bytes, in the order of their place in the codes.
void CoreRowStage::store(Value head, Value first, bool first_is_band, Value count) const {
  const int cores = row_bytes_ / kCoreRowBytes;
  const int units = (rows_ + kCoreRows - 1) / kCoreRows * kCoreRows * cores;
  const Value first_band = b_.div(first, constant(kCoreRows));
  const Value row_in_core = b_.rem(b_.tid(), constant(kCoreRows));  // of all units of a thread
  Value target =
      b_.address(b_.address(head, first_band, row_stride(kCoreRows)), b_.tid(), kCoreRowBytes);
  if (!first_is_band) {  // rows that go into the next band, and places of all others in theirs
    const Value place = b_.add(row_in_core, b_.rem(first, constant(kCoreRows)));
    const Value moved = b_.sub(b_.rem(place, constant(kCoreRows)), row_in_core);
    const Value bands = b_.div(place, constant(kCoreRows));
    const Value bytes = b_.add(b_.mul(moved, constant(kCoreRowBytes)),
                               b_.mul(bands, constant(row_stride(kCoreRows))));
    target = b_.add64(target, b_.sext(bytes));
  }
  for (int unit = 0; unit < units; unit += b_.team_threads()) {
    const Value number = b_.add(b_.tid(), constant(unit));
    const Value core = b_.rem(b_.div(number, constant(kCoreRows)), constant(cores));
    const Value row = b_.add(
        b_.mul(b_.div(number, constant(kCoreRows * cores)), constant(kCoreRows)), row_in_core);
    Value exists = b_.less(row, count);
    if (unit + b_.team_threads() > units) {
      exists = b_.both(exists, b_.less(number, constant(units)));
    }
    b_.when(exists, [&] {
      const Value source =
          b_.add(shared_, b_.mul(b_.bit_or(b_.sub(number, row_in_core), turned(row_in_core, core)),
                                 constant(kCoreRowBytes)));
      std::vector<Value> operands = {target, constant(unit * kCoreRowBytes)};
      for (const Value word : b_.emit(Op::kLdSharedV4, {source, constant(0)})) {
        operands.push_back(word);
      }
      b_.emit(Op::kStGlobalV4, operands);
    });
  }
}

}  // namespace sagejit
