#include "compiler/kernels/scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
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

// The first key of a tile that the thread holds; the key of its first column, where they are in
// that order.
Value first_key_of_thread(ir::Builder& b, KeyOrder order) {
  return b.mul(b.bit_and(b.lane(), constant(3)), constant(keys_between_threads(order)));
}
Value first_column(ir::Builder& b) {
  return first_key_of_thread(b, KeyOrder::kByColumn);
}

}  // namespace

Value score_zero(const Variant& variant) {
  return sums_are_biased(variant) ? constant(kBiasedZero) : constant_f32(0);
}

Value get_score(ir::Builder& b, const ir::Var& score) {
  const Value x = b.get(score);
  return x.type == ir::Type::kF32 ? x : b.emit1(Op::kF32Bits, {x});
}

void set_score(ir::Builder& b, const ir::Var& score, Value number) {
  b.set(score, score.reg.type == ir::Type::kF32 ? number : b.emit1(Op::kBitsF32, {number}));
}

std::array<Value, 4> Scores::elements(ir::Builder& b, int row_tile, int key_tile) const {
  std::array<Value, 4> result;
  for (int e = 0; e < 4; ++e) result[e] = get_score(b, tiles[row_tile][key_tile][e]);
  return result;
}

std::vector<ir::Var> Scores::registers() const {
  std::vector<ir::Var> all;
  for (const auto& row : tiles) {
    for (const auto& tile : row) all.insert(all.end(), tile.begin(), tile.end());
  }
  return all;
}

Value batch_head_of(ir::Builder& b, const KernelArgs& args, Value batch, Value head) {
  return b.add(b.mul(batch, args["hq"]), head);
}
Value batch_kv_head_of(ir::Builder& b, const KernelArgs& args, const QueryTile& tile) {
  return b.add(b.mul(tile.batch, args["hkv"]), tile.kv_head);
}

std::vector<Value> rows_of_thread(ir::Builder& b, const QueryTile& tile, int num_row_tiles,
                                  Value tid) {
  const Value warp_row = b.mul(b.shr(tid, 5), constant(num_row_tiles * kTileRows));
  std::vector<Value> rows;
  for (int i = 0; i < rows_of_thread(num_row_tiles); ++i) {
    const Value in_warp =
        b.add(b.shr(b.bit_and(tid, constant(31)), 2), constant(i / 2 * kTileRows + i % 2 * 8));
    rows.push_back(b.add(tile.first_row, b.add(warp_row, in_warp)));
  }
  return rows;
}

Value load_row_factor(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                      const QueryTile& tile, Value row) {
  const auto scale_log2 = static_cast<float>(score_scale(plan.variant) * std::numbers::log2e);
  if (plan.q.group_scales) return constant_f32(scale_log2);
  const PackedHeads heads(b, plan, args);
  const RowPlace place = heads.place_of(tile, b.min(row, b.sub(heads.num_rows(), constant(1))));
  const Value scales = scales_base(b, args, "q", batch_head_of(b, args, place.batch, place.head));
  const Value address = b.address(scales, scale_index(b, plan.q.groups, place.token), 4);
  return b.fmul(b.emit1(Op::kLdGlobalF32, {address, constant(0)}), constant_f32(scale_log2));
}

QueryRows::QueryRows(ir::Builder& b, const MaskRegions& regions, const std::vector<Value>& tokens,
                     std::vector<Value> factors)
    : b_(b), factors_(std::move(factors)) {
  for (const Value token : tokens) bounds_.push_back(regions.bounds_of(token));
}

void QueryRows::mask(Scores& s, Value first_key) const {
  const Value column = b_.add(first_key, first_key_of_thread(b_, s.keys));
  for (size_t row = 0; row < bounds_.size(); ++row) {
    const Value high = b_.sub(bounds_[row].high, column);
    Value low;
    if (bounds_[row].low) low = b_.sub(bounds_[row].low, column);
    for (int key_tile = 0; key_tile < s.num_key_tiles(); ++key_tile) {
      for (int e = 0; e < 2; ++e) {
        const Value key = constant(key_of_element(s.keys, key_tile, e));
        Value visible = b_.emit1(Op::kGeS32, {high, key});
        if (low) visible = b_.both(visible, b_.less_equal(low, key));
        const ir::Var score = s.tiles[row / 2][key_tile][2 * (row % 2) + e];
        const Value none = score.reg.type == ir::Type::kF32 ? constant_f32(kNegativeInfinity)
                                                            : constant(kNegativeInfinityBits);
        b_.set(score, b_.select(visible, b_.get(score), none));
      }
    }
  }
}

Value load_key_scale(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                     const QueryTile& tile, Value key) {
  const Value scales = scales_base(b, args, "k", batch_kv_head_of(b, args, tile));
  const Value existing = b.min(key, b.sub(args["n"], constant(1)));
  const Value address = b.address(scales, scale_index(b, plan.k.groups, existing), 4);
  return b.emit1(Op::kLdGlobalF32, {address, constant(0)});
}

Value load_largest_key_scale(ir::Builder& b, const KernelArgs& args, const QueryTile& tile) {
  const Value address = b.address(args["k_largest_scale"], batch_kv_head_of(b, args, tile), 4);
  return b.emit1(Op::kLdGlobalF32, {address, constant(0)});
}

std::vector<Value> largest_factors(ir::Builder& b, const std::vector<Value>& row_factors,
                                   Value largest_key_scale) {
  std::vector<Value> largest;
  for (const Value factor : row_factors) {
    // 0 times infinity is no number, which the maximum passes over.
    largest.push_back(
        b.fmax(b.fmul(factor, largest_key_scale), constant_f32(std::numeric_limits<float>::min())));
  }
  return largest;
}

Value mean_scores_row(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                      Value batch_head, Value row) {
  const Value num_blocks = args["q_blocks"];
  const Value block =
      b.min(b.div(row, constant(plan.mean_scores.span)), b.sub(num_blocks, constant(1)));
  const Value index = b.add64(b.mul64(b.zext(batch_head), b.zext(num_blocks)), b.zext(block));
  const Value element = b.mul64(index, b.zext(args["mean_scores_stride"]));
  return b.add64(args["mean_scores"], b.mul64(element, b.zext(constant(4))));
}

MeanScores MeanScores::global(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                              const QueryTile& tile, Value first_row) {
  const Value row =
      mean_scores_row(b, plan, args, batch_head_of(b, args, tile.batch, tile.head), first_row);
  const Value mine = b.address(row, first_key_of_thread(b, plan.k.order), 4);
  return MeanScores(b, [&b, mine](Value origin, int key) {
    return b.emit(Op::kLdGlobalV2F32, {b.address(mine, origin, 4), constant(key * 4)});
  });
}

MeanScores MeanScores::shared(ir::Builder& b) {
  const Value column_bytes = b.mul(first_column(b), constant(4));
  return MeanScores(b, [&b, column_bytes](Value origin, int key) {
    return b.emit(Op::kLdSharedV2F32, {b.add(origin, column_bytes), constant(key * 4)});
  });
}

Dequantization MeanScores::add_to(Scores& s, const Dequantization& dequantization,
                                  Value origin) const {
  const std::vector<Value>& keys = dequantization.key_factors;
  const size_t run_tiles = keys.empty() ? 0 : s.tiles[0].size() / keys.size();
  for (size_t key_tile = 0; key_tile < s.tiles[0].size(); ++key_tile) {
    const std::vector<Value> of_mean =
        load_(origin, key_of_element(s.keys, static_cast<int>(key_tile), 0));
    for (size_t row = 0; row < dequantization.row_factors.size(); ++row) {
      Value factor = dequantization.row_factors[row];
      if (run_tiles > 0) factor = b_.fmul(factor, keys[key_tile / run_tiles]);
      for (size_t e = 0; e < 2; ++e) {
        const ir::Var& score = s.tiles[row / 2][key_tile][2 * (row % 2) + e];
        Value x = get_score(b_, score);
        if (s.is_biased()) x = b_.fsub(x, constant_f32(kScoreBias));
        set_score(b_, score, b_.fma(x, factor, of_mean[e]));
      }
    }
  }
  s.form = ScoreForm::kNumber;
  return {std::vector<Value>(dequantization.row_factors.size(), constant_f32(1)), {}};
}

// Scales exist for whole runs of kScaleRunTokens, and block_n divides these.
KeyScales KeyScales::global(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                            const QueryTile& tile, int block_n) {
  const Value base = scales_base(b, args, "k", batch_kv_head_of(b, args, tile));
  const Value column = first_column(b);
  const ScaleGroups& groups = plan.k.groups;
  return KeyScales(b, groups, block_n,
                   [&b, &groups, base, column](Value origin, int key, int count) {
                     const Value token = b.add(b.add(origin, constant(key)), column);
                     if (groups.span == 1 && count == 2) {
                       return b.emit(Op::kLdGlobalV2F32, {b.address(base, token, 4), constant(0)});
                     }
                     const Value address = b.address(base, scale_index(b, groups, token), 4);
                     return std::vector<Value>(static_cast<size_t>(count),
                                               b.emit1(Op::kLdGlobalF32, {address, constant(0)}));
                   });
}

KeyScales KeyScales::shared(ir::Builder& b, const ScaleGroups& groups, int block_n) {
  // Kept in a register: the assembler would derive it from the lane again for every tile.
  const ir::Var kept = b.var(b.mul(first_column(b), constant(4)));
  b.tie({kept});
  const Value column_bytes = b.get(kept);
  return KeyScales(b, groups, block_n, [&b, column_bytes](Value origin, int key, int count) {
    const Op op = count == 2 ? Op::kLdSharedV2F32 : Op::kLdSharedF32;
    return b.emit(op, {b.add(origin, column_bytes), constant(key * 4)});
  });
}

// Keys in a row whose scale one load brings.
int KeyScales::run_keys() const {
  return scale_run(groups_, block_n_);
}
bool KeyScales::has_runs() const {
  return run_keys() >= kLeastScaleRun;
}

std::vector<Value> KeyScales::load(Value origin) const {
  std::vector<Value> factors;
  if (!has_runs()) return factors;
  for (int key = 0; key < block_n_; key += run_keys()) {
    factors.push_back(load_(origin, key, 1)[0]);
  }
  return factors;
}

void KeyScales::apply(Scores& s, Value origin) const {
  if (has_runs()) return;
  for (int key_tile = 0; key_tile < s.num_key_tiles(); ++key_tile) {
    const std::vector<Value> factors = load_(origin, key_tile * kFragmentColumns, 2);
    for (auto& row : s.tiles) {
      for (int e = 0; e < 4; ++e) {
        Value x = get_score(b_, row[key_tile][e]);
        if (s.is_biased()) x = b_.fsub(x, constant_f32(kScoreBias));
        set_score(b_, row[key_tile][e], b_.fmul(x, factors[e % 2]));
      }
    }
  }
  s.form = ScoreForm::kNumber;
}

}  // namespace sagejit
