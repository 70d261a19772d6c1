#include "compiler/kernels/value_accumulator.h"

#include <algorithm>

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

constexpr int kMmaKeys = 16;  // k of the 16-bit products

// 8-column tiles of O that are accumulated together. Wide heads leave registers for fewer.
constexpr int column_group(int num_column_tiles) {
  return num_column_tiles > 16 ? 2 : 4;
}

Op pv_mma(DType type, bool f16_accumulator) {
  if (type == DType::kBF16) return Op::kMmaBF16F32;
  return f16_accumulator ? Op::kMmaF16F16 : Op::kMmaF16F32;
}

// Two ones, packed.
constexpr int32_t packed_ones(DType type) {
  return type == DType::kBF16 ? 0x3F803F80 : 0x3C003C00;
}

std::vector<Value> concat(std::initializer_list<std::vector<Value>> lists) {
  std::vector<Value> all;
  for (const auto& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

}  // namespace

ValueAccumulator::ValueAccumulator(ir::Builder& b, const Variant& variant, int num_row_tiles,
                                   int num_column_tiles)
    : b_(b),
      variant_(variant),
      num_row_tiles_(num_row_tiles),
      num_column_tiles_(num_column_tiles),
      inner_f16_(variant.pv_accumulator.inner == DType::kF16) {
  mma_ = pv_mma(variant.p.type, inner_f16_);
  sum_mma_ = pv_mma(variant.p.type, false);
  const bool packed = inner_f16_ && !variant.pv_accumulator.outer;
  const Value zero = packed ? constant(0) : constant_f32(0);
  o_.resize(num_row_tiles);
  for (auto& row : o_) {
    for (int column = 0; column < num_column_tiles; ++column) {
      Vars registers;
      for (int i = 0; i < (packed ? 2 : 4); ++i) registers.push_back(b.var(zero));
      row.push_back(registers);
    }
  }
  if (variant.row_sum != RowSum::kQuantized) return;
  for (int row = 0; row < num_row_tiles; ++row) {
    Vars elements;
    for (int i = 0; i < 4; ++i) elements.push_back(b.var(constant_f32(0)));
    sums_.push_back(elements);
  }
}

void ValueAccumulator::rescale(const OnlineSoftmax::Rescale& rescale) {
  b_.when(rescale.any, [&] {
    std::vector<Value> factors;
    for (const ir::Var& factor : rescale.factors) factors.push_back(b_.get(factor));
    const auto scale = [&](Vars& registers, int row_tile) {
      const bool packed = registers.size() == 2;  // one register a row, of two f16
      for (size_t i = 0; i < registers.size(); ++i) {
        const Value factor = factors[2 * row_tile + (packed ? i : i / 2)];
        const Value old = b_.get(registers[i]);
        b_.set(registers[i],
               packed ? b_.emit1(Op::kMulF16x2, {old, b_.emit1(Op::kPackF16, {factor, factor})})
                      : b_.fmul(old, factor));
      }
    };
    for (int row = 0; row < num_row_tiles_; ++row) {
      for (Vars& registers : o_[row]) scale(registers, row);
      if (sums_p()) scale(sums_[row], row);
    }
  });
}

// The C fragments of two neighbouring 8-key tiles are the A fragment of one 16-key step.
ValueAccumulator::Fragment ValueAccumulator::p_fragment(const Scores& p, int row_tile,
                                                        int key_step) const {
  const Op pack = variant_.p.type == DType::kBF16 ? Op::kPackBF16 : Op::kPackF16;
  Fragment registers;
  for (const int tile : {2 * key_step, 2 * key_step + 1}) {
    const std::array<Value, 4> e = p.elements(b_, row_tile, tile);
    registers.push_back(b_.emit1(pack, {e[0], e[1]}));
    registers.push_back(b_.emit1(pack, {e[2], e[3]}));
  }
  return registers;
}

ValueAccumulator::Fragment ValueAccumulator::zeros() const {
  return inner_f16_ ? Fragment(2, constant(0)) : Fragment(4, constant_f32(0));
}

ValueAccumulator::Fragment ValueAccumulator::current(int row_tile, int column_tile) const {
  Fragment registers;
  for (const ir::Var& variable : o_[row_tile][column_tile]) registers.push_back(b_.get(variable));
  return registers;
}

std::vector<Value> ValueAccumulator::to_f32(const Fragment& registers) const {
  if (registers.size() == 4) return registers;
  return concat({b_.emit(Op::kUnpackF16, {registers[0]}), b_.emit(Op::kUnpackF16, {registers[1]})});
}

void ValueAccumulator::add_inner(int row_tile, int column_tile, const Fragment& inner) {
  const std::vector<Value> f32 = to_f32(inner);
  for (int i = 0; i < 4; ++i) {
    ir::Var& o = o_[row_tile][column_tile][i];
    b_.set(o, b_.fadd(b_.get(o), f32[i]));
  }
}

void ValueAccumulator::accumulate(const Scores& p, const ir::FragmentReader& reader,
                                  const std::vector<Value>& v_tile) {
  const int key_steps = p.num_key_tiles() * 8 / kMmaKeys;
  std::vector<std::vector<Fragment>> a(num_row_tiles_);  // [row tile][key step]
  for (int row = 0; row < num_row_tiles_; ++row) {
    for (int step = 0; step < key_steps; ++step) a[row].push_back(p_fragment(p, row, step));
  }
  const Accumulator& levels = variant_.pv_accumulator;
  const int interval = levels.outer ? levels.interval / kMmaKeys : key_steps;
  for (int first = 0; first < key_steps; first += interval) {
    // A few columns at a time: enough independent products to hide their latency, few enough that
    // an inner accumulator costs few registers.
    for (int column = 0; column < num_column_tiles_; column += column_group(num_column_tiles_)) {
      add_columns(a, first, first + interval, column, reader, v_tile);
    }
  }
  if (sums_p()) add_row_sums(a);
}

void ValueAccumulator::add_columns(const std::vector<std::vector<Fragment>>& a, int first_step,
                                   int end_step, int first_column, const ir::FragmentReader& reader,
                                   const std::vector<Value>& v_tile) {
  const bool two_levels = variant_.pv_accumulator.outer.has_value();
  const int end_column =
      std::min(first_column + column_group(num_column_tiles_), num_column_tiles_);
  std::vector<std::vector<Fragment>> c(num_row_tiles_);
  for (int row = 0; row < num_row_tiles_; ++row) {
    for (int column = first_column; column < end_column; ++column) {
      c[row].push_back(two_levels ? zeros() : current(row, column));
    }
  }
  for (int step = first_step; step < end_step; ++step) {
    for (int column = first_column; column < end_column; column += 2) {
      const Fragment v = reader.read(v_tile, step * kMmaKeys, column);
      for (int half = 0; half < 2; ++half) {
        for (int row = 0; row < num_row_tiles_; ++row) {
          Fragment& sum = c[row][column - first_column + half];
          sum = b_.emit(mma_, concat({a[row][step], {v[2 * half], v[2 * half + 1]}, sum}));
        }
      }
    }
  }
  for (int row = 0; row < num_row_tiles_; ++row) {
    for (int column = first_column; column < end_column; ++column) {
      const Fragment& sum = c[row][column - first_column];
      if (two_levels) {
        add_inner(row, column, sum);
        continue;
      }
      for (size_t i = 0; i < sum.size(); ++i) b_.set(o_[row][column][i], sum[i]);
    }
  }
}

void ValueAccumulator::add_row_sums(const std::vector<std::vector<Fragment>>& a) {
  const Fragment ones(2, constant(packed_ones(variant_.p.type)));
  for (int row = 0; row < num_row_tiles_; ++row) {
    Fragment sum;
    for (const ir::Var& variable : sums_[row]) sum.push_back(b_.get(variable));
    for (const Fragment& p : a[row]) sum = b_.emit(sum_mma_, concat({p, ones, sum}));
    for (int i = 0; i < 4; ++i) b_.set(sums_[row][i], sum[i]);
  }
}

std::array<Value, 4> ValueAccumulator::elements(int row_tile, int column_tile) const {
  const std::vector<Value> e = to_f32(current(row_tile, column_tile));
  return {e[0], e[1], e[2], e[3]};
}

std::vector<Value> ValueAccumulator::row_sum() const {
  std::vector<Value> result;
  for (const Vars& elements : sums_) {
    result.push_back(b_.get(elements[0]));
    result.push_back(b_.get(elements[2]));
  }
  return result;
}

}  // namespace sagejit
