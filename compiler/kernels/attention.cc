#include <cmath>
#include <limits>
#include <numbers>
#include <optional>

#include "compiler/ir/tile.h"
#include "compiler/kernels/generators.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/kernels/mask_regions.h"
#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/value_accumulator.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

constexpr int kMmaRows = 16;
constexpr int kMmaColumns =
    8;  // n of every product: the keys of a score tile, the columns of an O tile
constexpr int kKStepBytes = 32;  // k of the int8 products
constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// One block computes block_m query rows of one (batch, head); each warp its own rows against every
// key tile. Shared memory: the block's Q tile, then a ring of K and V tiles.
class AttentionKernel {
 public:
  explicit AttentionKernel(const ForwardPlan& plan)
      : plan_(plan),
        variant_(plan.variant),
        schedule_(plan.schedule),
        b_("attention", plan.schedule.num_warps * 32, plan.schedule.blocks_per_sm),
        args_(b_, *plan.find_launch("attention")),
        num_row_tiles_(schedule_.block_m / schedule_.num_warps / kMmaRows),
        num_key_tiles_(schedule_.block_n / kMmaColumns),
        batch_(b_.emit1(Op::kBlockZ, {})),
        head_(b_.emit1(Op::kBlockY, {})),
        kv_head_(b_.div(head_, b_.div(args_["hq"], args_["hkv"]))),
        first_row_(first_row()) {}

  ir::Function generate() {
    const MaskRegions regions(b_, variant_.mask, args_["m"], args_["n"],
                              {first_row_, schedule_.block_m}, schedule_.block_n);
    q_address_ = b_.smem("q", q_tile(variant_, schedule_).bytes(), 128);
    load_q();
    ir::CopyRing ring(b_, "kv", schedule_.stages, stage_bytes());
    const ir::CopyRing::Load load_kv = kv_loader();
    ring.fill(regions.first_tile(), regions.end_tile(), load_kv);
    load_row_state(regions);

    const ir::FragmentReader k_reader(b_, k_tile(variant_, schedule_),
                                      ir::FragmentReader::Order::kChunksFirst, false);
    const ir::FragmentReader v_reader(b_, v_tile(variant_, schedule_),
                                      ir::FragmentReader::Order::kRowsFirst, true);
    OnlineSoftmax softmax(b_, num_row_tiles_, variant_.row_sum == RowSum::kExact);
    ValueAccumulator o(b_, variant_, num_row_tiles_, padded_value_head_dim(variant_) / kMmaColumns);
    load_q_fragments();
    for (const TileRun& run : regions.runs()) {
      b_.comment(run.masked ? "key tiles that need the mask" : "key tiles that every row sees");
      b_.loop(run.begin, run.end, constant(1), [&](Value tile) {
        const Value slot = ring.next(tile, regions.end_tile(), load_kv);
        Scores s = scores(k_reader, slot);  // S = Q K^T
        const Dequantization dequantization = dequantize(s, tile);
        if (run.masked) apply_mask(s, tile);
        o.shrink(softmax.step(s, dequantization, run.masked).shrink);               // P = 2^(S - m)
        o.accumulate(s, v_reader, v_reader.at(b_.add(slot, constant(k_bytes()))));  // O += P V
      });
    }
    store(softmax, o);
    return b_.finish(plan_.target->sm);
  }

 private:
  int k_bytes() const { return k_tile(variant_, schedule_).bytes(); }
  int stage_bytes() const { return k_bytes() + v_tile(variant_, schedule_).bytes(); }

  // Under a causal mask the rows with the most keys come first, so that the last blocks are short.
  Value first_row() {
    Value block = b_.emit1(Op::kBlockX, {});
    const MaskKind kind = variant_.mask.kind;
    if (kind == MaskKind::kCausalTopLeft || kind == MaskKind::kCausalBottomRight) {
      block = b_.sub(b_.sub(b_.emit1(Op::kGridX, {}), constant(1)), block);
    }
    return b_.mul(block, constant(schedule_.block_m));
  }

  // Address of a row of int8 codes, contiguous [b, heads, tokens, d padded].
  Value codes_row(const std::string& operand, Value head, Value heads, Value tokens, Value token) {
    const Value row_bytes = b_.zext(constant(padded_head_dim(variant_)));
    const Value batch_head = b_.add(b_.mul(batch_, heads), head);
    const Value row = b_.add64(b_.mul64(b_.zext(batch_head), b_.zext(tokens)), b_.zext(token));
    return b_.add64(args_[operand + "_codes"], b_.mul64(row, row_bytes));
  }

  void load_q() {
    const TileLayout layout = q_tile(variant_, schedule_);
    const ir::TileLoader loader(b_, layout, layout.row_chunks,
                                b_.zext(constant(layout.row_bytes())));
    loader.load(q_address_, codes_row("q", head_, args_["hq"], args_["m"], first_row_),
                b_.sub(args_["m"], first_row_));
  }

  ir::CopyRing::Load kv_loader() {
    const TileLayout k = k_tile(variant_, schedule_), v = v_tile(variant_, schedule_);
    const int value_chunks = variant_.value_head_dim * 2 / kChunkBytes;
    k_loader_.emplace(b_, k, k.row_chunks, b_.zext(constant(k.row_bytes())));
    v_loader_.emplace(b_, v, value_chunks, args_["v_stride_n"]);
    const Value k_head = codes_row("k", kv_head_, args_["hkv"], args_["n"], constant(0));
    const Value v_head = row_address(b_, args_, "v", "n", {batch_, kv_head_, constant(0)});
    return [this, k, k_head, v_head](Value slot, Value tile) {
      const Value key = b_.mul(tile, constant(schedule_.block_n));
      const Value valid = b_.sub(args_["n"], key);
      const Value k_row = b_.mul64(b_.zext(key), b_.zext(constant(k.row_bytes())));
      k_loader_->load(slot, b_.add64(k_head, k_row), valid);
      const Value v_row = b_.mul64(b_.zext(key), args_["v_stride_n"]);
      v_loader_->load(b_.add(slot, constant(k_bytes())), b_.add64(v_head, v_row), valid);
    };
  }

  // The query row of thread `tid` that is its i-th (online_softmax.h).
  Value row_of_thread(Value tid, int i) {
    const Value in_warp =
        b_.add(b_.shr(b_.bit_and(tid, constant(31)), 2), constant(i / 2 * kMmaRows + i % 2 * 8));
    const Value warp_row = b_.mul(b_.shr(tid, 5), constant(num_row_tiles_ * kMmaRows));
    return b_.add(first_row_, b_.add(warp_row, in_warp));
  }

  // This thread's rows: their scale factors and the keys they see.
  void load_row_state(const MaskRegions& regions) {
    const Value scale_log2 = constant_f32(static_cast<float>(scale() * std::numbers::log2e));
    const Value batch_head = b_.add(b_.mul(batch_, args_["hq"]), head_);
    const Value scales = scales_base("q", batch_head);
    const Value last_row = b_.sub(args_["m"], constant(1));
    for (int i = 0; i < rows_of_thread(num_row_tiles_); ++i) {
      const Value row = row_of_thread(b_.tid(), i);
      bounds_.push_back(regions.bounds_of(row));
      const Value index = scale_index(plan_.q.groups, b_.min(row, last_row));
      const Value scale_q = b_.emit1(Op::kLdGlobalF32, {b_.address(scales, index, 4), constant(0)});
      row_factors_.push_back(b_.fmul(scale_q, scale_log2));
    }
  }

  Value scales_base(const std::string& operand, Value batch_head) {
    const Value offset = b_.mul64(b_.zext(batch_head), args_[operand + "_scales_stride_h"]);
    return b_.add64(args_[operand + "_scales"], b_.mul64(offset, b_.zext(constant(4))));
  }

  // scale_groups.h: index(t) = (t / span) groups + (t mod 8) groups / 8
  Value scale_index(const ScaleGroups& groups, Value token) {
    if (groups.is_dynamic()) return constant(0);
    const Value run = b_.mul(b_.div(token, constant(groups.span)), constant(groups.groups));
    if (groups.groups == 1) return run;
    return b_.add(run,
                  b_.div(b_.mul(b_.rem(token, constant(8)), constant(groups.groups)), constant(8)));
  }

  void load_q_fragments() {
    q_reader_.emplace(b_, q_tile(variant_, schedule_), ir::FragmentReader::Order::kRowsFirst,
                      false);
    const int rows = num_row_tiles_ * kMmaRows;
    const Value warp_rows =
        b_.add(q_address_, b_.mul(b_.warp(), constant(rows * padded_head_dim(variant_))));
    q_addresses_ = q_reader_->at(warp_rows);
    if (!schedule_.q_in_registers) return;
    // Q came with the ring's first stage; a stage further back is waited for here.
    b_.emit(Op::kCpAsyncWait, {constant(schedule_.stages - 2)});
    b_.barrier();
    for (int step = 0; step < num_k_steps(); ++step) {
      for (int row = 0; row < num_row_tiles_; ++row) q_fragments_.push_back(read_q(row, step));
    }
  }

  int num_k_steps() const { return padded_head_dim(variant_) / kKStepBytes; }

  std::vector<Value> read_q(int row_tile, int k_step) {
    return q_reader_->read(q_addresses_, row_tile * kMmaRows, 2 * k_step);
  }

  // Raw scores, s32 -> f32 exactly: |q . k| <= 127^2 * 256 < 2^24.
  Scores scores(const ir::FragmentReader& k_reader, Value slot) {
    const std::vector<Value> k_addresses = k_reader.at(slot);
    Scores s(num_row_tiles_,
             std::vector<std::vector<Value>>(num_key_tiles_, std::vector<Value>(4, constant(0))));
    for (int step = 0; step < num_k_steps(); ++step) {
      std::vector<std::vector<Value>> q;
      for (int row = 0; row < num_row_tiles_; ++row) {
        q.push_back(schedule_.q_in_registers ? q_fragments_[step * num_row_tiles_ + row]
                                             : read_q(row, step));
      }
      for (int tile = 0; tile < num_key_tiles_; tile += 2) {
        const std::vector<Value> k = k_reader.read(k_addresses, tile * kMmaColumns, 2 * step);
        for (int half = 0; half < 2; ++half) {
          for (int row = 0; row < num_row_tiles_; ++row) {
            std::vector<Value>& c = s[row][tile + half];
            std::vector<Value> operands = q[row];
            operands.insert(operands.end(), {k[2 * half], k[2 * half + 1]});
            operands.insert(operands.end(), c.begin(), c.end());
            c = b_.emit(Op::kMmaS8, operands);
          }
        }
      }
    }
    for (auto& row : s) {
      for (auto& tile : row) {
        for (Value& element : tile) element = b_.emit1(Op::kF32FromS32, {element});
      }
    }
    return s;
  }

  // Key scales of a tile: a factor per run of key tiles where few scales cover it, otherwise
  // multiplied into the scores here.
  Dequantization dequantize(Scores& s, Value tile) {
    const ScaleGroups& groups = plan_.k.groups;
    const Value scales = scales_base("k", b_.add(b_.mul(batch_, args_["hkv"]), kv_head_));
    const Value first_key = b_.mul(tile, constant(schedule_.block_n));
    const Value column = b_.mul(b_.bit_and(b_.lane(), constant(3)), constant(2));
    const auto load = [&](Value token) {
      const Value address = b_.address(scales, scale_index(groups, token), 4);
      return b_.emit1(Op::kLdGlobalF32, {address, constant(0)});
    };
    const int block_n = schedule_.block_n;
    const bool aligned = groups.is_dynamic() || groups.span % block_n == 0 ||
                         (groups.span >= kMmaColumns && block_n % groups.span == 0);
    if (aligned) {
      const int run_keys = groups.is_dynamic() ? block_n : std::min(groups.span, block_n);
      std::vector<Value> factors;
      for (int key = 0; key < block_n; key += run_keys) {
        factors.push_back(load(b_.add(b_.add(first_key, constant(key)), column)));
      }
      return {row_factors_, factors};
    }
    for (int key_tile = 0; key_tile < num_key_tiles_; ++key_tile) {
      const Value token = b_.add(b_.add(first_key, constant(key_tile * kMmaColumns)), column);
      std::vector<Value> factors;
      if (groups.span == 1) {
        factors = b_.emit(Op::kLdGlobalV2F32, {b_.address(scales, token, 4), constant(0)});
      } else {
        factors.assign(2, load(token));
      }
      for (auto& row : s) {
        for (int e = 0; e < 4; ++e) row[key_tile][e] = b_.fmul(row[key_tile][e], factors[e % 2]);
      }
    }
    return {row_factors_, {}};
  }

  void apply_mask(Scores& s, Value tile) {
    const Value first_column = b_.add(b_.mul(tile, constant(schedule_.block_n)),
                                      b_.mul(b_.bit_and(b_.lane(), constant(3)), constant(2)));
    for (size_t row = 0; row < bounds_.size(); ++row) {
      const Value high = b_.sub(bounds_[row].high, first_column);
      Value low;
      if (bounds_[row].low) low = b_.sub(bounds_[row].low, first_column);
      for (int key_tile = 0; key_tile < num_key_tiles_; ++key_tile) {
        for (int e = 0; e < 2; ++e) {
          const Value key = constant(key_tile * kMmaColumns + e);
          Value visible = b_.emit1(Op::kGeS32, {high, key});
          if (low) visible = b_.both(visible, b_.less_equal(low, key));
          Value& score = s[row / 2][key_tile][2 * (row % 2) + e];
          score = b_.select(visible, score, constant_f32(kNegativeInfinity));
        }
      }
    }
  }

  void store(const OnlineSoftmax& softmax, const ValueAccumulator& o) {
    const std::vector<Value> sums = o.sums_p() ? o.row_sum() : softmax.row_sum();
    const std::vector<Value> maxima = softmax.row_max();
    const Value tid = b_.emit1(Op::kTidAgain, {});
    for (int i = 0; i < rows_of_thread(num_row_tiles_); ++i) {
      const Value empty = b_.emit1(Op::kEqF32, {sums[i], constant_f32(0)});
      const Value inverse = b_.select(empty, constant_f32(0), b_.fdiv(constant_f32(1), sums[i]));
      const Value row = row_of_thread(tid, i);
      const Value quad_lane = b_.bit_and(tid, constant(3));
      b_.when(b_.less(row, args_["m"]), [&] {
        store_row(o, i, row, inverse, b_.mul(quad_lane, constant(2)));
        if (!variant_.lse) return;
        // The quad's threads hold the same row: one writes.
        b_.when(b_.equal(quad_lane, constant(0)), [&] {
          store_lse(
              row, b_.select(empty, constant_f32(kNegativeInfinity), lse(row, maxima[i], sums[i])));
        });
      });
    }
  }

  void store_row(const ValueAccumulator& o, int i, Value row, Value inverse, Value column) {
    const int element_bytes = bits_of(variant_.output) / 8;
    const Value address =
        b_.address(row_address(b_, args_, "o", "m", {batch_, head_, row}), column, element_bytes);
    for (int tile = 0; tile < variant_.value_head_dim / kMmaColumns; ++tile) {
      const std::vector<Value> e = o.elements(i / 2, tile);
      const Value x = b_.fmul(e[2 * (i % 2)], inverse), y = b_.fmul(e[2 * (i % 2) + 1], inverse);
      const Value offset = constant(tile * kMmaColumns * element_bytes);
      if (variant_.output == DType::kF32) {
        b_.emit(Op::kStGlobalV2F32, {address, offset, x, y});
      } else {
        const Op pack = variant_.output == DType::kF16 ? Op::kPackF16 : Op::kPackBF16;
        b_.emit(Op::kStGlobalI32, {address, offset, b_.emit1(pack, {x, y})});
      }
    }
  }

  // LSE = ln 2 (m + log2 l) + scale q . mean(K), natural logarithm of the true scores.
  Value lse(Value row, Value maximum, Value sum) {
    const Value smoothed = b_.fmul(b_.fadd(maximum, b_.emit1(Op::kLg2Approx, {sum})),
                                   constant_f32(static_cast<float>(std::numbers::ln2)));
    if (!plan_.q.lse_bias) return smoothed;
    const Value batch_head = b_.add(b_.mul(batch_, args_["hq"]), head_);
    const Value index = b_.add64(b_.mul64(b_.zext(batch_head), b_.zext(args_["m"])), b_.zext(row));
    const Value address = b_.add64(args_["lse_bias"], b_.mul64(index, b_.zext(constant(4))));
    const Value bias = b_.emit1(Op::kLdGlobalF32, {address, constant(0)});
    return b_.fma(bias, constant_f32(static_cast<float>(scale())), smoothed);
  }

  void store_lse(Value row, Value value) {
    const Value head = b_.add64(b_.mul64(b_.zext(batch_), args_["lse_stride_b"]),
                                b_.mul64(b_.zext(head_), args_["lse_stride_h"]));
    const Value address = b_.address(b_.add64(args_["lse"], head), row, 4);
    b_.emit(Op::kStGlobalF32, {address, constant(0), value});
  }

  double scale() const { return variant_.score.scale.value_or(1.0 / std::sqrt(variant_.head_dim)); }

  const ForwardPlan& plan_;
  const Variant& variant_;
  const Schedule& schedule_;
  Builder b_;
  KernelArgs args_;
  int num_row_tiles_, num_key_tiles_;
  Value batch_, head_, kv_head_, first_row_;
  Value q_address_;
  std::optional<ir::TileLoader> k_loader_, v_loader_;
  std::optional<ir::FragmentReader> q_reader_;
  std::vector<Value> q_addresses_;
  std::vector<std::vector<Value>> q_fragments_;  // [k step][row tile]
  std::vector<MaskRegions::Bounds> bounds_;      // the keys that this thread's rows see
  std::vector<Value> row_factors_;               // scale log2(e) dq
};

}  // namespace

ir::Function generate_attention(const ForwardPlan& plan) {
  return AttentionKernel(plan).generate();
}

std::vector<ir::Function> generate_kernels(const ForwardPlan& plan) {
  std::vector<ir::Function> kernels;
  for (const KernelLaunch& launch : plan.plan.launches) {
    if (launch.kernel == "k_mean") kernels.push_back(generate_k_mean(plan));
    for (const QuantizePlan* operand : {&plan.q, &plan.k}) {
      if (launch.kernel == "amax_" + operand->operand)
        kernels.push_back(generate_amax(plan, *operand));
      if (launch.kernel == "quantize_" + operand->operand) {
        kernels.push_back(generate_quantize(plan, *operand));
      }
    }
    if (launch.kernel == "attention") kernels.push_back(generate_attention(plan));
  }
  return kernels;
}

}  // namespace sagejit
