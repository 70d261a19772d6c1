#include "compiler/kernels/value_accumulator.h"

#include <algorithm>

#include "compiler/kernels/pv_operands.h"
#include "compiler/kernels/scale_factors.h"

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

// 8-column tiles of O that are accumulated together. Wide heads leave registers for fewer.
constexpr int column_group(int num_column_tiles) {
  return num_column_tiles > 16 ? 2 : 4;
}

std::vector<Value> concat(std::initializer_list<std::vector<Value>> lists) {
  std::vector<Value> all;
  for (const auto& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

// Of a product of fp4: behind P's registers come its scales, of which those of the lower threads of
// a quad count.
std::vector<Value> scaled_operands(const std::vector<Value>& p, const std::vector<Value>& v,
                                   const std::vector<Value>& sum, Value v_scales, int v_thread) {
  const std::vector<Value> a(p.begin(), p.end() - 1);
  return concat({a, v, sum, {p.back(), constant(0), v_scales, constant(v_thread)}});
}

}  // namespace

ValueAccumulator::ValueAccumulator(ir::Builder& b, const Variant& variant, int num_row_tiles,
                                   int num_column_tiles)
    : b_(b),
      variant_(variant),
      num_row_tiles_(num_row_tiles),
      num_column_tiles_(num_column_tiles),
      step_keys_(keys_of_product(variant.p.type)),
      inner_(variant.pv_accumulator.inner),
      o_type_(variant.pv_accumulator.outer.value_or(inner_)) {
  o_.resize(num_row_tiles);
  for (auto& row : o_) {
    for (int column = 0; column < num_column_tiles; ++column) {
      Vars registers;
      for (const Value zero : zeros(o_type_)) registers.push_back(b.var(zero));
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

ValueAccumulator::Fragment ValueAccumulator::zeros(DType type) {
  if (type == DType::kF16) return Fragment(2, constant(0));
  return Fragment(4, type == DType::kS32 ? constant(kBiasedZero) : constant_f32(0));
}

ValueAccumulator::Fragment ValueAccumulator::current(int row_tile, int column_tile) const {
  Fragment registers;
  for (const ir::Var& variable : o_[row_tile][column_tile]) registers.push_back(b_.get(variable));
  return registers;
}

std::vector<Value> ValueAccumulator::to_f32(DType type, const Fragment& registers) const {
  if (type == DType::kF32) return registers;
  std::vector<Value> f32;
  for (const Value x : registers) {
    if (type == DType::kS32) {
      f32.push_back(unbias(b_, x));
    } else {
      f32 = concat({f32, b_.emit(Op::kUnpackF16, {x})});
    }
  }
  return f32;
}

void ValueAccumulator::add_inner(int row_tile, int column_tile, const Fragment& inner) {
  const std::vector<Value> f32 = to_f32(inner_, inner);
  for (int i = 0; i < 4; ++i) {
    ir::Var& o = o_[row_tile][column_tile][i];
    b_.set(o, b_.fadd(b_.get(o), f32[i]));
  }
}

void ValueAccumulator::accumulate(const Scores& p, const ValueTiles& values,
                                  const ValueTiles::Tile& v_tile) {
  const int key_steps = p.num_key_tiles() * kFragmentColumns / step_keys_;
  std::vector<std::vector<Fragment>> a(num_row_tiles_);  // [row tile][key step]
  for (int row = 0; row < num_row_tiles_; ++row) {
    for (int step = 0; step < key_steps; ++step) {
      a[row].push_back(p_fragment(b_, variant_, p, row, step * step_keys_));
    }
  }
  const Accumulator& levels = variant_.pv_accumulator;
  const int interval = levels.outer ? levels.interval / step_keys_ : key_steps;
  for (int first = 0; first < key_steps; first += interval) {
    // A few columns at a time: enough independent products to hide their latency, few enough that
    // an inner accumulator costs few registers.
    for (int column = 0; column < num_column_tiles_; column += column_group(num_column_tiles_)) {
      add_columns(a, first, first + interval, column, values, v_tile);
    }
  }
  if (sums_p()) add_row_sums(a);
}

void ValueAccumulator::add_columns(const std::vector<std::vector<Fragment>>& a, int first_step,
                                   int end_step, int first_column, const ValueTiles& values,
                                   const ValueTiles::Tile& v_tile) {
  const bool two_levels = variant_.pv_accumulator.outer.has_value();
  const Op product = ir::mma_of(variant_.p.type, variant_.v.type, inner_);
  const int end_column =
      std::min(first_column + column_group(num_column_tiles_), num_column_tiles_);
  std::vector<std::vector<Fragment>> c(num_row_tiles_);
  for (int row = 0; row < num_row_tiles_; ++row) {
    for (int column = first_column; column < end_column; ++column) {
      c[row].push_back(two_levels ? zeros(inner_) : current(row, column));
    }
  }
  const bool has_scales = variant_.v.type == DType::kE2M1;
  Value v_scales;
  for (int step = first_step; step < end_step; ++step) {
    for (int column = first_column; column < end_column; column += 2) {
      const Fragment v = values.read(v_tile, step * step_keys_, column);
      if (has_scales && (column == first_column || column % kScaledTiles == 0)) {
        v_scales =
            values.read_scales(v_tile, step * step_keys_, column / kScaledTiles * kScaledTiles);
      }
      for (int half = 0; half < 2; ++half) {
        for (int row = 0; row < num_row_tiles_; ++row) {
          Fragment& sum = c[row][column - first_column + half];
          const Fragment b = {v[2 * half], v[2 * half + 1]};
          sum = b_.emit(product, has_scales ? scaled_operands(a[row][step], b, sum, v_scales,
                                                              (column + half) % kScaledTiles)
                                            : concat({a[row][step], b, sum}));
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
  const Fragment ones(2, constant(packed_ones(variant_.v.type)));
  const Op product = ir::mma_of(variant_.p.type, variant_.v.type, DType::kF32);
  const bool of_tile = bits_of(variant_.p.type) == 8;
  for (int row = 0; row < num_row_tiles_; ++row) {
    Fragment before;
    for (const ir::Var& variable : sums_[row]) before.push_back(b_.get(variable));
    Fragment sum = of_tile ? zeros(DType::kF32) : before;
    for (const Fragment& p : a[row]) sum = b_.emit(product, concat({p, ones, sum}));
    for (int i = 0; i < 4; ++i) {
      b_.set(sums_[row][i], of_tile ? b_.fadd(before[i], sum[i]) : sum[i]);
    }
  }
}

std::array<Value, 4> ValueAccumulator::elements(int row_tile, int column_tile) const {
  const std::vector<Value> e = to_f32(o_type_, current(row_tile, column_tile));
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
