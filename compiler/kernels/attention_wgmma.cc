#include <functional>
#include <optional>

#include "compiler/ir/fragment.h"
#include "compiler/kernels/generators.h"
#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/output.h"
#include "compiler/kernels/scores.h"
#include "compiler/kernels/wgmma_accumulator.h"
#include "compiler/kernels/wgmma_block.h"
#include "compiler/kernels/wgmma_loader.h"
#include "compiler/kernels/wgmma_operands.h"
#include "compiler/kernels/wgmma_scores.h"
#include "compiler/kernels/wgmma_turns.h"

namespace sagejit {

using ir::Builder;
using ir::BulkRing;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::RingCursor;
using ir::Value;
using ir::Var;

namespace {

// One warpgroup loads (wgmma_loader.h), the others compute 64 query rows each; the block stays and
// takes one query tile after the other, so that loads of the next run under the end of the last.
class WgmmaAttention {
 public:
  explicit WgmmaAttention(const ForwardPlan& plan)
      : block_(plan),
        b_(block_.b),
        variant_(block_.variant),
        schedule_(block_.schedule),
        kv_ring_(block_.kv_ring),
        scores_(block_),
        turns_(block_) {}

  ir::Function generate() {
    block_.initialize();
    b_.when(
        b_.equal(block_.group, constant(block_.num_consumers)), [&] { load_tiles(block_); },
        [&] { compute(); });
    return b_.finish(block_.plan.target->sm);
  }

 private:
  // --- the computing warpgroups
  void compute() {
    if (moves_registers(schedule_)) {
      b_.emit(Op::kRegistersUp, {constant(wgmma_registers_of_roles(schedule_).compute)});
    }
    RingCursor q(b_, block_.num_query_stages(), block_.group), kv(b_, schedule_.stages);
    std::vector<Var> place;
    for (int i = 0; i < 4; ++i) place.push_back(b_.var(constant(0)));
    const Var goes_on = b_.var(constant(0));
    const auto next_tile = [&] {
      block_.q_ring.wait(q);
      const std::vector<Value> words =
          b_.emit(Op::kLdSharedV4, {block_.q_ring.words(q), constant(WgmmaBlock::kPlaceBytes)});
      // The same in all lanes: said so, that loop counts and addresses are kept once a warp.
      for (size_t i = 0; i < place.size(); ++i) {
        b_.set(place[i], b_.emit1(Op::kShflI32, {words[i], constant(0)}));
      }
      const Value ends = b_.equal(b_.get(place[0]), constant(WgmmaBlock::kNoTile));
      b_.set(goes_on, b_.select(ends, constant(0), constant(1)));
    };
    turns_.start();
    next_tile();
    b_.loop_while(goes_on, [&] {
      compute_rows({b_.get(place[0]), b_.get(place[1]), b_.get(place[2]), b_.get(place[3])}, q, kv);
      block_.q_ring.release(q);
      q.advance(block_.num_consumers);
      next_tile();
    });
    turns_.end();
  }

  void compute_rows(const QueryTile& tile, const RingCursor& q, RingCursor& kv) {
    const Value words = block_.q_ring.words(q);
    const Value block_row = b_.sub(tile.first_row, b_.mul(block_.group, constant(kWarpgroupRows)));
    const MaskRegions block = block_.regions_of(block_row, schedule_.block_m);
    const MaskRegions regions = block_.regions_of(tile.first_row, kWarpgroupRows);
    const Value tid = b_.bit_and(b_.tid(), constant(kWarpgroupThreads - 1));
    const std::vector<Value> numbers = rows_of_thread(b_, tile, 1, tid);
    const QueryRows rows(b_, regions, tokens_of(tile, numbers), row_factors(words, tile, numbers));
    const KeyScales key_scales = KeyScales::shared(b_, block_.plan.k.groups, schedule_.block_n);
    std::optional<MeanScores> mean_scores;
    if (block_.plan.mean_scores.exists) mean_scores.emplace(MeanScores::shared(b_));
    OnlineSoftmax::LargestFactors largest_factors;
    if (block_.plan.k.finds_largest_scale) {
      largest_factors = [&] {
        const Value scale =
            b_.emit1(Op::kLdSharedF32, {words, constant(block_.largest_key_scale_bytes())});
        return sagejit::largest_factors(b_, rows.factors(), scale);
      };
    }
    OnlineSoftmax softmax(b_, block_.plan, 1, variant_.row_sum == RowSum::kExact, largest_factors);
    const Value ones = block_.ones ? ones_descriptor(b_, b_.shr(block_.ones, 4)) : Value{};
    WgmmaAccumulator o(b_, variant_, schedule_.block_n, ones);

    const Value first = regions.first_tile(), end = regions.end_tile();
    skip(block.first_tile(), first, kv);
    const Value q_rows =
        token_rows_descriptor(b_, block_.q_ring.units(q), qk_row_bytes(variant_, schedule_));
    // P of a key tile from its scores: dequantization, mask and softmax.
    const Softmax softmax_of_tile = [&](Scores s, Value key_tile, bool masked) {
      const Value scales = kv_ring_.words(kv);
      Dequantization factors = {rows.factors(), key_scales.load(scales)};
      key_scales.apply(s, scales);
      if (mean_scores) {
        const Value of_block = b_.add(kv_ring_.address(kv, WgmmaBlock::kMeanScores),
                                      b_.mul(block_.group, constant(schedule_.block_n * 4)));
        factors = mean_scores->add_to(s, factors, of_block);
      }
      if (masked) rows.mask(s, b_.mul(key_tile, constant(schedule_.block_n)));
      return softmax.step(s, factors, masked, [&] { turns_.take(); });
    };
    if (schedule_.overlap == 0) {
      compute_in_order(regions, q_rows, kv, o, softmax_of_tile);
    } else {
      compute_overlapped(regions, q_rows, kv, o, softmax_of_tile);
    }
    o.close();
    skip(end, block.end_tile(), kv);
    skip_last_stages(regions, block, kv);
    store(tile, softmax, o, words);
  }

  std::vector<Value> tokens_of(const QueryTile& tile, const std::vector<Value>& rows) {
    const PackedHeads heads(b_, block_.plan, block_.args);
    std::vector<Value> tokens;
    for (const Value row : rows) tokens.push_back(heads.place_of(tile, row).token);
    return tokens;
  }

  std::vector<Value> row_factors(Value words, const QueryTile& tile,
                                 const std::vector<Value>& numbers) {
    std::vector<Value> factors;
    for (const Value number : numbers) {
      const Value row = b_.sub(number, tile.first_row);
      factors.push_back(b_.emit1(Op::kLdSharedF32, {b_.add(words, b_.mul(row, constant(4))),
                                                    constant(WgmmaBlock::kRowFactorBytes)}));
    }
    return factors;
  }

  void store(const QueryTile& tile, const OnlineSoftmax& softmax, const WgmmaAccumulator& o,
             Value words) {
    const Value tid = b_.bit_and(b_.emit1(Op::kTidAgain, {}), constant(kWarpgroupThreads - 1));
    const Value column = b_.mul(b_.bit_and(tid, constant(3)), constant(2));
    RowResults results = {.rows = rows_of_thread(b_, tile, 1, tid),
                          .sums = block_.ones ? o.row_sum() : softmax.row_sum(),
                          .offsets = softmax.row_offset(),
                          .elements = [&](int, int column_tile) { return o.elements(column_tile); },
                          .value_scales = {},
                          .value_means = {}};
    const Value scales = b_.add(words, b_.mul(column, constant(4)));
    const auto from = [&](int first_word) {
      return [this, scales, first_word](int column_tile) {
        const int word = first_word + column_tile * kFragmentColumns;
        return b_.emit(Op::kLdSharedV2F32,
                       {scales, constant(WgmmaBlock::kValueScaleBytes + word * 4)});
      };
    };
    if (value_scale_words(variant_) > 0) results.value_scales = from(0);
    if (variant_.v.smoothing == Smoothing::kMean) {
      results.value_means = from(padded_value_head_dim(variant_));
    }
    store_output(b_, block_.plan, block_.args, tile, results);
  }

  // P of a key tile in the place of its scores.
  using Softmax = std::function<OnlineSoftmax::Rescale(const Scores&, Value key_tile, bool masked)>;

  void compute_in_order(const MaskRegions& regions, Value q_rows, RingCursor& kv,
                        WgmmaAccumulator& o, const Softmax& softmax) {
    for (const TileRun& run : regions.runs()) {
      b_.comment(run.masked ? "key tiles that need the mask" : "key tiles that every row sees");
      b_.loop(run.begin, block_.once(run.end), constant(1), [&](Value key_tile) {
        const Scores s = scores_.create();
        kv_ring_.wait(kv);
        scores_.start(s, q_rows, kv);
        scores_.finish(s, 0);
        const OnlineSoftmax::Rescale rescale = softmax(s, key_tile, run.masked);
        o.rescale(rescale);
        turns_.pass(s.registers());
        o.add(o.convert(s), value_descriptor(b_, variant_, kv_ring_.units(kv, WgmmaBlock::kValues)),
              key_tile);
        kv_ring_.release(kv);
        kv.advance();
      });
    }
  }

  // Q K^T of a tile and P V of the one before run beside the softmax: FlashAttention-3,
  // section 3.2.
  void compute_overlapped(const MaskRegions& regions, Value q_rows, RingCursor& kv,
                          WgmmaAccumulator& o, const Softmax& softmax) {
    const Value first = regions.first_tile();
    const auto next_stage = [&] {
      kv_ring_.release(kv);
      kv.advance();
    };
    b_.when(b_.less(first, regions.end_tile()), [&] {
      b_.comment("the first key tile: nothing to overlap with");
      const Scores s = scores_.create();
      kv_ring_.wait(kv);
      scores_.start(s, q_rows, kv);
      scores_.finish(s, 0);
      softmax(s, first, true);
      turns_.pass(s.registers());
      next_stage();
      const std::vector<Var> p = o.convert(s);
      const auto start_values = [&] {
        o.start(p, value_descriptor(b_, variant_, kv_ring_.units(kv, WgmmaBlock::kValues)));
      };
      for (const TileRun& run : regions.runs()) {
        b_.comment(run.masked ? "key tiles that need the mask" : "key tiles that every row sees");
        b_.loop(b_.max(run.begin, b_.add(first, constant(1))), block_.once(run.end), constant(1),
                [&](Value key_tile) {
                  const Scores next = scores_.create();
                  kv_ring_.wait(kv);
                  scores_.start(next, q_rows, kv);
                  start_values();
                  scores_.finish(next, 1);
                  const Value before = b_.sub(key_tile, constant(1));
                  const OnlineSoftmax::Rescale rescale = softmax(next, key_tile, run.masked);
                  b_.tie(next.registers());
                  o.finish(rescale, before, [&] { turns_.pass(); });
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

  // Key tiles that only other warpgroups' rows see: their turns, and as many stages.
  void skip(Value begin, Value end, RingCursor& kv) {
    b_.loop(begin, end, constant(1), [&](Value) {
      turns_.take();
      turns_.pass();
      skip_stage(kv);
    });
  }
  void skip_stage(RingCursor& kv) {
    kv_ring_.wait(kv);
    kv_ring_.release(kv);
    kv.advance();
  }
  // With values behind the keys there are more stages than key tiles; a warpgroup that sees none
  // has not met them yet.
  void skip_last_stages(const MaskRegions& own, const MaskRegions& block, RingCursor& kv) {
    if (block_.value_lag() == 0) return;
    const Value sees_none = b_.equal(own.first_tile(), own.end_tile());
    const Value has_stages = b_.less(block.first_tile(), block.end_tile());
    const Value count =
        b_.select(b_.both(sees_none, has_stages), constant(block_.value_lag()), constant(0));
    b_.loop(constant(0), count, constant(1), [&](Value) { skip_stage(kv); });
  }

  WgmmaBlock block_;
  Builder& b_;
  const Variant& variant_;
  const Schedule& schedule_;
  const BulkRing& kv_ring_;
  WgmmaScores scores_;
  Turns turns_;
};

}  // namespace

ir::Function generate_attention_wgmma(const ForwardPlan& plan) {
  return WgmmaAttention(plan).generate();
}

}  // namespace sagejit
