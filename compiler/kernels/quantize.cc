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
  RowTile(Builder& b, const KernelArgs& args, const QuantizePlan& plan)
      : b_(b),
        args_(args),
        plan_(plan),
        lanes_(b, plan.padded_head_dim),
        batch_(b.emit1(Op::kBlockZ, {})),
        head_(b.emit1(Op::kBlockY, {})),
        first_token_(b.mul(b.emit1(Op::kBlockX, {}), constant(plan.tile_rows))) {}

  int num_passes() const {
    return (plan_.tile_rows + lanes_.rows_per_pass - 1) / lanes_.rows_per_pass;
  }
  const RowLanes& lanes() const { return lanes_; }
  Value batch() const { return batch_; }
  Value head() const { return head_; }
  Value first_token() const { return first_token_; }
  Value batch_head() const { return b_.add(b_.mul(batch_, args_["heads"]), head_); }

  // This thread's row of a pass, counted from the tile's first.
  Value row(int pass) const { return b_.add(lanes_.row, constant(pass * lanes_.rows_per_pass)); }
  Value token(int pass) const { return b_.add(first_token_, row(pass)); }
  // A token that exists and belongs to this tile.
  Value in_tensor(int pass) const { return before(args_["tokens"], pass); }
  // A token that has codes: padding too, where the codes have any.
  Value has_codes(int pass) const {
    return before(args_[plan_.core_matrices ? "padded_tokens" : "tokens"], pass);
  }

  // Raw elements of one pass: zeros outside the tensor.
  std::vector<Value> load(int pass) const {
    const std::string_view axis = plan_.operand == "q" ? "m" : "n";
    const Value address =
        b_.address(row_address(b_, args_, plan_.operand, axis, {batch_, head_, token(pass)}),
                   lanes_.first, bits_of(plan_.input) / 8);
    const Value valid = b_.both(in_tensor(pass), b_.less(lanes_.first, constant(plan_.head_dim)));
    return load_elements(b_, plan_.input, address, valid);
  }

  // x - mean inside the tensor, 0 outside.
  std::vector<Value> smooth(int pass, std::vector<Value> x, const std::vector<Value>& mean) const {
    if (mean.empty()) return x;
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
  Value batch_, head_, first_token_;
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
        address_(b.smem("amax", count_ * 4)) {
    b.loop(b.tid(), constant(count_), constant(b.block_threads()), [&](Value i) {
      b.emit(Op::kStSharedI32, {b.add(address_, b.shl(i, 2)), constant(0), constant(0)});
    });
    b.barrier();
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
  const Value head_base = b.add64(
      args[plan.operand + "_scales"],
      b.mul64(b.mul64(b.zext(tile.batch_head()), args["scales_stride_h"]), b.zext(constant(4))));
  const Value first_group =
      b.mul(b.div(tile.first_token(), constant(groups.span)), constant(groups.groups));
  b.loop(b.tid(), constant(maxima.count()), constant(b.block_threads()), [&](Value group) {
    const Value token = b.add(tile.first_token(),
                              b.mul(b.div(group, constant(groups.groups)), constant(groups.span)));
    b.when(b.less(token, args["tokens"]), [&] {
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
  if (plan.core_matrices) {
    const Value first_row = b.mul64(b.zext(tile.batch_head()), b.zext(args["padded_tokens"]));
    const Value head = b.add64(codes, b.mul64(first_row, row_bytes));
    return token_rows_address(b, head, tile.token(pass), tile.lanes().first, plan.padded_head_dim);
  }
  const Value first_row = b.mul64(b.zext(tile.batch_head()), b.zext(args["tokens"]));
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

void store_mean(Builder& b, const KernelArgs& args, const QuantizePlan& plan, const RowTile& tile,
                const std::vector<Value>& mean) {
  const Value first_row_of_head =
      b.equal(b.bit_or(tile.first_token(), tile.lanes().row), constant(0));
  b.when(b.both(first_row_of_head, b.less(tile.lanes().first, constant(plan.head_dim))), [&] {
    const Value row = b.address(args["k_mean"], tile.batch_head(), plan.head_dim * 4);
    const Value address = b.address(row, tile.lanes().first, 4);
    for (int i = 0; i < kLaneElements; i += 2) {
      b.emit(Op::kStGlobalV2F32, {address, constant(i * 4), mean[i], mean[i + 1]});
    }
  });
}

// This thread's eight channels of the mean of the K head that the Q head attends to.
std::vector<Value> load_mean_for_q(Builder& b, const KernelArgs& args, const QuantizePlan& plan,
                                   const RowTile& tile) {
  const Value kv_head = b.div(tile.head(), b.div(args["heads"], args["hkv"]));
  const Value row_index = b.add(b.mul(tile.batch(), args["hkv"]), kv_head);
  const Value row = b.address(args["k_mean"], row_index, plan.head_dim * 4);
  const Value address = b.address(row, tile.lanes().first, 4);
  std::vector<ir::Var> mean;
  for (int i = 0; i < kLaneElements; ++i) mean.push_back(b.var(constant_f32(0)));
  b.when(b.less(tile.lanes().first, constant(plan.head_dim)), [&] {
    for (int i = 0; i < kLaneElements; i += 2) {
      const std::vector<Value> pair = b.emit(Op::kLdGlobalV2F32, {address, constant(i * 4)});
      b.set(mean[i], pair[0]);
      b.set(mean[i + 1], pair[1]);
    }
  });
  std::vector<Value> values;
  for (const ir::Var& variable : mean) values.push_back(b.get(variable));
  return values;
}

// lse_bias[b, hq, m] = q . mean(K): what smoothing took out of the row's scores, before scaling.
void store_lse_bias(Builder& b, const KernelArgs& args, const RowTile& tile, int pass,
                    const std::vector<Value>& x, const std::vector<Value>& mean) {
  Value dot = constant_f32(0);
  for (int i = 0; i < kLaneElements; ++i) dot = b.fma(x[i], mean[i], dot);
  dot = reduce_row(b, tile.lanes(), dot, Op::kAddF32);
  b.when(b.both(tile.in_tensor(pass), b.equal(tile.lanes().lane, constant(0))), [&] {
    const Value row = b.add64(b.mul64(b.zext(tile.batch_head()), b.zext(args["tokens"])),
                              b.zext(tile.token(pass)));
    const Value address = b.add64(args["lse_bias"], b.mul64(row, b.zext(constant(4))));
    b.emit(Op::kStGlobalF32, {address, constant(0), dot});
  });
}

}  // namespace

ir::Function generate_amax(const ForwardPlan& plan, const QuantizePlan& operand) {
  const std::string name = "amax_" + operand.operand;
  Builder b(name, kPrepareThreads);
  const KernelArgs args(b, *plan.find_launch(name));
  const RowTile tile(b, args, operand);
  std::vector<Value> mean;
  if (operand.subtract_mean) mean = load_mean(b, args, tile.lanes(), operand.head_dim);
  Value amax = constant_f32(0);
  for (int pass = 0; pass < tile.num_passes(); ++pass) {
    amax = b.fmax(amax, tile.row_amax(tile.smooth(pass, tile.load(pass), mean)));
  }
  b.when(b.equal(tile.lanes().lane, constant(0)), [&] {
    b.emit(Op::kRedGlobalMaxU32,
           {amax_address(b, args, operand, tile), constant(0), b.emit1(Op::kBitsF32, {amax})});
  });
  return b.finish(plan.target->sm);
}

ir::Function generate_quantize(const ForwardPlan& plan, const QuantizePlan& operand) {
  const std::string name = "quantize_" + operand.operand;
  Builder b(name, kPrepareThreads);
  const KernelArgs args(b, *plan.find_launch(name));
  const RowTile tile(b, args, operand);
  std::vector<Value> mean;
  if (operand.subtract_mean) mean = load_mean(b, args, tile.lanes(), operand.head_dim);
  if (operand.subtract_mean) store_mean(b, args, operand, tile, mean);
  if (operand.clears_counters) clear_counters(b, args, tile);

  std::vector<std::vector<Value>> rows;
  for (int pass = 0; pass < tile.num_passes(); ++pass) rows.push_back(tile.load(pass));
  if (operand.lse_bias) {
    const std::vector<Value> k_mean = load_mean_for_q(b, args, operand, tile);
    for (int pass = 0; pass < tile.num_passes(); ++pass) {
      store_lse_bias(b, args, tile, pass, rows[pass], k_mean);
    }
  }
  for (int pass = 0; pass < tile.num_passes(); ++pass) {
    rows[pass] = tile.smooth(pass, rows[pass], mean);
  }

  if (operand.groups.is_dynamic()) {
    const Value amax =
        b.emit1(Op::kLdGlobalF32, {amax_address(b, args, operand, tile), constant(0)});
    store_single_scale(b, args, operand, tile, amax);
    const Value inverse = inverse_scale(b, amax);
    for (int pass = 0; pass < tile.num_passes(); ++pass) {
      store_codes(b, args, operand, tile, pass, rows[pass], inverse);
    }
    return b.finish(plan.target->sm);
  }
  const GroupMaxima maxima(b, operand);
  const Value is_first_lane = b.equal(tile.lanes().lane, constant(0));
  for (int pass = 0; pass < tile.num_passes(); ++pass) {
    const Value contributes = b.both(is_first_lane, tile.in_tensor(pass));
    maxima.contribute(tile.row(pass), contributes, tile.row_amax(rows[pass]));
  }
  b.barrier();
  store_scales(b, args, operand, tile, maxima);
  for (int pass = 0; pass < tile.num_passes(); ++pass) {
    const Value row = b.min(tile.row(pass), constant(operand.tile_rows - 1));
    const Value amax = maxima.load(group_of_row(b, operand.groups, row));
    store_codes(b, args, operand, tile, pass, rows[pass], inverse_scale(b, amax));
  }
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
