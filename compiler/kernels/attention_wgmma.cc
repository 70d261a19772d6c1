#include <algorithm>

#include "compiler/ir/bulk_ring.h"
#include "compiler/ir/fragment.h"
#include "compiler/kernels/generators.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/kernels/mask_regions.h"
#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/output.h"
#include "compiler/kernels/scores.h"
#include "compiler/kernels/wgmma_accumulator.h"
#include "compiler/kernels/wgmma_operands.h"
#include "compiler/layout/core_matrix.h"

namespace sagejit {

using ir::Builder;
using ir::BulkRing;
using ir::constant;
using ir::Op;
using ir::RingCursor;
using ir::Value;
using ir::Var;

namespace {

constexpr int kGroupWarps = 4;
constexpr int kQkStepBytes = 32;

// One warpgroup loads, the others compute 64 query rows each; the block stays and takes one query
// tile after the other, so that loads of the next run under the end of the last.
//
// Shared memory: Q of each consumer, rings of K and V tiles; all as core matrices (core_matrix.h).
// With a Q tile come, as words, where it lies and the scale factors of its rows and of V's
// channels; with a K tile the scales of its keys. So nobody who computes waits for global memory.
class WgmmaAttention {
 public:
  explicit WgmmaAttention(const ForwardPlan& plan)
      : plan_(plan),
        variant_(plan.variant),
        schedule_(plan.schedule),
        num_consumers_(schedule_.num_warps / kGroupWarps),
        b_("attention", (num_consumers_ + 1) * kWarpgroupThreads, 1),
        args_(b_, *plan.find_launch("attention")),
        q_ring_(b_, "q",
                {num_query_stages(), {q_bytes()}, wgmma_query_words(variant_), kGroupWarps}),
        kv_ring_(
            b_, "kv",
            {schedule_.stages, {k_bytes(), v_bytes()}, schedule_.block_n, schedule_.num_warps}),
        group_(b_.emit1(Op::kShflI32, {b_.shr(b_.tid(), 7), constant(0)})),
        taken_(b_.var(constant(0))),
        passed_(b_.var(constant(0))) {}

  ir::Function generate() {
    b_.when(b_.equal(b_.tid(), constant(0)), [&] {
      for (const BulkRing* ring : {&q_ring_, &kv_ring_}) ring->initialize();
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

  // A stage of the ring holds K of one tile and V of the tile so far behind it: what the computing
  // warpgroups use together.
  int value_lag() const { return schedule_.overlap ? 1 : 0; }
  enum Piece { kKeys, kValues };

  int num_query_stages() const { return kQueryStages * num_consumers_; }
  int q_bytes() const { return kWarpgroupRows * padded_head_dim(variant_); }
  int k_bytes() const { return schedule_.block_n * padded_head_dim(variant_); }
  int v_bytes() const { return schedule_.block_n * value_row_bytes(); }
  int value_row_bytes() const {
    return padded_value_head_dim(variant_) * bits_of(variant_.v.type) / 8;
  }

  bool is_causal() const {
    return variant_.mask.kind == MaskKind::kCausalTopLeft ||
           variant_.mask.kind == MaskKind::kCausalBottomRight;
  }

  Value num_row_tiles() {
    return b_.div(b_.add(args_["m"], constant(schedule_.block_m - 1)), constant(schedule_.block_m));
  }
  Value num_tiles() { return b_.mul(b_.mul(args_["b"], args_["hq"]), num_row_tiles()); }

  // Tiles in the order of their numbers: heads in groups whose K and V stay in the L2 cache
  // together; within a group all heads' tiles with the most keys first, so that the last ones are
  // short.
  Work work_of(Value number) {
    const Value row_tiles = num_row_tiles();
    const Value heads = b_.mul(args_["b"], args_["hq"]);
    // a / b and a mod b by one division.
    const auto divide = [&](Value a, Value b) {
      const Value quotient = b_.div(a, b);
      return std::pair(quotient, b_.sub(a, b_.mul(quotient, b)));
    };
    const auto [group, in_group] = divide(number, b_.mul(args_["group_heads"], row_tiles));
    const Value first_head = b_.mul(group, args_["group_heads"]);
    const Value group_heads = b_.min(args_["group_heads"], b_.sub(heads, first_head));
    const auto [rank, head_in_group] = divide(in_group, group_heads);
    const Value row_tile = is_causal() ? b_.sub(b_.sub(row_tiles, constant(1)), rank) : rank;
    const Value batch_head = b_.add(first_head, head_in_group);
    const auto [batch, head] = divide(batch_head, args_["hq"]);
    const Value kv_head = b_.div(head, b_.div(args_["hq"], args_["hkv"]));
    const Value first_row = b_.mul(row_tile, constant(schedule_.block_m));
    return {{batch, head, kv_head, first_row},
            batch_head,
            b_.add(b_.mul(batch, args_["hkv"]), kv_head)};
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

  // --- words of a Q stage, in bytes from their start
  static constexpr int kPlaceBytes = 0;  // batch (or kNoTile), head, kv_head, first row
  static constexpr int kRowFactorBytes = 16;
  static constexpr int kValueScaleBytes = kRowFactorBytes + kWarpgroupRows * 4;

  static constexpr int kNoTile = -1;
  // --- of the counters
  static constexpr int kTakenBytes = 0;
  static constexpr int kDoneBytes = 4;

  // --- the loading warpgroup: its first warp stores the words and starts the copies
  void load() {
    if (moves_registers())
      b_.emit(Op::kRegistersDown, {constant(wgmma_registers_of_roles(schedule_).load)});
    b_.when(b_.equal(b_.warp(), constant(num_consumers_ * kGroupWarps)), [&] {
      RingCursor q(b_, num_query_stages()), kv(b_, schedule_.stages);
      // Every block begins with its own tile; who is done first takes the next.
      const Var number = b_.var(b_.emit1(Op::kBlockX, {}));
      const Var goes_on = b_.var(is_tile(b_.get(number)));
      b_.loop_while(goes_on, [&] {
        const Work work = work_of(b_.get(number));
        load_queries(work, q);
        b_.set(number, take_tile());
        load_keys_and_values(work, kv);
        b_.set(goes_on, is_tile(b_.get(number)));
      });
      end_work(q);
    });
  }

  // 1 or 0.
  Value is_tile(Value number) {
    return b_.select(b_.less(number, num_tiles()), constant(1), constant(0));
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

  // Tells the computing warpgroups. The last block to end leaves the counters as it found them.
  void end_work(RingCursor& q) {
    for (int i = 0; i < num_consumers_; ++i) {
      q_ring_.begin(q);
      b_.when(b_.equal(b_.lane(), constant(0)), [&] {
        b_.emit(Op::kStSharedV4, {q_ring_.words(q), constant(kPlaceBytes), constant(kNoTile),
                                  constant(0), constant(0), constant(0)});
      });
      q_ring_.publish(q);
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
  }

  // All loads come before the first wait: their latencies overlap.
  void load_queries(const Work& work, RingCursor& q) {
    std::vector<std::vector<Value>> row_factors(static_cast<size_t>(num_consumers_));
    for (int i = 0; i < num_consumers_; ++i) {
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
    const int row_bytes = padded_head_dim(variant_);
    const Value head =
        operand_address("q_codes", work.batch_head, "m", schedule_.block_m, row_bytes);
    for (int i = 0; i < num_consumers_; ++i) {
      const Value first_row = b_.add(work.tile.first_row, constant(i * kWarpgroupRows));
      q_ring_.begin(q);
      const Value words = q_ring_.words(q);
      store_lanes(b_.add(words, constant(kRowFactorBytes)), row_factors[i], kWarpgroupRows);
      for (int first = 0; first < num_scales; first += kPortion) {
        const int count = std::min(kPortion, num_scales - first);
        store_lanes(b_.add(words, constant(kValueScaleBytes + first * 4)),
                    num_scales <= kPortion ? value_scales : load_value_scales(work, first, count),
                    count);
      }
      b_.when(b_.equal(b_.lane(), constant(0)), [&] {
        b_.emit(Op::kStSharedV4, {words, constant(kPlaceBytes), work.tile.batch, work.tile.head,
                                  work.tile.kv_head, first_row});
      });
      q_ring_.fill(q, {{b_.add64(head, offset_of(first_row, row_bytes)), {}}});
      q.advance();
    }
  }

  // Lane l gets the words first + l, first + l + 32, ...
  std::vector<Value> load_value_scales(const Work& work, int first, int count) {
    std::vector<Value> scales;
    if (count == 0) return scales;
    const int num_scales = value_scale_words(variant_);
    const Value head = b_.address(args_["v_scales"], work.batch_kv_head, num_scales * 4);
    for (int at = first; at < first + count; at += ir::kWarpThreads) {
      const Value index = b_.min(b_.add(b_.lane(), constant(at)), constant(num_scales - 1));
      scales.push_back(b_.emit1(Op::kLdGlobalF32, {b_.address(head, index, 4), constant(0)}));
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
    const MaskRegions regions = regions_of(work.tile.first_row, schedule_.block_m);
    const Value k_head = operand_address("k_codes", work.batch_kv_head, "n", schedule_.block_n,
                                         padded_head_dim(variant_));
    const Value v_head =
        operand_address("v_codes", work.batch_kv_head, "n", schedule_.block_n, value_row_bytes());
    const Value first = regions.first_tile(), end = regions.end_tile();
    b_.when(b_.less(first, end), [&] {
      // The scales of the next tile are on their way while this one waits for a free stage.
      std::vector<Var> next;
      for (const Value scale : load_key_scales(work, first)) next.push_back(b_.var(scale));
      b_.loop(first, b_.add(end, constant(value_lag())), constant(1), [&](Value tile) {
        std::vector<Value> scales;
        for (const Var& scale : next) scales.push_back(b_.get(scale));
        const std::vector<Value> loaded = load_key_scales(work, b_.add(tile, constant(1)));
        for (size_t i = 0; i < loaded.size(); ++i) b_.set(next[i], loaded[i]);
        kv_ring_.begin(kv);
        store_lanes(kv_ring_.words(kv), scales, schedule_.block_n);
        BulkRing::Source keys{b_.add64(k_head, offset_of(tile, k_bytes())), {}};
        const Value value_tile = b_.sub(tile, constant(value_lag()));
        BulkRing::Source values{b_.add64(v_head, offset_of(value_tile, v_bytes())), {}};
        if (value_lag() > 0) {
          keys.condition = b_.less(tile, end);
          values.condition = b_.less(first, tile);
        }
        kv_ring_.fill(kv, {keys, values});
        kv.advance();
      });
    });
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

  // --- the computing warpgroups
  void compute() {
    if (moves_registers()) {
      b_.emit(Op::kRegistersUp, {constant(wgmma_registers_of_roles(schedule_).compute)});
    }
    RingCursor q(b_, num_query_stages(), group_), kv(b_, schedule_.stages);
    std::vector<Var> place;
    for (int i = 0; i < 4; ++i) place.push_back(b_.var(constant(0)));
    const Var goes_on = b_.var(constant(0));
    const auto next_tile = [&] {
      q_ring_.wait(q);
      const std::vector<Value> words =
          b_.emit(Op::kLdSharedV4, {q_ring_.words(q), constant(kPlaceBytes)});
      // The same in all lanes: said so, that loop counts and addresses are kept once a warp.
      for (size_t i = 0; i < place.size(); ++i) {
        b_.set(place[i], b_.emit1(Op::kShflI32, {words[i], constant(0)}));
      }
      const Value ends = b_.equal(b_.get(place[0]), constant(kNoTile));
      b_.set(goes_on, b_.select(ends, constant(0), constant(1)));
    };
    start_turns();
    next_tile();
    b_.loop_while(goes_on, [&] {
      compute_rows({b_.get(place[0]), b_.get(place[1]), b_.get(place[2]), b_.get(place[3])}, q, kv);
      q_ring_.release(q);
      q.advance(num_consumers_);
      next_tile();
    });
    end_turns();
  }

  void compute_rows(const QueryTile& tile, const RingCursor& q, RingCursor& kv) {
    const Value words = q_ring_.words(q);
    const Value block_row = b_.sub(tile.first_row, b_.mul(group_, constant(kWarpgroupRows)));
    const MaskRegions block = regions_of(block_row, schedule_.block_m);
    const MaskRegions regions = regions_of(tile.first_row, kWarpgroupRows);
    const Value tid = b_.bit_and(b_.tid(), constant(kWarpgroupThreads - 1));
    const std::vector<Value> numbers = rows_of_thread(b_, tile, 1, tid);
    const QueryRows rows(b_, regions, numbers, row_factors(words, tile, numbers));
    const KeyScales key_scales = KeyScales::shared(b_, plan_.k.groups, schedule_.block_n);
    OnlineSoftmax softmax(b_, variant_, 1, true);
    WgmmaAccumulator o(b_, variant_, schedule_.block_n);

    const Value first = regions.first_tile(), end = regions.end_tile();
    skip(block.first_tile(), first, kv);
    const Value q_rows = token_rows_descriptor(b_, q_ring_.units(q), padded_head_dim(variant_));
    // P of a key tile from its scores: dequantization, mask and softmax.
    const auto to_probabilities = [&](Scores s, Value key_tile, bool masked) {
      const Value scales = kv_ring_.words(kv);
      const std::vector<Value> key_factors = key_scales.load(scales);
      key_scales.apply(s, scales);
      if (masked) rows.mask(s, b_.mul(key_tile, constant(schedule_.block_n)));
      return softmax.step(s, {rows.factors(), key_factors}, masked, [&] { take_turn(); });
    };
    if (schedule_.overlap) {
      compute_overlapped(regions, q_rows, kv, o, to_probabilities);
    } else {
      compute_in_order(regions, q_rows, kv, o, to_probabilities);
    }
    o.close();
    skip(end, block.end_tile(), kv);
    skip_last_stage(regions, block, kv);
    store(tile, softmax, o, words);
  }

  std::vector<Value> row_factors(Value words, const QueryTile& tile,
                                 const std::vector<Value>& numbers) {
    std::vector<Value> factors;
    for (const Value number : numbers) {
      const Value row = b_.sub(number, tile.first_row);
      factors.push_back(b_.emit1(
          Op::kLdSharedF32, {b_.add(words, b_.mul(row, constant(4))), constant(kRowFactorBytes)}));
    }
    return factors;
  }

  void store(const QueryTile& tile, const OnlineSoftmax& softmax, const WgmmaAccumulator& o,
             Value words) {
    const Value tid = b_.bit_and(b_.emit1(Op::kTidAgain, {}), constant(kWarpgroupThreads - 1));
    const Value column = b_.mul(b_.bit_and(tid, constant(3)), constant(2));
    RowResults results = {.rows = rows_of_thread(b_, tile, 1, tid),
                          .sums = softmax.row_sum(),
                          .maxima = softmax.row_max(),
                          .range_log2 = softmax.range_log2(),
                          .elements = [&](int, int column_tile) { return o.elements(column_tile); },
                          .value_scales = {},
                          .value_means = {}};
    const Value scales = b_.add(words, b_.mul(column, constant(4)));
    const auto from = [&](int first_word) {
      return [this, scales, first_word](int column_tile) {
        const int word = first_word + column_tile * kFragmentColumns;
        return b_.emit(Op::kLdSharedV2F32, {scales, constant(kValueScaleBytes + word * 4)});
      };
    };
    if (value_scale_words(variant_) > 0) results.value_scales = from(0);
    if (variant_.v.smoothing == Smoothing::kMean) {
      results.value_means = from(padded_value_head_dim(variant_));
    }
    store_output(b_, plan_, args_, tile, results);
  }

  using ToProbabilities =
      std::function<OnlineSoftmax::Rescale(const Scores&, Value key_tile, bool masked)>;

  void compute_in_order(const MaskRegions& regions, Value q_rows, RingCursor& kv,
                        WgmmaAccumulator& o, const ToProbabilities& to_probabilities) {
    for (const TileRun& run : regions.runs()) {
      b_.comment(run.masked ? "key tiles that need the mask" : "key tiles that every row sees");
      b_.loop(run.begin, once(run.end), constant(1), [&](Value key_tile) {
        const Scores s = new_scores();
        kv_ring_.wait(kv);
        start_scores(s, q_rows, kv);
        finish_scores(s, 0);
        const OnlineSoftmax::Rescale rescale = to_probabilities(s, key_tile, run.masked);
        if (schedule_.ping_pong) b_.tie(s.registers());
        o.rescale(rescale);
        pass_turn();
        o.add(o.convert(s), value_descriptor(b_, variant_, kv_ring_.units(kv, kValues)), key_tile);
        kv_ring_.release(kv);
        kv.advance();
      });
    }
  }

  // Q K^T of a tile and P V of the one before run beside the softmax: FlashAttention-3,
  // section 3.2.
  void compute_overlapped(const MaskRegions& regions, Value q_rows, RingCursor& kv,
                          WgmmaAccumulator& o, const ToProbabilities& to_probabilities) {
    const Value first = regions.first_tile();
    const auto next_stage = [&] {
      kv_ring_.release(kv);
      kv.advance();
    };
    b_.when(b_.less(first, regions.end_tile()), [&] {
      b_.comment("the first key tile: nothing to overlap with");
      const Scores s = new_scores();
      kv_ring_.wait(kv);
      start_scores(s, q_rows, kv);
      finish_scores(s, 0);
      to_probabilities(s, first, true);
      if (schedule_.ping_pong) b_.tie(s.registers());
      pass_turn();
      next_stage();
      const std::vector<Var> p = o.convert(s);
      const auto start_values = [&] {
        o.start(p, value_descriptor(b_, variant_, kv_ring_.units(kv, kValues)));
      };
      for (const TileRun& run : regions.runs()) {
        b_.comment(run.masked ? "key tiles that need the mask" : "key tiles that every row sees");
        b_.loop(b_.max(run.begin, b_.add(first, constant(1))), once(run.end), constant(1),
                [&](Value key_tile) {
                  const Scores next = new_scores();
                  kv_ring_.wait(kv);
                  start_scores(next, q_rows, kv);
                  start_values();
                  finish_scores(next, 1);
                  const OnlineSoftmax::Rescale rescale =
                      to_probabilities(next, key_tile, run.masked);
                  b_.tie(next.registers());
                  o.finish(rescale, b_.sub(key_tile, constant(1)), [&] { pass_turn(); });
                  next_stage();
                  const std::vector<Var> converted = o.convert(next);
                  for (size_t i = 0; i < p.size(); ++i) b_.set(p[i], b_.get(converted[i]));
                });
      }
      kv_ring_.wait(kv);
      start_values();
      o.finish(b_.sub(regions.end_tile(), constant(1)));
      next_stage();
    });
  }

  // A value that is the same in all lanes, computed here and kept: what the assembler can derive
  // from other uniform registers, it derives again in every iteration.
  Value once(Value x) { return b_.emit1(Op::kShflI32, {x, constant(0)}); }

  // --- turns: with ping_pong one warpgroup at a time does not compute exponentials, which all need
  // the same unit, but has its maxima and products to do (after FlashAttention-3, section 3.1).
  // Left alone they fall into step: all compute exponentials, then all wait for products. Every
  // warpgroup takes a turn, used or not, for every key tile of the block; it gets it from the next
  // one, which may be two turns ahead: each has two barriers.
  Value turn_barrier(Value group, const Var& parity) {
    return b_.add(b_.add(b_.mul(group, constant(2)), constant(1)), b_.get(parity));
  }
  void flip(const Var& parity) { b_.set(parity, b_.bit_xor(b_.get(parity), constant(1))); }
  void take_turn() {
    if (!schedule_.ping_pong) return;
    b_.emit(Op::kNamedBarrierSync, {turn_barrier(group_, taken_), constant(2 * kWarpgroupThreads)});
    flip(taken_);
  }
  void pass_turn() {
    if (!schedule_.ping_pong) return;
    const Value is_first = b_.equal(group_, constant(0));
    const Value previous =
        b_.select(is_first, constant(num_consumers_ - 1), b_.sub(group_, constant(1)));
    b_.emit(Op::kNamedBarrierArrive,
            {turn_barrier(previous, passed_), constant(2 * kWarpgroupThreads)});
    flip(passed_);
  }
  // All but the last begin with a turn, and have one left in the end.
  void start_turns() {
    if (!schedule_.ping_pong) return;
    b_.when(b_.less(constant(0), group_), [&] { pass_turn(); });
  }
  void end_turns() {
    if (!schedule_.ping_pong) return;
    b_.when(b_.less(group_, constant(num_consumers_ - 1)), [&] { take_turn(); });
  }

  // Key tiles that only other warpgroups' rows see: their turns, and as many stages.
  void skip(Value begin, Value end, RingCursor& kv) {
    b_.loop(begin, end, constant(1), [&](Value) {
      take_turn();
      pass_turn();
      skip_stage(kv);
    });
  }
  void skip_stage(RingCursor& kv) {
    kv_ring_.wait(kv);
    kv_ring_.release(kv);
    kv.advance();
  }
  // With values behind the keys there is one stage more than key tiles; a warpgroup that sees none
  // has not met it yet.
  void skip_last_stage(const MaskRegions& own, const MaskRegions& block, RingCursor& kv) {
    if (value_lag() == 0) return;
    const Value sees_none = b_.equal(own.first_tile(), own.end_tile());
    const Value has_stages = b_.less(block.first_tile(), block.end_tile());
    const Value count = b_.select(b_.both(sees_none, has_stages), constant(1), constant(0));
    b_.loop(constant(0), count, constant(1), [&](Value) { skip_stage(kv); });
  }

  Scores new_scores() {
    Scores s;
    s.tiles.resize(1);
    for (int tile = 0; tile < schedule_.block_n / kFragmentColumns; ++tile) {
      s.tiles[0].emplace_back();
      for (Var& x : s.tiles[0].back()) x = b_.var(constant(0));
    }
    return s;
  }

  // S = Q K^T as biased integers: the accumulators start at the bias.
  void start_scores(const Scores& s, Value q_rows, const RingCursor& kv) {
    for (const Var& x : s.registers()) b_.set(x, constant(kBiasedZero));
    const Value keys =
        token_rows_descriptor(b_, kv_ring_.units(kv, kKeys), padded_head_dim(variant_));
    for (int byte = 0; byte < padded_head_dim(variant_); byte += kQkStepBytes) {
      const int offset = byte / kCoreRowBytes * kCoreBytes;
      b_.wgmma(Op::kWgmmaS8, s.registers(), {moved(b_, q_rows, offset)}, moved(b_, keys, offset),
               {.fenced = byte == 0});
    }
    b_.emit(Op::kWgmmaCommit, {});
  }

  // in_flight: products started after these.
  void finish_scores(const Scores& s, int in_flight) { b_.wgmma_wait(in_flight, s.registers()); }

  // Two warpgroups have more registers than a thread can use from the start; setmaxnreg.inc must
  // not take any away.
  bool moves_registers() const { return num_consumers_ > 1; }

  const ForwardPlan& plan_;
  const Variant& variant_;
  const Schedule& schedule_;
  int num_consumers_;
  Builder b_;
  KernelArgs args_;
  BulkRing q_ring_, kv_ring_;
  Value group_;         // this thread's warpgroup, the same register in all lanes
  Var taken_, passed_;  // turns, modulo 2
};

}  // namespace

ir::Function generate_attention_wgmma(const ForwardPlan& plan) {
  return WgmmaAttention(plan).generate();
}

}  // namespace sagejit
