#include "compiler/kernels/scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

constexpr int32_t kNegativeInfinityBits = static_cast<int32_t>(0xFF800000);
constexpr int kTileRows = 16;

// scale_groups.h: index(t) = (t / span) groups + (t mod 8) groups / 8
Value scale_index(ir::Builder& b, const ScaleGroups& groups, Value token) {
  if (groups.is_dynamic()) return constant(0);
  const Value run = b.mul(b.div(token, constant(groups.span)), constant(groups.groups));
  if (groups.groups == 1) return run;
  const Value in_run =
      b.div(b.mul(b.rem(token, constant(8)), constant(groups.groups)), constant(8));
  return b.add(run, in_run);
}

Value scales_base(ir::Builder& b, const KernelArgs& args, const std::string& operand,
                  Value batch_head) {
  const Value offset = b.mul64(b.zext(batch_head), args[operand + "_scales_stride_h"]);
  return b.add64(args[operand + "_scales"], b.mul64(offset, b.zext(constant(4))));
}

// First column that the thread holds of each 8-column tile.
Value first_column(ir::Builder& b) {
  return b.mul(b.bit_and(b.lane(), constant(3)), constant(2));
}

}  // namespace

std::array<Value, 4> Scores::elements(ir::Builder& b, int row_tile, int key_tile) const {
  std::array<Value, 4> result;
  for (int e = 0; e < 4; ++e) {
    result[e] = b.emit1(Op::kF32Bits, {b.get(tiles[row_tile][key_tile][e])});
  }
  return result;
}

std::vector<ir::Var> Scores::registers() const {
  std::vector<ir::Var> all;
  for (const auto& row : tiles) {
    for (const auto& tile : row) all.insert(all.end(), tile.begin(), tile.end());
  }
  return all;
}

double score_scale(const Variant& variant) {
  return variant.score.scale.value_or(1.0 / std::sqrt(variant.head_dim));
}

Value batch_head_of(ir::Builder& b, const KernelArgs& args, const QueryTile& tile) {
  return b.add(b.mul(tile.batch, args["hq"]), tile.head);
}
Value batch_kv_head_of(ir::Builder& b, const KernelArgs& args, const QueryTile& tile) {
  return b.add(b.mul(tile.batch, args["hkv"]), tile.kv_head);
}

Value row_of_thread(ir::Builder& b, const QueryTile& tile, int num_row_tiles, Value tid, int i) {
  const Value in_warp =
      b.add(b.shr(b.bit_and(tid, constant(31)), 2), constant(i / 2 * kTileRows + i % 2 * 8));
  const Value warp_row = b.mul(b.shr(tid, 5), constant(num_row_tiles * kTileRows));
  return b.add(tile.first_row, b.add(warp_row, in_warp));
}

QueryRows::QueryRows(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                     const QueryTile& tile, const MaskRegions& regions, int num_row_tiles,
                     Value tid)
    : b_(b) {
  const Value scale_log2 =
      constant_f32(static_cast<float>(score_scale(plan.variant) * std::numbers::log2e));
  const Value scales = scales_base(b, args, "q", batch_head_of(b, args, tile));
  const Value last_row = b.sub(args["m"], constant(1));
  for (int i = 0; i < rows_of_thread(num_row_tiles); ++i) {
    const Value row = row_of_thread(b, tile, num_row_tiles, tid, i);
    bounds_.push_back(regions.bounds_of(row));
    const Value index = scale_index(b, plan.q.groups, b.min(row, last_row));
    const Value scale_q = b.emit1(Op::kLdGlobalF32, {b.address(scales, index, 4), constant(0)});
    factors_.push_back(b.fmul(scale_q, scale_log2));
  }
}

void QueryRows::mask(Scores& s, Value first_key) const {
  const Value column = b_.add(first_key, first_column(b_));
  for (size_t row = 0; row < bounds_.size(); ++row) {
    const Value high = b_.sub(bounds_[row].high, column);
    Value low;
    if (bounds_[row].low) low = b_.sub(bounds_[row].low, column);
    for (int key_tile = 0; key_tile < s.num_key_tiles(); ++key_tile) {
      for (int e = 0; e < 2; ++e) {
        const Value key = constant(key_tile * kFragmentColumns + e);
        Value visible = b_.emit1(Op::kGeS32, {high, key});
        if (low) visible = b_.both(visible, b_.less_equal(low, key));
        const ir::Var score = s.tiles[row / 2][key_tile][2 * (row % 2) + e];
        b_.set(score, b_.select(visible, b_.get(score), constant(kNegativeInfinityBits)));
      }
    }
  }
}

KeyScales::KeyScales(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                     const QueryTile& tile, int block_n)
    : b_(b),
      groups_(plan.k.groups),
      block_n_(block_n),
      base_(scales_base(b, args, "k", batch_kv_head_of(b, args, tile))),
      column_(first_column(b)),
      last_key_(b.sub(args["n"], constant(1))) {}

// Keys in a row whose scale one load brings: the longest that divides spans and key tiles.
int KeyScales::run_keys() const {
  return groups_.is_dynamic() ? block_n_ : std::gcd(groups_.span, block_n_);
}
bool KeyScales::has_runs() const {
  return run_keys() >= 2 * kFragmentColumns;
}

Value KeyScales::load_scale(Value token) const {
  // Scales exist for whole runs of kScaleRunTokens; keys behind the last one are masked.
  if (kScaleRunTokens % block_n_ != 0) token = b_.min(token, last_key_);
  const Value address = b_.address(base_, scale_index(b_, groups_, token), 4);
  return b_.emit1(Op::kLdGlobalF32, {address, constant(0)});
}

std::vector<Value> KeyScales::load(Value first_key) const {
  std::vector<Value> factors;
  if (!has_runs()) return factors;
  for (int key = 0; key < block_n_; key += run_keys()) {
    factors.push_back(load_scale(b_.add(b_.add(first_key, constant(key)), column_)));
  }
  return factors;
}

void KeyScales::apply(Scores& s, Value first_key) const {
  if (has_runs()) return;
  for (int key_tile = 0; key_tile < s.num_key_tiles(); ++key_tile) {
    const Value token = b_.add(b_.add(first_key, constant(key_tile * kFragmentColumns)), column_);
    std::vector<Value> factors;
    if (groups_.span == 1 && kScaleRunTokens % block_n_ == 0) {
      factors = b_.emit(Op::kLdGlobalV2F32, {b_.address(base_, token, 4), constant(0)});
    } else {
      for (int e = 0; e < 2; ++e) factors.push_back(load_scale(b_.add(token, constant(e))));
    }
    for (auto& row : s.tiles) {
      for (int e = 0; e < 4; ++e) {
        const Value score =
            b_.fsub(b_.emit1(Op::kF32Bits, {b_.get(row[key_tile][e])}), constant_f32(kScoreBias));
        b_.set(row[key_tile][e], b_.emit1(Op::kBitsF32, {b_.fmul(score, factors[e % 2])}));
      }
    }
  }
  s.biased = false;
}

}  // namespace sagejit
