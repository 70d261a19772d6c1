#include <optional>

#include "compiler/ir/tile.h"
#include "compiler/kernels/generators.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/kernels/mask_regions.h"
#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/output.h"
#include "compiler/kernels/scale_factors.h"
#include "compiler/kernels/scores.h"
#include "compiler/kernels/value_accumulator.h"
#include "compiler/kernels/value_tiles.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::Op;
using ir::Value;

namespace {

constexpr int kMmaRows = 16;
constexpr int kMmaColumns =
    8;  // n of every product: the keys of a score tile, the columns of an O tile

// One block computes block_m query rows of one (batch, head), or of heads that are packed; each
// warp its own rows against every key tile. Shared memory: the block's Q tile, then a ring of K and
// V tiles.
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
        row_bytes_(qk_row_bytes(variant_, schedule_)),
        heads_(b_, plan, args_),
        batch_(b_.emit1(Op::kBlockZ, {})),
        head_(first_head()),
        kv_head_(b_.div(head_, b_.div(args_["hq"], args_["hkv"]))),
        first_row_(first_row()) {}

  ir::Function generate() {
    const MaskRegions regions(b_, variant_.mask, args_["m"], args_["n"],
                              heads_.tokens_of(first_row_, schedule_.block_m), schedule_.block_n);
    q_address_ = b_.smem("q", q_tile(variant_, schedule_).bytes(), 128);
    load_q();
    ir::CopyRing ring(b_, "kv", schedule_.stages, key_stage_bytes(variant_, schedule_));
    const QueryTile tile = {batch_, head_, kv_head_, first_row_};
    const ValueTiles values(b_, plan_, args_, tile);
    if (plan_.k.group_scales) k_factors_.emplace(b_, plan_, args_, tile);
    const ir::CopyRing::Load load_kv = kv_loader(values);
    ring.fill(regions.first_tile(), regions.end_tile(), load_kv);
    const std::vector<Value> row_numbers = rows_of_thread(b_, tile, num_row_tiles_, b_.tid());
    std::vector<Value> tokens, row_factors;
    for (const Value row : row_numbers) {
      tokens.push_back(heads_.place_of(tile, row).token);
      row_factors.push_back(load_row_factor(b_, plan_, args_, tile, row));
    }
    const QueryRows rows(b_, regions, tokens, row_factors);
    std::optional<KeyScales> key_scales;  // else they are factors of the products
    if (!k_factors_) {
      key_scales.emplace(KeyScales::global(b_, plan_, args_, tile, schedule_.block_n));
    }
    const Value warp_row =
        b_.add(first_row_, b_.mul(b_.warp(), constant(num_row_tiles_ * kMmaRows)));
    std::optional<MeanScores> mean_scores;
    if (plan_.mean_scores.exists) {
      mean_scores.emplace(MeanScores::global(b_, plan_, args_, tile, warp_row));
    }
    if (plan_.q.group_scales) {
      q_factors_ = load_query_scale_factors(b_, plan_, args_, tile, warp_row, num_row_tiles_);
    }

    const ir::FragmentReader k_reader(b_, k_tile(variant_, schedule_),
                                      ir::FragmentReader::Order::kChunksFirst, false);
    OnlineSoftmax softmax(b_, plan_, num_row_tiles_, variant_.row_sum == RowSum::kExact,
                          largest_factors(tile, row_factors));
    ValueAccumulator o(b_, variant_, num_row_tiles_, padded_value_head_dim(variant_) / kMmaColumns);
    load_q_fragments();
    for (const TileRun& run : regions.runs()) {
      b_.comment(run.masked ? "key tiles that need the mask" : "key tiles that every row sees");
      b_.loop(run.begin, run.end, constant(1), [&](Value key_tile) {
        const Value slot = ring.next(key_tile, regions.end_tile(), load_kv);
        const Value first_key = b_.mul(key_tile, constant(schedule_.block_n));
        Dequantization factors = {rows.factors(), {}};
        if (key_scales) factors.key_factors = key_scales->load(first_key);
        Scores s = scores(k_reader, slot);  // S = Q K^T
        if (key_scales) key_scales->apply(s, first_key);
        if (mean_scores) factors = mean_scores->add_to(s, factors, first_key);
        if (run.masked) rows.mask(s, first_key);
        o.rescale(softmax.step(s, factors, run.masked));                    // P = 2^(S - m)
        o.accumulate(s, values, values.at(v_of(slot), v_scales_of(slot)));  // O += P V
      });
    }
    store(tile, softmax, o, values);
    return b_.finish(plan_.target->sm);
  }

 private:
  // A stage of the ring: the codes of K and of V, then the scales of either, as far as there are
  // any.
  Value v_of(Value slot) { return b_.add(slot, constant(k_tile(variant_, schedule_).bytes())); }
  Value k_scales_of(Value slot) {
    return b_.add(v_of(slot), constant(v_tile(variant_, schedule_).bytes()));
  }
  Value v_scales_of(Value slot) {
    return b_.add(k_scales_of(slot), constant(k_scale_tile_bytes(variant_, schedule_)));
  }

  OnlineSoftmax::LargestFactors largest_factors(const QueryTile& tile,
                                                const std::vector<Value>& row_factors) {
    if (!plan_.k.finds_largest_scale) return {};
    return [this, tile, row_factors] {
      return sagejit::largest_factors(b_, row_factors, load_largest_key_scale(b_, args_, tile));
    };
  }

  Value first_head() {
    const Value pack = b_.emit1(Op::kBlockY, {});
    return plan_.packs_heads() ? b_.mul(pack, args_["packed_heads"]) : pack;
  }

  // Under a causal mask the rows with the most keys come first, so that the last blocks are short.
  Value first_row() {
    Value block = b_.emit1(Op::kBlockX, {});
    const MaskKind kind = variant_.mask.kind;
    if (kind == MaskKind::kCausalTopLeft || kind == MaskKind::kCausalBottomRight) {
      block = b_.sub(b_.sub(b_.emit1(Op::kGridX, {}), constant(1)), block);
    }
    return b_.mul(block, constant(schedule_.block_m));
  }

  // Address of a row of codes, contiguous [b, heads, tokens, d padded].
  Value codes_row(const std::string& operand, Value head, Value heads, Value tokens, Value token) {
    const Value row_bytes = b_.zext(constant(row_bytes_));
    const Value batch_head = b_.add(b_.mul(batch_, heads), head);
    const Value row = b_.add64(b_.mul64(b_.zext(batch_head), b_.zext(tokens)), b_.zext(token));
    return b_.add64(args_[operand + "_codes"], b_.mul64(row, row_bytes));
  }

  void load_q() {
    const TileLayout layout = q_tile(variant_, schedule_);
    const ir::TileLoader loader(b_, layout, layout.row_chunks,
                                b_.zext(constant(layout.row_bytes())));
    loader.load(q_address_, codes_row("q", head_, args_["hq"], args_["m"], first_row_),
                b_.sub(heads_.num_rows(), first_row_));
  }

  ir::CopyRing::Load kv_loader(const ValueTiles& values) {
    const TileLayout k = k_tile(variant_, schedule_);
    k_loader_.emplace(b_, k, k.row_chunks, b_.zext(constant(k.row_bytes())));
    const Value tokens = args_[plan_.k.token_multiple > 1 ? "padded_n" : "n"];
    const Value k_head = codes_row("k", kv_head_, args_["hkv"], tokens, constant(0));
    return [this, &values, k, k_head, tokens](Value slot, Value tile) {
      const Value key = b_.mul(tile, constant(schedule_.block_n));
      const Value k_row = b_.mul64(b_.zext(key), b_.zext(constant(k.row_bytes())));
      k_loader_->load(slot, b_.add64(k_head, k_row), b_.sub(tokens, key));
      if (k_factors_) k_factors_->load(k_scales_of(slot), key);
      values.load(v_of(slot), v_scales_of(slot), tile);
    };
  }

  void load_q_fragments() {
    q_reader_.emplace(b_, q_tile(variant_, schedule_), ir::FragmentReader::Order::kRowsFirst,
                      false);
    const int rows = num_row_tiles_ * kMmaRows;
    const Value warp_rows = b_.add(q_address_, b_.mul(b_.warp(), constant(rows * row_bytes_)));
    q_addresses_ = q_reader_->at(warp_rows);
    if (!schedule_.q_in_registers) return;
    // Q came with the ring's first stage; a stage further back is waited for here.
    b_.emit(Op::kCpAsyncWait, {constant(schedule_.stages - 2)});
    b_.barrier();
    for (int step = 0; step < num_k_steps(); ++step) {
      for (int row = 0; row < num_row_tiles_; ++row) q_fragments_.push_back(read_q(row, step));
    }
  }

  int num_k_steps() const { return row_bytes_ / kQkStepBytes; }

  std::vector<Value> read_q(int row_tile, int k_step) {
    return q_reader_->read(q_addresses_, row_tile * kMmaRows, 2 * k_step);
  }

  // S = Q K^T, of integers biased: all products start from the same four registers.
  Scores scores(const ir::FragmentReader& k_reader, Value slot) {
    const DType code = qk_operand_type(variant_, schedule_);
    const Op product = ir::mma_of(code, code, variant_.qk_accumulator);
    const std::vector<Value> k_addresses = k_reader.at(slot);
    std::vector<std::vector<std::vector<Value>>> s(
        num_row_tiles_, std::vector<std::vector<Value>>(
                            num_key_tiles_, std::vector<Value>(4, score_zero(variant_))));
    Factors k_factors;
    if (k_factors_) k_factors = k_factors_->read(k_scales_of(slot));
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
            if (k_factors_) add_factors(operands, k_factors, {row, tile + half, step});
            c = b_.emit(product, operands);
          }
        }
      }
    }
    return to_scores(s);
  }

  using Factors = std::vector<std::vector<Value>>;  // [tiles that share a register][step]
  struct Product {
    int row_tile, key_tile, step;
  };
  void add_factors(std::vector<Value>& operands, const Factors& k_factors,
                   const Product& at) const {
    operands.insert(
        operands.end(),
        {q_factors_[at.row_tile / 2][at.step], constant(at.row_tile % 2),
         k_factors[at.key_tile / kScaledTiles][at.step], constant(at.key_tile % kScaledTiles)});
  }

  Scores to_scores(const std::vector<std::vector<std::vector<Value>>>& s) {
    Scores result{.tiles = {}, .form = form_of_sums(variant_), .keys = plan_.k.order};
    for (const auto& row : s) {
      result.tiles.emplace_back();
      for (const auto& tile : row) {
        result.tiles.back().push_back(
            {b_.var(tile[0]), b_.var(tile[1]), b_.var(tile[2]), b_.var(tile[3])});
      }
    }
    return result;
  }

  void store(const QueryTile& tile, const OnlineSoftmax& softmax, const ValueAccumulator& o,
             const ValueTiles& values) {
    const Value tid = b_.emit1(Op::kTidAgain, {});
    RowResults results = {
        .rows = rows_of_thread(b_, tile, num_row_tiles_, tid),
        .sums = o.sums_p() ? o.row_sum() : softmax.row_sum(),
        .offsets = softmax.row_offset(),
        .elements = [&](int row_tile,
                        int column_tile) { return o.elements(row_tile, column_tile); },
        .value_scales = {},
        .value_means = {}};
    const Value quad_lane = b_.bit_and(tid, constant(3));
    if (values.is_scaled()) {
      results.value_scales = [&](int column_tile) { return values.scales(quad_lane, column_tile); };
    }
    if (values.has_means()) {
      results.value_means = [&](int column_tile) { return values.means(quad_lane, column_tile); };
    }
    store_output(b_, plan_, args_, tile, results);
  }

  const ForwardPlan& plan_;
  const Variant& variant_;
  const Schedule& schedule_;
  Builder b_;
  KernelArgs args_;
  int num_row_tiles_, num_key_tiles_;
  int row_bytes_;  // of Q's and K's codes
  PackedHeads heads_;
  Value batch_, head_, kv_head_, first_row_;
  Value q_address_;
  std::optional<ir::TileLoader> k_loader_;
  std::optional<ir::FragmentReader> q_reader_;
  std::vector<Value> q_addresses_;
  std::vector<std::vector<Value>> q_fragments_;  // [k step][row tile]
  std::optional<KeyScaleFactors> k_factors_;     // of fp4
  Factors q_factors_;
};

}  // namespace

ir::Function generate_attention_mma_sync(const ForwardPlan& plan) {
  return AttentionKernel(plan).generate();
}

}  // namespace sagejit
