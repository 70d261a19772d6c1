#include <optional>

#include "compiler/kernels/core_rows.h"
#include "compiler/kernels/generators.h"
#include "compiler/kernels/prepare.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

constexpr float kCodeMax = 127.0f;  // symmetric int8

// The rows of X that a block handles: `tile_rows` tokens of one (batch, head), eight elements a
// thread and pass, smoothed.
class RowTile {
 public:
  RowTile(Builder& b, const KernelArgs& args, const QuantizePlan& plan, const TilePlace& place)
      : b_(b),
        args_(args),
        plan_(plan),
        lanes_(b, plan.padded_head_dim),
        place_(place),
        first_token_(b.mul(place.tile, constant(plan.tile_rows))),
        num_tokens_(args[names_of(plan).tokens]) {}

  int num_passes() const {
    return (plan_.tile_rows + lanes_.rows_per_pass - 1) / lanes_.rows_per_pass;
  }
  const RowLanes& lanes() const { return lanes_; }
  const TilePlace& place() const { return place_; }
  Value first_token() const { return first_token_; }
  Value num_tokens() const { return num_tokens_; }
  // Padding included, where the codes have any.
  Value num_code_tokens() const {
    return plan_.core_matrices ? args_["padded_" + std::string(names_of(plan_).tokens)]
                               : num_tokens_;
  }
  Value batch_head() const {
    return b_.add(b_.mul(place_.batch, args_[names_of(plan_).heads]), place_.head);
  }

  // This thread's row of a pass, counted from the tile's first.
  Value row(int pass) const { return b_.add(lanes_.row, constant(pass * lanes_.rows_per_pass)); }
  Value token(int pass) const { return b_.add(first_token_, row(pass)); }
  // A token that exists and belongs to this tile.
  Value in_tensor(int pass) const { return before(num_tokens_, pass); }
  Value has_codes(int pass) const { return before(num_code_tokens(), pass); }

  // Loads all passes; zeros outside the tensor.
  void load() {
    for (int pass = 0; pass < num_passes(); ++pass) {
      const RowPlace row{place_.batch, place_.head, token(pass)};
      const Value address =
          b_.address(row_address(b_, args_, plan_.operand, names_of(plan_).tokens, row),
                     lanes_.first, bits_of(plan_.input) / 8);
      const Value valid = b_.both(in_tensor(pass), b_.less(lanes_.first, constant(plan_.head_dim)));
      words_.push_back(load_words(b_, address, valid));
    }
  }

  // The elements of one pass.
  std::vector<Value> elements(int pass) const {
    std::vector<Value> pairs;
    for (const ir::Var& word : words_[pass]) pairs.push_back(b_.get(word));
    return unpack(b_, plan_.input, pairs);
  }

  // Elements are unpacked anew from here on: kept, they would take twice the registers.
  void forget_elements() const {
    for (const std::vector<ir::Var>& words : words_) b_.tie(words);
  }

  // x, or where it is smoothed, x - mean inside the tensor and 0 outside.
  std::vector<Value> smoothed(int pass, const std::vector<Value>& mean) const {
    std::vector<Value> x = elements(pass);
    if (!plan_.subtract_mean) return x;
    const Value valid = b_.both(in_tensor(pass), b_.less(lanes_.first, constant(plan_.head_dim)));
    for (int i = 0; i < kLaneElements; ++i) {
      x[i] = b_.select(valid, b_.fsub(x[i], mean[i]), constant_f32(0));
    }
    return x;
  }

  // max |x| over the whole row; every lane of the row gets it.
  Value row_amax(const std::vector<Value>& x) const {
    Value amax = constant_f32(0);
    for (const Value element : x) amax = b_.fmax(amax, b_.emit1(Op::kAbsF32, {element}));
    return reduce_row(b_, lanes_, amax, Op::kMaxF32);
  }

 private:
  Value before(Value end, int pass) const {
    const Value exists = b_.less(token(pass), end);
    if ((pass + 1) * lanes_.rows_per_pass <= plan_.tile_rows) return exists;
    return b_.both(exists, b_.less(row(pass), constant(plan_.tile_rows)));
  }

  Builder& b_;
  const KernelArgs& args_;
  const QuantizePlan& plan_;
  RowLanes lanes_;
  TilePlace place_;
  Value first_token_, num_tokens_;
  std::vector<std::vector<ir::Var>> words_;  // by pass
};

// Where a head's or the tensor's amax lies.
Value amax_address(Builder& b, const KernelArgs& args, const QuantizePlan& plan,
                   const RowTile& tile) {
  const Value base = args[plan.operand + "_amax"];
  return plan.groups.per_head ? b.address(base, tile.batch_head(), 4) : base;
}

// The group of a tile's row, counted from the tile's first group (scale_groups.h).
Value group_of_row(Builder& b, const ScaleGroups& groups, Value row) {
  const Value run = b.mul(b.div(row, constant(groups.span)), constant(groups.groups));
  if (groups.groups == 1) return run;
  const Value in_run = b.div(b.mul(b.rem(row, constant(8)), constant(groups.groups)), constant(8));
  return b.add(run, in_run);
}

// Largest magnitudes of a tile's scale groups, gathered in shared memory: bit patterns of
// non-negative floats order like integers, so integer maxima do, in any order.
class GroupMaxima {
 public:
  GroupMaxima(Builder& b, const QuantizePlan& plan)
      : b_(b),
        groups_(plan.groups),
        count_(plan.tile_rows / plan.groups.span * plan.groups.groups),
        address_(b.smem(plan.operand + "_maxima", count_ * 4)) {}

  // A barrier must follow.
  void clear() const {
    b_.loop(b_.tid(), constant(count_), constant(b_.block_threads()), [&](Value i) {
      b_.emit(Op::kStSharedI32, {address(i), constant(0), constant(0)});
    });
  }

  int count() const { return count_; }
  Value address(Value group) const { return b_.add(address_, b_.shl(group, 2)); }

  // One lane of a row contributes it.
  void contribute(Value row, Value is_first_lane, Value amax) const {
    b_.when(is_first_lane, [&] {
      b_.emit(Op::kAtomSharedMaxU32, {address(group_of_row(b_, groups_, row)), constant(0),
                                      b_.emit1(Op::kBitsF32, {amax})});
    });
  }
  Value load(Value group) const {
    return b_.emit1(Op::kLdSharedF32, {address(group), constant(0)});
  }

 private:
  Builder& b_;
  ScaleGroups groups_;
  int count_;
  Value address_;
};

// round(x * 127 / amax), four codes to a word; 0 where amax is 0.
Value inverse_scale(Builder& b, Value amax) {
  const Value is_zero = b.emit1(Op::kEqF32, {amax, constant_f32(0)});
  return b.select(is_zero, constant_f32(0), b.fdiv(constant_f32(kCodeMax), amax));
}

Value pack_codes(Builder& b, const std::vector<Value>& x, int first, Value inverse) {
  std::vector<Value> codes;
  for (int i = 0; i < 4; ++i) {
    codes.push_back(b.emit1(Op::kS32FromF32, {b.fmul(x[first + i], inverse)}));
  }
  // A pack puts its two codes in front of the third operand's lower half.
  const Value upper = b.emit1(Op::kPackS8, {codes[3], codes[2], constant(0)});
  return b.emit1(Op::kPackS8, {codes[1], codes[0], upper});
}

// scales[group] = amax / 127 for the groups whose tokens exist.
void store_scales(Builder& b, const KernelArgs& args, const QuantizePlan& plan, const RowTile& tile,
                  const GroupMaxima& maxima) {
  const ScaleGroups& groups = plan.groups;
  const Value head_base =
      b.add64(args[plan.operand + "_scales"],
              b.mul64(b.mul64(b.zext(tile.batch_head()), args[plan.operand + "_scales_stride_h"]),
                      b.zext(constant(4))));
  const Value first_group =
      b.mul(b.div(tile.first_token(), constant(groups.span)), constant(groups.groups));
  b.loop(b.tid(), constant(maxima.count()), constant(b.block_threads()), [&](Value group) {
    const Value token = b.add(tile.first_token(),
                              b.mul(b.div(group, constant(groups.groups)), constant(groups.span)));
    b.when(b.less(token, tile.num_tokens()), [&] {
      const Value scale = b.fdiv(maxima.load(group), constant_f32(kCodeMax));
      b.emit(Op::kStGlobalF32,
             {b.address(head_base, b.add(first_group, group), 4), constant(0), scale});
    });
  });
}

// The one scale of a head or tensor is written by the first block that owns it.
void store_single_scale(Builder& b, const KernelArgs& args, const QuantizePlan& plan,
                        const RowTile& tile, Value amax) {
  const Value block =
      plan.groups.per_head ? tile.first_token() : b.bit_or(tile.first_token(), tile.batch_head());
  b.when(b.equal(b.bit_or(block, b.tid()), constant(0)), [&] {
    const Value base = args[plan.operand + "_scales"];
    const Value address = plan.groups.per_head ? b.address(base, tile.batch_head(), 4) : base;
    b.emit(Op::kStGlobalF32, {address, constant(0), b.fdiv(amax, constant_f32(kCodeMax))});
  });
}

// Where the eight codes of this thread lie, one byte each.
Value codes_address(Builder& b, const KernelArgs& args, const QuantizePlan& plan,
                    const RowTile& tile, int pass) {
  const Value row_bytes = b.zext(constant(plan.padded_head_dim));
  const Value codes = args[plan.operand + "_codes"];
  const Value first_row = b.mul64(b.zext(tile.batch_head()), b.zext(tile.num_code_tokens()));
  if (plan.core_matrices) {
    const Value head = b.add64(codes, b.mul64(first_row, row_bytes));
    return token_rows_address(b, head, tile.token(pass), tile.lanes().first, plan.padded_head_dim);
  }
  const Value row = b.add64(first_row, b.zext(tile.token(pass)));
  return b.address(b.add64(codes, b.mul64(row, row_bytes)), tile.lanes().first, 1);
}

void store_codes(Builder& b, const KernelArgs& args, const QuantizePlan& plan, const RowTile& tile,
                 int pass, const std::vector<Value>& x, Value inverse) {
  const Value in_row = b.less(tile.lanes().first, constant(plan.padded_head_dim));
  b.when(b.both(tile.has_codes(pass), in_row), [&] {
    b.emit(Op::kStGlobalV2, {codes_address(b, args, plan, tile, pass), constant(0),
                             pack_codes(b, x, 0, inverse), pack_codes(b, x, 4, inverse)});
  });
}

void clear_counters(Builder& b, const KernelArgs& args, const RowTile& tile) {
  const Value position = b.bit_or(b.bit_or(tile.batch_head(), tile.first_token()), b.tid());
  b.when(b.equal(position, constant(0)), [&] {
    b.emit(Op::kStGlobalV2, {args["tile_counters"], constant(0), constant(0), constant(0)});
  });
}

// The mean over tokens of the K head that a tile smooths or attends to, in shared memory: every
// block that needs it adds up the partial sums, in order of the chunks, and divides by n.
class SharedMean {
 public:
  SharedMean(Builder& b, const KernelArgs& args, const QuantizePlan& plan)
      : b_(b),
        args_(args),
        plan_(plan),
        columns_(plan.padded_head_dim),
        address_(b.smem(plan.operand + "_mean", columns_ * 4)) {}

  // A barrier must follow.
  void compute(const RowTile& tile) const {
    const Value batch_head = kv_batch_head(tile);
    b_.when(b_.less(b_.tid(), constant(columns_)), [&] {
      const ir::Var mean = b_.var(constant_f32(0));
      b_.when(b_.less(b_.tid(), constant(plan_.head_dim)), [&] {
        wait_for_statistics(b_, args_, batch_head);
        const Value sum = fold_chunks(b_, args_, "k_partial_sums", plan_.head_dim,
                                      {batch_head, b_.tid()}, Op::kAddF32);
        const Value count = b_.emit1(Op::kF32FromS32, {b_.max(args_["n"], constant(1))});
        b_.set(mean, b_.fdiv(sum, count));
      });
      b_.emit(Op::kStSharedF32, {mine(), constant(0), b_.get(mean)});
    });
  }

  // k_mean[b, hkv, d], by the head's first block; this thread's channel.
  void store(const RowTile& tile) const {
    const Value is_channel = b_.less(b_.tid(), constant(plan_.head_dim));
    b_.when(b_.both(b_.equal(tile.first_token(), constant(0)), is_channel), [&] {
      const Value row = b_.address(args_["k_mean"], tile.batch_head(), plan_.head_dim * 4);
      const Value mean = b_.emit1(Op::kLdSharedF32, {mine(), constant(0)});
      b_.emit(Op::kStGlobalF32, {b_.address(row, b_.tid(), 4), constant(0), mean});
    });
  }

  // This thread's eight channels. Lanes past the row repeat its last: their elements are none.
  std::vector<Value> load(const RowTile& tile) const {
    const Value first = b_.min(tile.lanes().first, constant(columns_ - kLaneElements));
    return load_shared_f32s(b_, b_.add(address_, b_.shl(first, 2)));
  }

 private:
  Value mine() const { return b_.add(address_, b_.shl(b_.tid(), 2)); }
  Value kv_batch_head(const RowTile& tile) const {
    if (plan_.operand == "k") return tile.batch_head();
    const Value head = b_.div(tile.place().head, b_.div(args_["hq"], args_["hkv"]));
    return b_.add(b_.mul(tile.place().batch, args_["hkv"]), head);
  }

  Builder& b_;
  const KernelArgs& args_;
  const QuantizePlan& plan_;
  int columns_;
  Value address_;
};

// lse_bias[b, hq, m] = q . mean(K): what smoothing took out of the row's scores, before scaling.
void store_lse_bias(Builder& b, const KernelArgs& args, const RowTile& tile, int pass,
                    const std::vector<Value>& x, const std::vector<Value>& mean) {
  Value dot = constant_f32(0);
  for (int i = 0; i < kLaneElements; ++i) dot = b.fma(x[i], mean[i], dot);
  dot = reduce_row(b, tile.lanes(), dot, Op::kAddF32);
  b.when(b.both(tile.in_tensor(pass), b.equal(tile.lanes().lane, constant(0))), [&] {
    const Value row = b.add64(b.mul64(b.zext(tile.batch_head()), b.zext(tile.num_tokens())),
                              b.zext(tile.token(pass)));
    const Value address = b.add64(args["lse_bias"], b.mul64(row, b.zext(constant(4))));
    b.emit(Op::kStGlobalF32, {address, constant(0), dot});
  });
}

// One scale for the tile, whose amax a launch before has found.
void quantize_with_one_scale(Builder& b, const KernelArgs& args, const QuantizePlan& plan,
                             const RowTile& tile, const std::vector<Value>& mean) {
  const Value amax = b.emit1(Op::kLdGlobalF32, {amax_address(b, args, plan, tile), constant(0)});
  store_single_scale(b, args, plan, tile, amax);
  const Value inverse = inverse_scale(b, amax);
  for (int pass = 0; pass < tile.num_passes(); ++pass) {
    const std::vector<Value> x = tile.smoothed(pass, mean);
    if (plan.lse_bias) store_lse_bias(b, args, tile, pass, x, mean);
    store_codes(b, args, plan, tile, pass, x, inverse);
  }
}

void quantize_groups(Builder& b, const KernelArgs& args, const QuantizePlan& plan,
                     const RowTile& tile, const std::vector<Value>& mean,
                     const GroupMaxima& maxima) {
  const Value is_first_lane = b.equal(tile.lanes().lane, constant(0));
  for (int pass = 0; pass < tile.num_passes(); ++pass) {
    const std::vector<Value> x = tile.smoothed(pass, mean);
    if (plan.lse_bias) store_lse_bias(b, args, tile, pass, x, mean);
    const Value contributes = b.both(is_first_lane, tile.in_tensor(pass));
    maxima.contribute(tile.row(pass), contributes, tile.row_amax(x));
  }
  b.barrier();
  store_scales(b, args, plan, tile, maxima);
  tile.forget_elements();
  for (int pass = 0; pass < tile.num_passes(); ++pass) {
    const Value row = b.min(tile.row(pass), constant(plan.tile_rows - 1));
    const Value amax = maxima.load(group_of_row(b, plan.groups, row));
    store_codes(b, args, plan, tile, pass, tile.smoothed(pass, mean), inverse_scale(b, amax));
  }
}

}  // namespace

ir::Function generate_amax(const ForwardPlan& plan, const QuantizePlan& operand) {
  const std::string name = "amax_" + operand.operand;
  Builder b(name, kPrepareThreads);
  const KernelArgs args(b, *plan.find_launch(name));
  RowTile tile(b, args, operand,
               {b.emit1(Op::kBlockX, {}), b.emit1(Op::kBlockY, {}), b.emit1(Op::kBlockZ, {})});
  tile.load();
  std::vector<Value> mean;
  if (operand.subtract_mean) {
    const SharedMean shared(b, args, operand);
    shared.compute(tile);
    b.barrier();
    mean = shared.load(tile);
  }
  Value amax = constant_f32(0);
  for (int pass = 0; pass < tile.num_passes(); ++pass) {
    amax = b.fmax(amax, tile.row_amax(tile.smoothed(pass, mean)));
  }
  b.when(b.equal(tile.lanes().lane, constant(0)), [&] {
    b.emit(Op::kRedGlobalMaxU32,
           {amax_address(b, args, operand, tile), constant(0), b.emit1(Op::kBitsF32, {amax})});
  });
  return b.finish(plan.target->sm);
}

void quantize_rows(Builder& b, const KernelArgs& args, const QuantizePlan& operand,
                   const TilePlace& place) {
  RowTile tile(b, args, operand, place);
  tile.load();
  if (operand.clears_counters) clear_counters(b, args, tile);
  // The mean and the maxima share a barrier.
  const bool has_mean = operand.subtract_mean || operand.lse_bias;
  std::optional<SharedMean> shared;
  std::optional<GroupMaxima> maxima;
  if (has_mean) shared.emplace(b, args, operand).compute(tile);
  if (!operand.groups.is_dynamic()) maxima.emplace(b, operand).clear();
  if (shared || maxima) b.barrier();

  std::vector<Value> mean;
  if (shared) mean = shared->load(tile);
  if (operand.subtract_mean) shared->store(tile);
  if (maxima) {
    quantize_groups(b, args, operand, tile, mean, *maxima);
  } else {
    quantize_with_one_scale(b, args, operand, tile, mean);
  }
}

}  // namespace sagejit
