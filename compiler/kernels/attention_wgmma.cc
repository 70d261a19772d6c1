#include <algorithm>

#include "compiler/ir/bulk_ring.h"
#include "compiler/kernels/generators.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/kernels/mask_regions.h"
#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/output.h"
#include "compiler/kernels/scores.h"
#include "compiler/kernels/wgmma_operands.h"
#include "compiler/layout/core_matrix.h"

namespace sagejit {

using ir::Builder;
using ir::BulkRing;
using ir::constant;
using ir::Op;
using ir::Value;
using ir::Var;

namespace {

constexpr int kGroupThreads = 128;  // of a warpgroup
constexpr int kGroupWarps = 4;
constexpr int kGroupRows = 64;  // rows of its products
constexpr int kQkStepBytes = 32;

// One warpgroup loads, the others compute 64 query rows each; the block stays and takes one query
// tile after the other, so that loads of the next run under the end of the last.
//
// Shared memory: Q of each consumer, rings of K and V tiles; all as core matrices (core_matrix.h).
class WgmmaAttention {
 public:
  explicit WgmmaAttention(const ForwardPlan& plan)
      : plan_(plan),
        variant_(plan.variant),
        schedule_(plan.schedule),
        num_consumers_(schedule_.num_warps / kGroupWarps),
        b_("attention", (num_consumers_ + 1) * kGroupThreads, 1),
        args_(b_, *plan.find_launch("attention")),
        q_ring_(b_, "q", num_consumers_, q_bytes(), kGroupWarps),
        k_ring_(b_, "k", schedule_.stages, k_bytes(), schedule_.num_warps),
        v_ring_(b_, "v", schedule_.stages, v_bytes(), schedule_.num_warps),
        group_(b_.emit1(Op::kShflI32, {b_.shr(b_.tid(), 7), constant(0)})) {}

  ir::Function generate() {
    b_.when(b_.equal(b_.tid(), constant(0)), [&] {
      for (const BulkRing* ring : {&q_ring_, &k_ring_, &v_ring_}) ring->initialize();
      b_.emit(Op::kMbarrierInitFence, {});
    });
    b_.barrier();
    b_.when(
        b_.equal(group_, constant(num_consumers_)), [&] { load(); }, [&] { compute(); });
    return b_.finish(plan_.target->sm);
  }

 private:
  // A query tile of the block, and the key tiles that any of its rows sees.
  struct Work {
    QueryTile tile;
    Value batch_head, batch_kv_head;
  };

  int q_bytes() const { return kGroupRows * padded_head_dim(variant_); }
  int k_bytes() const { return schedule_.block_n * padded_head_dim(variant_); }
  int v_bytes() const { return schedule_.block_n * value_row_bytes(); }
  int value_row_bytes() const {
    return padded_value_head_dim(variant_) * bits_of(variant_.v.type) / 8;
  }
  int num_key_tiles() const { return schedule_.block_n / kFragmentColumns; }
  int num_value_tiles() const { return padded_value_head_dim(variant_) / kFragmentColumns; }

  bool is_causal() const {
    return variant_.mask.kind == MaskKind::kCausalTopLeft ||
           variant_.mask.kind == MaskKind::kCausalBottomRight;
  }

  // Tiles in the order of their numbers: heads in groups whose K and V stay in the L2 cache
  // together; within a group all heads' tiles with the most keys first, so that the last ones are
  // short.
  void for_each_tile(const std::function<void(const Work&)>& body) {
    const Value row_tiles =
        b_.div(b_.add(args_["m"], constant(schedule_.block_m - 1)), constant(schedule_.block_m));
    const Value heads = b_.mul(args_["b"], args_["hq"]);
    const Value group_tiles = b_.mul(args_["group_heads"], row_tiles);
    const Value last_row_tile = b_.sub(row_tiles, constant(1));
    b_.loop(b_.emit1(Op::kBlockX, {}), b_.mul(heads, row_tiles), b_.emit1(Op::kGridX, {}),
            [&](Value number) {
              const Value first_head = b_.mul(b_.div(number, group_tiles), args_["group_heads"]);
              const Value in_group = b_.rem(number, group_tiles);
              const Value group_heads = b_.min(args_["group_heads"], b_.sub(heads, first_head));
              Value row_tile = b_.div(in_group, group_heads);
              if (is_causal()) row_tile = b_.sub(last_row_tile, row_tile);
              const Value batch_head = b_.add(first_head, b_.rem(in_group, group_heads));
              const Value batch = b_.div(batch_head, args_["hq"]);
              const Value head = b_.rem(batch_head, args_["hq"]);
              const Value kv_head = b_.div(head, b_.div(args_["hq"], args_["hkv"]));
              const Value first_row = b_.mul(row_tile, constant(schedule_.block_m));
              body({{batch, head, kv_head, first_row},
                    batch_head,
                    b_.add(b_.mul(batch, args_["hkv"]), kv_head)});
            });
  }

  MaskRegions regions_of(Value first_row, int num_rows) {
    return MaskRegions(b_, variant_.mask, args_["m"], args_["n"], {first_row, num_rows},
                       schedule_.block_n);
  }

  // Address of a (batch, head)'s part of an operand of `row_bytes` a token, `step` tokens padded.
  Value operand_address(const std::string& name, Value batch_head, const std::string& tokens,
                        int step, int row_bytes) {
    const Value padded =
        b_.mul(b_.div(b_.add(args_[tokens], constant(step - 1)), constant(step)), constant(step));
    const Value row = b_.mul64(b_.zext(batch_head), b_.zext(padded));
    return b_.add64(args_[name], b_.mul64(row, b_.zext(constant(row_bytes))));
  }
  Value offset_of(Value token, int row_bytes) {
    return b_.mul64(b_.zext(token), b_.zext(constant(row_bytes)));
  }

  // --- the loading warpgroup: one thread starts all copies
  void load() {
    b_.emit(Op::kRegistersDown, {constant(kLoaderRegisters)});
    b_.when(b_.equal(b_.tid(), constant(num_consumers_ * kGroupThreads)), [&] {
      const BulkRing::Cursor q = q_ring_.cursor(), k = k_ring_.cursor(), v = v_ring_.cursor();
      for_each_tile([&](const Work& work) {
        const int row_bytes = padded_head_dim(variant_);
        const Value q_head =
            operand_address("q_codes", work.batch_head, "m", schedule_.block_m, row_bytes);
        const Value q_rows = b_.add64(q_head, offset_of(work.tile.first_row, row_bytes));
        for (int i = 0; i < num_consumers_; ++i) {
          q_ring_.fill(q, b_.add64(q_rows, b_.zext(constant(i * q_bytes()))), constant(q_bytes()));
        }
        const MaskRegions regions = regions_of(work.tile.first_row, schedule_.block_m);
        const Value k_head =
            operand_address("k_codes", work.batch_kv_head, "n", schedule_.block_n, row_bytes);
        const Value v_head = operand_address("v_codes", work.batch_kv_head, "n", schedule_.block_n,
                                             value_row_bytes());
        b_.loop(regions.first_tile(), regions.end_tile(), constant(1), [&](Value tile) {
          k_ring_.fill(k, b_.add64(k_head, offset_of(tile, k_bytes())), constant(k_bytes()));
          v_ring_.fill(v, b_.add64(v_head, offset_of(tile, v_bytes())), constant(v_bytes()));
        });
      });
    });
  }

  // --- the computing warpgroups
  void compute() {
    b_.emit(Op::kRegistersUp, {constant(consumer_registers(num_consumers_))});
    const BulkRing::Cursor q = {b_.var(group_), b_.var(constant(0))};
    const BulkRing::Cursor k = k_ring_.cursor(), v = v_ring_.cursor();
    for_each_tile([&](const Work& work) {
      QueryTile rows = work.tile;
      rows.first_row = b_.add(rows.first_row, b_.mul(group_, constant(kGroupRows)));
      compute_rows(work, rows, q, k, v);
    });
  }

  void compute_rows(const Work& work, const QueryTile& tile, const BulkRing::Cursor& q,
                    const BulkRing::Cursor& k, const BulkRing::Cursor& v) {
    const MaskRegions block = regions_of(work.tile.first_row, schedule_.block_m);
    const MaskRegions regions = regions_of(tile.first_row, kGroupRows);
    const Value tid = b_.bit_and(b_.tid(), constant(kGroupThreads - 1));
    const QueryRows rows(b_, plan_, args_, tile, regions, 1, tid);
    const KeyScales key_scales(b_, plan_, args_, tile, schedule_.block_n);
    OnlineSoftmax softmax(b_, variant_, 1, true);
    std::vector<Var> o;
    for (int i = 0; i < num_value_tiles() * 4; ++i) o.push_back(b_.var(ir::constant_f32(0)));

    // Tiles that only other warpgroups' rows see.
    const auto skip = [&](Value begin, Value end) {
      b_.loop(begin, end, constant(1), [&](Value) {
        for (const auto& [ring, cursor] : {std::pair(&k_ring_, &k), {&v_ring_, &v}}) {
          ring->wait(*cursor);
          ring->release(*cursor);
          ring->advance(*cursor);
        }
      });
    };
    q_ring_.wait(q);
    skip(block.first_tile(), regions.first_tile());
    for (const TileRun& run : regions.runs()) {
      b_.comment(run.masked ? "key tiles that need the mask" : "key tiles that every row sees");
      b_.loop(run.begin, run.end, constant(1), [&](Value key_tile) {
        const Value first_key = b_.mul(key_tile, constant(schedule_.block_n));
        const std::vector<Value> key_factors = key_scales.load(first_key);
        Scores s = scores(q, k);  // S = Q K^T
        key_scales.apply(s, first_key);
        if (run.masked) rows.mask(s, first_key);
        Probabilities p;
        rescale(o, softmax.step(s, {rows.factors(), key_factors}, run.masked, p));
        accumulate(o, p, v);  // O += P V
      });
    }
    q_ring_.release(q);
    b_.set(q.round, b_.bit_xor(b_.get(q.round), constant(1)));
    skip(regions.end_tile(), block.end_tile());
    const RowResults results = {
        .sums = softmax.row_sum(), .maxima = softmax.row_max(), .elements = [&](int, int column) {
          std::array<Value, 4> e;
          for (int i = 0; i < 4; ++i) e[i] = b_.get(o[4 * column + i]);
          return e;
        }};
    store_output(b_, plan_, args_, tile, results, softmax.range_log2(), tid);
  }

  // Biased integers: the accumulators start at the bias.
  Scores scores(const BulkRing::Cursor& q, const BulkRing::Cursor& k) {
    k_ring_.wait(k);
    std::vector<Var> s;
    for (int i = 0; i < num_key_tiles() * 4; ++i) s.push_back(b_.var(constant(kBiasedZero)));
    const Value q_rows = token_rows_descriptor(b_, q_ring_.address(q), padded_head_dim(variant_));
    const Value keys = token_rows_descriptor(b_, k_ring_.address(k), padded_head_dim(variant_));
    b_.emit(Op::kWgmmaFence, {});
    for (int byte = 0; byte < padded_head_dim(variant_); byte += kQkStepBytes) {
      const int offset = byte / kCoreRowBytes * kCoreBytes;
      b_.wgmma(Op::kWgmmaS8, s, {moved(b_, q_rows, offset)}, moved(b_, keys, offset), true);
    }
    b_.emit(Op::kWgmmaCommit, {});
    b_.wgmma_wait(0, s);
    k_ring_.release(k);
    k_ring_.advance(k);
    Scores result;
    result.tiles.resize(1);
    for (int tile = 0; tile < num_key_tiles(); ++tile) {
      result.tiles[0].push_back({s[4 * tile], s[4 * tile + 1], s[4 * tile + 2], s[4 * tile + 3]});
    }
    return result;
  }

  void rescale(const std::vector<Var>& o, const OnlineSoftmax::Rescale& rescale) {
    b_.when(rescale.any, [&] {
      for (size_t i = 0; i < o.size(); ++i) {
        b_.set(o[i], b_.fmul(b_.get(o[i]), b_.get(rescale.factors[i / 2 % 2])));
      }
    });
  }

  void accumulate(const std::vector<Var>& o, const Probabilities& p, const BulkRing::Cursor& v) {
    const PvProduct product = pv_product(variant_);
    std::vector<std::vector<Value>> a;
    for (int key = 0; key < schedule_.block_n; key += product.keys) {
      a.push_back(p_fragment(b_, variant_, p[0], key));
    }
    v_ring_.wait(v);
    const Value values = value_descriptor(b_, variant_, v_ring_.address(v));
    b_.emit(Op::kWgmmaFence, {});
    for (size_t step = 0; step < a.size(); ++step) {
      const int offset = static_cast<int>(step) * product.keys * value_row_bytes();
      b_.wgmma(product.op, o, a[step], moved(b_, values, offset), true);
    }
    b_.emit(Op::kWgmmaCommit, {});
    b_.wgmma_wait(0, o);
    v_ring_.release(v);
    v_ring_.advance(v);
  }

  static constexpr int kLoaderRegisters = 24;
  // What is left of the 64 K registers of an SM, in steps of 8.
  static int consumer_registers(int num_consumers) {
    return std::min(240, (65536 / kGroupThreads - kLoaderRegisters) / num_consumers / 8 * 8);
  }

  const ForwardPlan& plan_;
  const Variant& variant_;
  const Schedule& schedule_;
  int num_consumers_;
  Builder b_;
  KernelArgs args_;
  BulkRing q_ring_, k_ring_, v_ring_;
  Value group_;  // this thread's warpgroup, the same register in all lanes
};

}  // namespace

ir::Function generate_attention_wgmma(const ForwardPlan& plan) {
  return WgmmaAttention(plan).generate();
}

}  // namespace sagejit
