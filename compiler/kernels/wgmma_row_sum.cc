#include "compiler/kernels/wgmma_row_sum.h"

#include "compiler/kernels/pv_operands.h"

namespace sagejit {

using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

constexpr int kColumns = 2;  // that a thread holds of a row

}  // namespace

WgmmaRowSum::WgmmaRowSum(ir::Builder& b, const Variant& variant, Value ones) : b_(b), ones_(ones) {
  if (!ones) return;
  // Whatever P V adds up in.
  product_ = ir::wgmma_of(variant.p.type, variant.v.type, DType::kF32);
  for (int row = 0; row < rows_of_thread(1); ++row) {
    rows_.push_back(b.var(constant_f32(0)));
    for (int column = 0; column < kColumns; ++column) {
      tile_.push_back(b.var(constant_f32(0)));
    }
  }
}

void WgmmaRowSum::product(const std::vector<Value>& a, bool is_first) const {
  if (tile_.empty()) return;
  b_.wgmma(product_, tile_, a, ones_, {.fenced = false, .accumulate = !is_first});
}

void WgmmaRowSum::add() const {
  for (size_t row = 0; row < rows_.size(); ++row) {
    const Value sum = b_.get(tile_[kColumns * row]);
    b_.set(rows_[row], b_.fadd(b_.get(rows_[row]), sum));
  }
}

void WgmmaRowSum::rescale(const OnlineSoftmax::Rescale& rescale, bool with_tile) const {
  const auto scale = [&](const ir::Var& x, size_t row) {
    b_.set(x, b_.fmul(b_.get(x), b_.get(rescale.factors[row])));
  };
  for (size_t row = 0; row < rows_.size(); ++row) {
    scale(rows_[row], row);
    if (with_tile) scale(tile_[kColumns * row], row);
  }
}

std::vector<Value> WgmmaRowSum::row_sum() const {
  std::vector<Value> result;
  for (const ir::Var& row : rows_) result.push_back(b_.get(row));
  return result;
}

}  // namespace sagejit
