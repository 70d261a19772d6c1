#include "compiler/kernels/wgmma_loader.h"

#include <algorithm>

#include "compiler/ir/fragment.h"
#include "compiler/kernels/prepare.h"
#include "compiler/kernels/scores.h"

namespace sagejit {

using ir::Builder;
using ir::BulkRing;
using ir::constant;
using ir::Op;
using ir::RingCursor;
using ir::Value;
using ir::Var;

namespace {

class Loader {
 public:
  explicit Loader(WgmmaBlock& block)
      : block_(block),
        b_(block.b),
        args_(block.args),
        plan_(block.plan),
        variant_(block.variant),
        schedule_(block.schedule) {}

  void load() {
    if (moves_registers(schedule_))
      b_.emit(Op::kRegistersDown, {constant(wgmma_registers_of_roles(schedule_).load)});
    b_.when(b_.equal(b_.warp(), constant(block_.num_consumers * kGroupWarps)), [&] {
      if (plan_.attends_by_head()) start_by_head();
      RingCursor q(b_, block_.num_query_stages()), kv(b_, schedule_.stages);
      // Every block begins with its own tile; who is done first takes the next.
      const Var number = b_.var(b_.emit1(Op::kBlockX, {}));
      const Var goes_on = b_.var(is_tile(b_.get(number)));
      b_.loop_while(goes_on, [&] {
        const Work work = work_of(b_.get(number));
        wait_for_head(work);
        load_queries(work, q);
        b_.set(number, take_tile());
        load_keys_and_values(work, kv);
        b_.set(goes_on, is_tile(b_.get(number)));
      });
      end_work(q);
    });
  }

 private:
  // A query tile of the block.
  struct Work {
    QueryTile tile;
    Value pack;  // of all batches'
    Value batch_kv_head;
  };

  // --- of the counters
  static constexpr int kTakenBytes = 0;
  static constexpr int kDoneBytes = 4;

  bool is_causal() const {
    return variant_.mask.kind == MaskKind::kCausalTopLeft ||
           variant_.mask.kind == MaskKind::kCausalBottomRight;
  }

  // Tiles in the order of their numbers: pack after pack, as they are prepared, and the last ones
  // at once. Tiles with the most keys come first: of a pack, and of all the last together, so that
  // the last ones are short.
  Work work_of(Value number) {
    const Value row_tiles = args_["row_tiles"], first_last = args_["first_last_pack"];
    // a / b and a mod b by one division.
    const auto divide = [&](Value a, Value b) {
      const Value quotient = b_.div(a, b);
      return std::pair(quotient, b_.sub(a, b_.mul(quotient, b)));
    };
    const Value among_last = b_.sub(number, args_["first_last_tile"]);
    const Value is_last = b_.less_equal(constant(0), among_last);
    const auto [quotient, remainder] = divide(b_.select(is_last, among_last, number),
                                              b_.select(is_last, args_["last_packs"], row_tiles));
    const Value rank = b_.select(is_last, quotient, remainder);
    const Value pack = b_.select(is_last, b_.add(first_last, remainder), quotient);
    const Value row_tile = is_causal() ? b_.sub(b_.sub(row_tiles, constant(1)), rank) : rank;
    const auto [batch, in_batch] = divide(pack, args_[plan_.packs_heads() ? "packs" : "hq"]);
    const Value head = plan_.packs_heads() ? b_.mul(in_batch, args_["packed_heads"]) : in_batch;
    const Value kv_head = b_.div(head, args_["group_heads"]);
    const Value first_row = b_.mul(row_tile, constant(schedule_.block_m));
    return {{batch, head, kv_head, first_row}, pack, b_.add(b_.mul(batch, args_["hkv"]), kv_head)};
  }

  // Address of the part of an operand that is a pack's, or a (batch, K head)'s; of `row_bytes` a
  // row.
  Value operand_address(const std::string& name, Value part, const std::string& padded,
                        int row_bytes) {
    const Value row = b_.mul64(b_.zext(part), b_.zext(args_[padded]));
    return b_.add64(args_[name], b_.mul64(row, b_.zext(constant(row_bytes))));
  }
  Value offset_of(Value token, int row_bytes) {
    return b_.mul64(b_.zext(token), b_.zext(constant(row_bytes)));
  }

  // 1 or 0.
  Value is_tile(Value number) {
    return b_.select(b_.less(number, args_["num_tiles"]), constant(1), constant(0));
  }

  // The number of a tile that no block has taken yet.
  Value take_tile() {
    const Var taken = b_.var(constant(0));
    b_.when(b_.equal(b_.lane(), constant(0)), [&] {
      b_.set(taken, b_.emit1(Op::kAtomGlobalAddI32,
                             {args_["tile_counters"], constant(kTakenBytes), constant(1)}));
    });
    return b_.add(b_.emit1(Op::kShflI32, {b_.get(taken), constant(0)}), b_.emit1(Op::kGridX, {}));
  }

  // Tells the computing warpgroups. The last block to end leaves the counters as it found them; and
  // none ends before all heads are prepared.
  void end_work(RingCursor& q) {
    for (int i = 0; i < block_.num_consumers; ++i) {
      block_.q_ring.begin(q);
      b_.when(b_.equal(b_.lane(), constant(0)), [&] {
        b_.emit(Op::kStSharedV4,
                {block_.q_ring.words(q), constant(WgmmaBlock::kPlaceBytes),
                 constant(WgmmaBlock::kNoTile), constant(0), constant(0), constant(0)});
      });
      block_.q_ring.publish(q);
      q.advance();
    }
    b_.when(b_.equal(b_.lane(), constant(0)), [&] {
      const Value counters = args_["tile_counters"];
      const Value done =
          b_.emit1(Op::kAtomGlobalAddI32, {counters, constant(kDoneBytes), constant(1)});
      b_.when(b_.equal(b_.add(done, constant(1)), b_.emit1(Op::kGridX, {})), [&] {
        b_.emit(Op::kStGlobalV2, {counters, constant(kTakenBytes), constant(0), constant(0)});
      });
    });
    if (plan_.attends_by_head()) b_.emit(Op::kGridWait, {});
  }

  // Of `prepare` this launch waits head by head. Of a stranger's it waits as a whole.
  void start_by_head() {
    const Value alone = b_.not_equal(args_["attends_alone"], constant(0));
    b_.when(alone, [&] { b_.emit(Op::kGridWait, {}); });
    b_.emit(Op::kGridLaunchNext, {});
  }

  // Until all operands of a tile are prepared. Bulk copies read them through the asynchronous
  // proxy, which sees what others have written after the fence alone (PTX ISA, "Proxies").
  void wait_for_head(const Work& work) {
    if (!plan_.attends_by_head()) return;
    wait_for_tiles(b_, args_, work.batch_kv_head);
    b_.emit(Op::kFenceProxyAsyncGlobal, {});
  }

  // All loads come before the first wait: their latencies overlap.
  void load_queries(const Work& work, RingCursor& q) {
    std::vector<std::vector<Value>> row_factors(static_cast<size_t>(block_.num_consumers));
    for (int i = 0; i < block_.num_consumers; ++i) {
      for (int row = i * kWarpgroupRows; row < (i + 1) * kWarpgroupRows; row += ir::kWarpThreads) {
        const Value number = b_.add(work.tile.first_row, b_.add(b_.lane(), constant(row)));
        row_factors[i].push_back(load_row_factor(b_, plan_, args_, work.tile, number));
      }
    }
    // The loader has few registers: more value scales than this are loaded in portions, for each
    // warpgroup again.
    constexpr int kPortion = 4 * ir::kWarpThreads;
    const int num_scales = value_scale_words(variant_);
    std::vector<Value> value_scales;
    if (num_scales <= kPortion) value_scales = load_value_scales(work, 0, num_scales);
    Value largest_key_scale;
    if (plan_.k.finds_largest_scale) {
      largest_key_scale = load_largest_key_scale(b_, args_, work.tile);
    }
    const int row_bytes = qk_row_bytes(variant_, schedule_);
    const Value head = operand_address("q_codes", work.pack, "padded_m", row_bytes);
    for (int i = 0; i < block_.num_consumers; ++i) {
      const Value first_row = b_.add(work.tile.first_row, constant(i * kWarpgroupRows));
      block_.q_ring.begin(q);
      const Value words = block_.q_ring.words(q);
      store_lanes(b_.add(words, constant(WgmmaBlock::kRowFactorBytes)), row_factors[i],
                  kWarpgroupRows);
      for (int first = 0; first < num_scales; first += kPortion) {
        const int count = std::min(kPortion, num_scales - first);
        store_lanes(b_.add(words, constant(WgmmaBlock::kValueScaleBytes + first * 4)),
                    num_scales <= kPortion ? value_scales : load_value_scales(work, first, count),
                    count);
      }
      b_.when(b_.equal(b_.lane(), constant(0)), [&] {
        b_.emit(Op::kStSharedV4, {words, constant(WgmmaBlock::kPlaceBytes), work.tile.batch,
                                  work.tile.head, work.tile.kv_head, first_row});
        if (!largest_key_scale) return;
        b_.emit(Op::kStSharedF32,
                {words, constant(block_.largest_key_scale_bytes()), largest_key_scale});
      });
      block_.q_ring.fill(q, {{b_.add64(head, offset_of(first_row, row_bytes)), {}}});
      q.advance();
    }
  }

  // Lane l gets the words first + l, first + l + 32, ...
  std::vector<Value> load_value_scales(const Work& work, int first, int count) {
    std::vector<Value> scales;
    if (count == 0) return scales;
    const int num_scales = value_scale_words(variant_);
    const Value head = b_.address(args_["v_scales"], work.batch_kv_head, num_scales * 4);
    const Value mine = b_.address(head, b_.lane(), 4);
    for (int at = first; at < first + count; at += ir::kWarpThreads) {
      const bool is_whole = at + ir::kWarpThreads <= num_scales;
      const Value last = b_.min(b_.lane(), constant(num_scales - 1 - at));  // where it is not
      const Value address = is_whole ? mine : b_.address(head, last, 4);
      scales.push_back(b_.emit1(Op::kLdGlobalF32, {address, constant(at * 4)}));
    }
    return scales;
  }

  // Word 32 i + l of the first `count` is lane l's i-th value.
  void store_lanes(Value words, const std::vector<Value>& values, int count) {
    const Value mine = b_.add(words, b_.mul(b_.lane(), constant(4)));
    for (int i = 0; i < static_cast<int>(values.size()); ++i) {
      const int first = i * ir::kWarpThreads;
      const auto store = [&] { b_.emit(Op::kStSharedF32, {mine, constant(first * 4), values[i]}); };
      if (first + ir::kWarpThreads <= count) {
        store();
      } else {
        b_.when(b_.less(b_.lane(), constant(count - first)), store);
      }
    }
  }

  void load_keys_and_values(const Work& work, RingCursor& kv) {
    const MaskRegions regions = block_.regions_of(work.tile.first_row, schedule_.block_m);
    const Value k_head = operand_address("k_codes", work.batch_kv_head, "padded_n",
                                         qk_row_bytes(variant_, schedule_));
    const Value v_head =
        operand_address("v_codes", work.batch_kv_head, "padded_n", block_.value_row_bytes());
    const Value first = regions.first_tile(), end = regions.end_tile();
    b_.when(b_.less(first, end), [&] {
      const std::vector<Value> mean_rows = mean_scores_rows(work);
      // The scales of the next tile are on their way while this one waits for a free stage.
      std::vector<Var> next;
      for (const Value scale : load_key_scales(work, first)) next.push_back(b_.var(scale));
      b_.loop(first, b_.add(end, constant(block_.value_lag())), constant(1), [&](Value tile) {
        std::vector<Value> scales;
        for (const Var& scale : next) scales.push_back(b_.get(scale));
        const std::vector<Value> loaded = load_key_scales(work, b_.add(tile, constant(1)));
        for (size_t i = 0; i < loaded.size(); ++i) b_.set(next[i], loaded[i]);
        block_.kv_ring.begin(kv);
        store_lanes(block_.kv_ring.words(kv), scales, schedule_.block_n);
        BulkRing::Source keys{b_.add64(k_head, offset_of(tile, block_.k_bytes())), {}};
        const Value value_tile = b_.sub(tile, constant(block_.value_lag()));
        BulkRing::Source values{b_.add64(v_head, offset_of(value_tile, block_.v_bytes())), {}};
        if (block_.value_lag() > 0) {
          keys.condition = b_.less(tile, end);
          values.condition = b_.less_equal(first, value_tile);
        }
        std::vector<BulkRing::Source> sources = {keys, values};
        for (const Value row : mean_rows) {
          sources.push_back(
              {b_.add64(row, offset_of(tile, schedule_.block_n * 4)), keys.condition});
        }
        block_.kv_ring.fill(kv, sources);
        kv.advance();
      });
    });
  }

  // Of each computing warpgroup's rows, where Q is smoothed: then a pack is one head.
  std::vector<Value> mean_scores_rows(const Work& work) {
    std::vector<Value> rows;
    for (int i = 0; plan_.mean_scores.exists && i < block_.num_consumers; ++i) {
      const Value first_row = b_.add(work.tile.first_row, constant(i * kWarpgroupRows));
      rows.push_back(mean_scores_row(b_, plan_, args_, work.pack, first_row));
    }
    return rows;
  }

  std::vector<Value> load_key_scales(const Work& work, Value tile) {
    const Value first_key = b_.add(b_.mul(tile, constant(schedule_.block_n)), b_.lane());
    std::vector<Value> scales;
    for (int key = 0; key < schedule_.block_n; key += ir::kWarpThreads) {
      scales.push_back(
          load_key_scale(b_, plan_, args_, work.tile, b_.add(first_key, constant(key))));
    }
    return scales;
  }

  WgmmaBlock& block_;
  Builder& b_;
  const KernelArgs& args_;
  const ForwardPlan& plan_;
  const Variant& variant_;
  const Schedule& schedule_;
};

}  // namespace

void load_tiles(WgmmaBlock& block) {
  Loader(block).load();
}

}  // namespace sagejit
