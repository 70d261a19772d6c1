#include <functional>
#include <numeric>
#include <optional>

#include "compiler/kernels/core_rows.h"
#include "compiler/kernels/generators.h"
#include "compiler/kernels/group_scales.h"
#include "compiler/kernels/row_tile.h"
#include "compiler/layout/core_matrix.h"
#include "compiler/support/error.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

// Where a head's or the tensor's amax lies.
Value amax_address(Builder& b, const KernelArgs& args, const QuantizePlan& plan,
                   const RowTile& tile) {
  const Value base = args[plan.operand + "_amax"];
  return plan.groups.per_head ? b.address(base, tile.batch_head(), 4) : base;
}

// Which rows of a thread, and of those beside it in a pass, have one scale.
struct SharedScale {
  int passes;     // one after the other
  int rows;       // of a warp, side by side
  bool of_warps;  // there are no others: each group lies within a warp
};

// Not of groups that are dynamic.
SharedScale shared_scale(const QuantizePlan& plan) {
  const ScaleGroups& groups = plan.groups;
  const int lanes = lanes_of_row(plan.padded_head_dim), step = pass_rows(plan.padded_head_dim);
  const int rows_per_pass = kPrepareThreads / lanes;
  const int num_passes = (plan.tile_rows + rows_per_pass - 1) / rows_per_pass;
  const int passes = groups.span % step == 0 ? std::gcd(groups.span / step, num_passes) : 1;
  const int rows = std::min(groups.span, kGroupOffsets / groups.groups);
  const bool fills_tile = num_passes * rows_per_pass == plan.tile_rows;
  const bool takes_span = groups.span == passes * step || kGroupOffsets % groups.span == 0;
  const bool takes_rows = step == kGroupOffsets && ir::kWarpThreads / lanes % rows == 0;
  return {passes, rows, fills_tile && takes_span && takes_rows};
}

// The group of a tile's row, counted from the tile's first group (scale_groups.h).
Value group_of_row(Builder& b, const ScaleGroups& groups, Value row) {
  const Value run = b.mul(b.div(row, constant(groups.span)), constant(groups.groups));
  if (groups.groups == 1) return run;
  const Value in_run = b.div(b.mul(b.rem(row, constant(kGroupOffsets)), constant(groups.groups)),
                             constant(kGroupOffsets));
  return b.add(run, in_run);
}

// code_max / amax; 0 where amax is 0.
Value inverse_scale(Builder& b, const QuantizePlan& plan, Value amax) {
  const Value is_zero = b.emit1(Op::kEqF32, {amax, constant_f32(0)});
  return b.select(is_zero, constant_f32(0), b.fdiv(constant_f32(plan.code_max), amax));
}

// round(x * inverse), as many codes to a word as fit; the first lowest. NaNs are 0.
std::vector<Value> pack_codes(Builder& b, const QuantizePlan& plan, const std::vector<Value>& x,
                              Value inverse) {
  const int codes_of_word = 32 / plan.code_bits;
  std::vector<Value> words;
  for (int first = 0; first < kLaneElements; first += codes_of_word) {
    std::vector<Value> scaled;
    for (int i = 0; i < codes_of_word; ++i) scaled.push_back(b.fmul(x[first + i], inverse));
    words.push_back(is_fp8(plan.type) ? without_nans(b, pack_floats(b, plan.type, scaled))
                                      : pack_integers(b, plan.code_bits, scaled));
  }
  return words;
}

// column_of_key (key_order.h) of a token.
Value row_of_token(Builder& b, KeyOrder order, Value token) {
  if (order == KeyOrder::kByColumn) return token;
  const Value in_block = b.bit_or(b.shl(b.bit_and(token, constant(0b00110)), 2),
                                  b.shr(b.bit_and(token, constant(0b11000)), 2));
  return b.bit_or(b.bit_and(token, constant(~0b11110)), in_block);
}

// The codes of this thread, eight a pass. A thread's rows are of whole runs of keys that are
// permuted, and the tile's first token a multiple of their number: passes are as far apart in all
// threads.
class CodeRows {
 public:
  // `scratch`: shared memory, for codes that lie as core matrices.
  CodeRows(Builder& b, const KernelArgs& args, const QuantizePlan& plan, const RowTile& tile,
           Value scratch)
      : b_(b),
        plan_(plan),
        tile_(tile),
        stage_(b, scratch, plan.tile_rows, plan.row_bytes()),
        in_row_(tile.lanes().within(b, plan.padded_head_dim)) {
    const int run = tile.lanes().pass_rows * tile.num_passes();
    if (plan.order != KeyOrder::kByColumn && (run % kOrderedKeys != 0 || (run & (run - 1)) != 0)) {
      fail(ErrorKind::kInternal, "a thread's rows are not of whole runs of permuted keys");
    }
    const Value row_bytes = b.zext(constant(plan.row_bytes()));
    const auto [pack_row, first_row, count] = tile.code_place();
    const Value pack = b.add64(args[plan.operand + "_codes"], b.mul64(pack_row, row_bytes));
    const Value row = b.add(first_row, tile.token(0));
    const Value first = b.mul(tile.lanes().lane, constant(kLaneElements * plan.code_bits / 8));
    if (plan.core_matrices) {
      place_ = stage_.place(tile.row(0), first);
    } else {
      const Value placed = b.zext(row_of_token(b, plan.order, row));
      address_ = b.address(b.add64(pack, b.mul64(placed, row_bytes)), first, 1);
    }
    if (plan.group_scales) scale_address_ = first_scales(args);
  }

  // Behind the last pass.
  void finish(const KernelArgs& args) const {
    if (!plan_.core_matrices) return;
    b_.barrier();
    const auto [pack_row, first_row, count] = tile_.code_place();
    const Value pack = b_.add64(args[plan_.operand + "_codes"],
                                b_.mul64(pack_row, b_.zext(constant(plan_.row_bytes()))));
    const Value left = b_.sub(count, tile_.first_token());
    const bool is_band = plan_.packed_heads.empty() && plan_.tile_rows % kCoreRows == 0;
    stage_.store(pack, b_.add(first_row, tile_.first_token()), is_band,
                 b_.min(left, constant(plan_.tile_rows)));
  }

  // Rows outside the tensor have codes 0: they are NaNs.
  void store(int pass, Value inverse) const {
    store_words(pass, pack_codes(b_, plan_, tile_.operand(pass), inverse));
  }

  // With scales of 16 elements, those of two neighbouring lanes; rows outside the tensor have
  // scales and codes 0.
  void store_groups(int pass) const {
    std::vector<Value> x = tile_.operand(pass);
    Value amax = constant_f32(0);
    for (Value& element : x) {
      element = without_nan(b_, element);
      amax = b_.fmax(amax, b_.emit1(Op::kAbsF32, {element}));
    }
    amax = b_.fmax(amax, b_.emit1(Op::kShflXorF32, {amax, constant(1)}));
    const Value scale = pack_group_scales(b_, {amax}, kLargestE2M1);
    const Value inverse = b_.fdiv(constant_f32(1), group_divisor(b_, scale, 0));
    store_words(pass, {pack_group_codes(b_, x, inverse)});
    store_scale(pass, scale);
  }

 private:
  int pass_row(int pass) const {
    return column_of_key(plan_.order, pass * tile_.lanes().pass_rows);
  }

  void store_words(int pass, const std::vector<Value>& words) const {
    if (plan_.core_matrices) return stage_words(pass, words);
    b_.when(both_if_set(b_, tile_.has_codes(pass), in_row_), [&] {
      std::vector<Value> operands = {address_, constant(pass_row(pass) * plan_.row_bytes())};
      operands.insert(operands.end(), words.begin(), words.end());
      b_.emit(words.size() == 1 ? Op::kStGlobalI32 : Op::kStGlobalV2, operands);
    });
  }

  void stage_words(int pass, const std::vector<Value>& words) const {
    const auto store = [&] {
      const int offset = stage_.row_stride(pass * tile_.lanes().pass_rows);
      b_.emit(Op::kStSharedV2, {place_, constant(offset), words[0], words[1]});
    };
    const Value in_tile =
        both_if_set(b_, b_.less(tile_.row(pass), constant(plan_.tile_rows)), in_row_);
    const Value needed = tile_.passes_fill_tile() ? in_row_ : in_tile;
    needed ? b_.when(needed, store) : store();
  }

  // Of the thread's first row, the word that its lane's scale belongs to.
  Value first_scales(const KernelArgs& args) const {
    const Value stride = args[plan_.operand + "_scales_stride_h"];
    const Value head =
        b_.add64(args[plan_.operand + "_scales"], b_.mul64(b_.zext(tile_.batch_head()), stride));
    const Value row = b_.zext(row_of_token(b_, plan_.order, tile_.token(0)));
    const Value first = b_.add64(head, b_.mul64(row, b_.zext(constant(plan_.scale_row_bytes()))));
    return b_.address(first, b_.div(tile_.lanes().lane, constant(kLanesOfWord)), kScaleWordBytes);
  }

  // Eight lanes' scales, one of every two, meet in a word.
  void store_scale(int pass, Value scale) const {
    const Value place = b_.bit_and(b_.shr(tile_.lanes().lane, 1), constant(kScaleWordBytes - 1));
    Value word = constant(0);
    for (int byte = 0; byte < kScaleWordBytes; ++byte) {
      word = b_.select(b_.equal(place, constant(byte)), b_.shl(scale, 8 * byte), word);
    }
    for (const int distance : {2, 4}) {
      word = b_.bit_or(word, b_.emit1(Op::kShflXorI32, {word, constant(distance)}));
    }
    const Value is_first =
        b_.equal(b_.rem(tile_.lanes().lane, constant(kLanesOfWord)), constant(0));
    b_.when(both_if_set(b_, b_.both(tile_.has_codes(pass), is_first), in_row_), [&] {
      b_.emit(Op::kStGlobalI32,
              {scale_address_, constant(pass_row(pass) * plan_.scale_row_bytes()), word});
    });
  }

  static constexpr int kLanesOfWord = kScaleWordElements / kLaneElements;

  Builder& b_;
  const QuantizePlan& plan_;
  const RowTile& tile_;
  CoreRowStage stage_;
  Value in_row_;  // this lane has codes; unset: every lane
  Value address_, place_, scale_address_;
};

void clear_counters(Builder& b, const KernelArgs& args, const RowTile& tile) {
  const Value position = b.bit_or(b.bit_or(tile.batch_head(), tile.first_token()), b.tid());
  b.when(b.equal(position, constant(0)), [&] {
    b.emit(Op::kStGlobalV2, {args["tile_counters"], constant(0), constant(0), constant(0)});
  });
}

// lse_bias[b, hq, m] = q . mean(K): what smoothing took out of the row's scores, before scaling.
void store_lse_bias(Builder& b, const KernelArgs& args, const RowTile& tile, int pass,
                    const std::vector<Value>& key_mean) {
  const std::vector<Value> x = tile.elements(pass);
  Value dot = constant_f32(0);
  for (int i = 0; i < kLaneElements; ++i) dot = b.fma(x[i], key_mean[i], dot);
  dot = reduce_rows(b, tile.lanes(), 1, dot, Op::kAddF32);
  b.when(b.both(tile.in_tensor(pass), b.equal(tile.lanes().lane, constant(0))), [&] {
    const Value row = b.add64(b.mul64(b.zext(tile.batch_head()), b.zext(tile.num_tokens())),
                              b.zext(tile.token(pass)));
    const Value address = b.add64(args["lse_bias"], b.mul64(row, b.zext(constant(4))));
    b.emit(Op::kStGlobalF32, {address, constant(0), dot});
  });
}

}  // namespace

// Largest magnitudes of scale groups that do not lie within a warp meet in shared memory: bit
// patterns of non-negative floats order like integers, so integer maxima do, in any order.
RowQuantizer::RowQuantizer(Builder& b, const KernelArgs& args, const QuantizePlan& plan,
                           Value scratch)
    : b_(b), args_(args), plan_(plan), scratch_(scratch), turn_(b.var(constant(0))) {
  if (plan.group_scales || plan.groups.is_dynamic() || shared_scale(plan).of_warps) return;
  num_groups_ = plan.tile_rows / plan.groups.span * plan.groups.groups;
  maxima_ = b.smem(plan.operand + "_maxima", 2 * num_groups_ * 4);
  for_each_group([&](Value group) {
    b_.emit(Op::kStSharedI32, {maximum(constant(0), group), constant(0), constant(0)});
  });
}

Value RowQuantizer::maximum(Value turn, Value group) const {
  return b_.add(maxima_, b_.add(turn, b_.shl(group, 2)));
}

// The last threads first: the first warp of a team has other things to do.
void RowQuantizer::for_each_group(const std::function<void(Value)>& visit) const {
  const Value thread = b_.sub(constant(b_.team_threads() - 1), tid_again(b_));
  if (num_groups_ <= b_.team_threads()) {
    b_.when(b_.less(thread, constant(num_groups_)), [&] { visit(thread); });
  } else {
    b_.loop(thread, constant(num_groups_), constant(b_.team_threads()), visit);
  }
}

void RowQuantizer::run(const TilePlace& place, const Meanwhile& meanwhile) const {
  RowTile tile(b_, args_, plan_, place);
  tile.load();
  call(meanwhile.loading);
  if (plan_.clears_counters) clear_counters(b_, args_, tile);
  if (plan_.subtract_mean || plan_.lse_bias) tile.wait_for_means();
  call(meanwhile.last_work);
  const auto store_lse_biases = [&] {
    const std::vector<Value> key_mean = tile.load_key_mean();
    for (int pass = 0; pass < tile.num_passes(); ++pass) {
      store_lse_bias(b_, args_, tile, pass, key_mean);
    }
  };
  // First, while nothing else is in registers; Q's own mean is, where it is subtracted.
  const bool biases_first = plan_.lse_bias && !plan_.subtract_mean;
  if (biases_first) store_lse_biases(), tile.forget_elements();
  if (plan_.group_scales) {
    const CodeRows codes(b_, args_, plan_, tile, scratch_);
    for (int pass = 0; pass < tile.num_passes(); ++pass) codes.store_groups(pass);
  } else if (plan_.groups.is_dynamic()) {
    quantize_with_one_scale(tile);
  } else if (shared_scale(plan_).of_warps) {
    quantize_groups_of_warps(tile);
  } else {
    quantize_groups(tile);
  }
  if (plan_.lse_bias && !biases_first) tile.forget_elements(), store_lse_biases();
}

// One scale for the tile, whose amax a launch before has found.
void RowQuantizer::quantize_with_one_scale(const RowTile& tile) const {
  const Value amax =
      b_.emit1(Op::kLdGlobalF32, {amax_address(b_, args_, plan_, tile), constant(0)});
  store_single_scale(tile, amax);
  const Value inverse = inverse_scale(b_, plan_, amax);
  const CodeRows codes(b_, args_, plan_, tile, scratch_);
  for (int pass = 0; pass < tile.num_passes(); ++pass) codes.store(pass, inverse);
  codes.finish(args_);
}

// The one scale of a head or tensor is written with the first tile that it is of.
void RowQuantizer::store_single_scale(const RowTile& tile, Value amax) const {
  const bool per_head = plan_.groups.per_head;
  b_.when(b_.equal(b_.bit_or(tile.first_token(), b_.tid()), constant(0)), [&] {
    const Value scale = b_.fdiv(amax, constant_f32(plan_.code_max));
    raise_largest_scale(tile, scale);
    const Value base = args_[plan_.operand + "_scales"];
    const Value address = per_head ? b_.address(base, tile.batch_head(), 4) : base;
    const auto store = [&] { b_.emit(Op::kStGlobalF32, {address, constant(0), scale}); };
    if (per_head) return store();
    b_.when(b_.equal(tile.batch_head(), constant(0)), store);
  });
}

// Bit patterns of numbers that are not negative order like unsigned integers.
void RowQuantizer::raise_largest_scale(const RowTile& tile, Value scale) const {
  if (!plan_.finds_largest_scale) return;
  const Value address = b_.address(args_[plan_.operand + "_largest_scale"], tile.batch_head(), 4);
  b_.emit(Op::kRedGlobalMaxU32, {address, constant(0), b_.emit1(Op::kBitsF32, {scale})});
}

// No thread waits for those of other warps.
void RowQuantizer::quantize_groups_of_warps(const RowTile& tile) const {
  const SharedScale shared = shared_scale(plan_);
  const RowLanes& lanes = tile.lanes();
  const int num_passes = tile.num_passes(), span = plan_.groups.span;
  const auto amax_from = [&](int first) {
    return tile.rows_amax(first, first + shared.passes, shared.rows);
  };
  // A pass alone is quantized as it is found; more are unpacked anew for their codes.
  std::vector<Value> maxima;
  if (shared.passes > 1) {
    for (int first = 0; first < num_passes; first += shared.passes) {
      maxima.push_back(amax_from(first));
    }
    tile.forget_elements();
  }
  // The first of the lanes that share a scale stores it, if the span begins with a token.
  const Value row_of_group = b_.rem(lanes.number, constant(shared.rows));
  const Value is_first = b_.equal(b_.bit_or(lanes.lane, row_of_group), constant(0));
  const Value token = tile.token(0);
  const Value begin = b_.sub(token, b_.rem(token, constant(std::min(span, kGroupOffsets))));
  const Value tokens_left = b_.sub(tile.num_tokens(), begin);
  const Value scales = scale_address(tile, group_of_row(b_, plan_.groups, token));
  const CodeRows codes(b_, args_, plan_, tile, scratch_);
  for (int first = 0; first < num_passes; first += shared.passes) {
    const Value amax = maxima.empty() ? amax_from(first) : maxima[first / shared.passes];
    const int row = first * lanes.pass_rows;
    b_.when(b_.both(is_first, b_.greater(tokens_left, constant(row))), [&] {
      const Value scale = b_.fdiv(amax, constant_f32(plan_.code_max));
      b_.emit(Op::kStGlobalF32, {scales, constant(row / span * plan_.groups.groups * 4), scale});
      raise_largest_scale(tile, scale);
    });
    const Value inverse = inverse_scale(b_, plan_, amax);
    for (int pass = first; pass < first + shared.passes; ++pass) codes.store(pass, inverse);
  }
  codes.finish(args_);
}

void RowQuantizer::quantize_groups(const RowTile& tile) const {
  const int together = shared_scale(plan_).passes;
  const auto group_of = [&](int pass) {
    const Value row = b_.min(tile.row(pass), constant(plan_.tile_rows - 1));
    return group_of_row(b_, plan_.groups, row);
  };
  const auto end_of = [&](int pass) { return pass + together; };
  const Value turn = b_.get(turn_);
  const Value is_first_lane = b_.equal(tile.lanes().lane, constant(0));
  for (int pass = 0; pass < tile.num_passes(); pass += together) {
    const Value amax = tile.rows_amax(pass, end_of(pass));
    b_.when(b_.both(is_first_lane, tile.in_tensor(pass)), [&] {
      b_.emit(Op::kAtomSharedMaxU32,
              {maximum(turn, group_of(pass)), constant(0), b_.emit1(Op::kBitsF32, {amax})});
    });
  }
  b_.barrier();
  store_scales(tile);
  tile.forget_elements();
  const CodeRows codes(b_, args_, plan_, tile, scratch_);
  for (int first = 0; first < tile.num_passes(); first += together) {
    const Value amax = b_.emit1(Op::kLdSharedF32, {maximum(turn, group_of(first)), constant(0)});
    const Value inverse = inverse_scale(b_, plan_, amax);
    for (int pass = first; pass < end_of(first); ++pass) codes.store(pass, inverse);
  }
  codes.finish(args_);
  b_.set(turn_, b_.sub(constant(num_groups_ * 4), turn));
}

Value RowQuantizer::scale_address(const RowTile& tile, Value group) const {
  const Value stride = args_[plan_.operand + "_scales_stride_h"];
  const Value first = b_.mul64(b_.mul64(b_.zext(tile.batch_head()), stride), b_.zext(constant(4)));
  return b_.address(b_.add64(args_[plan_.operand + "_scales"], first), group, 4);
}

// scales[group] = amax / code_max for the groups whose tokens exist. Nobody reads the other turn's
// maxima any more: they make room for the next tile's.
void RowQuantizer::store_scales(const RowTile& tile) const {
  const ScaleGroups& groups = plan_.groups;
  const Value turn = b_.get(turn_), other = b_.sub(constant(num_groups_ * 4), turn);
  const Value first_group =
      b_.mul(b_.div(tile.first_token(), constant(groups.span)), constant(groups.groups));
  for_each_group([&](Value group) {
    b_.emit(Op::kStSharedI32, {maximum(other, group), constant(0), constant(0)});
    const Value token = b_.add(
        tile.first_token(), b_.mul(b_.div(group, constant(groups.groups)), constant(groups.span)));
    b_.when(b_.less(token, tile.num_tokens()), [&] {
      const Value amax = b_.emit1(Op::kLdSharedF32, {maximum(turn, group), constant(0)});
      const Value scale = b_.fdiv(amax, constant_f32(plan_.code_max));
      b_.emit(Op::kStGlobalF32,
              {scale_address(tile, b_.add(first_group, group)), constant(0), scale});
      raise_largest_scale(tile, scale);
    });
  });
}

ir::Function generate_amax(const ForwardPlan& plan, const QuantizePlan& operand) {
  const std::string name = "amax_" + operand.operand;
  Builder b(name, kPrepareThreads);
  const KernelArgs args(b, *plan.find_launch(name));
  const Value head = b.emit1(Op::kBlockY, {}), batch = b.emit1(Op::kBlockZ, {});
  const Value kv_batch_head = b.add(b.mul(batch, args["hkv"]), b.div(head, args["group_heads"]));
  RowTile tile(b, args, operand, {b.emit1(Op::kBlockX, {}), head, batch, kv_batch_head});
  tile.load();
  if (operand.subtract_mean) tile.wait_for_means();
  const Value amax = tile.rows_amax(0, tile.num_passes());
  b.when(b.equal(tile.lanes().lane, constant(0)), [&] {
    b.emit(Op::kRedGlobalMaxU32,
           {amax_address(b, args, operand, tile), constant(0), b.emit1(Op::kBitsF32, {amax})});
  });
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
