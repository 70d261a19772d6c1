#include <functional>

#include "compiler/kernels/generators.h"
#include "compiler/kernels/prepare.h"
#include "compiler/kernels/prepare_order.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::Op;
using ir::Value;
using ir::Var;

namespace {

// What a team does at a time; i32.
enum Kind { kNothing, kStatistics, kKeys, kValues, kMeanScores, kQueries };
struct Item {
  Value kind;
  TilePlace place;
};

class Items {
 public:
  // A barrier must follow.
  Items(Builder& b, const KernelArgs& args, const ForwardPlan& plan)
      : b_(b),
        args_(args),
        plan_(plan),
        k_(b, args, plan.k),
        q_(b, args, plan.q),
        scratch_(b.smem("scratch", plan.scratch_bytes(), 128)) {
    if (counts_statistics()) earlier_ = b.smem("earlier", 4);
  }

  // Tiles of a K head: those of K, of V, of the scores of Q's means, as far as there are such, then
  // those of the Q that attends to it, head by head.
  Item tile(Value kv_batch_head, Value index) const {
    const auto [batch, kv_head] = divide(kv_batch_head, args_["hkv"]);
    std::vector<std::pair<Kind, Value>> of_kv = {{kKeys, args_["k_tiles"]}};
    if (plan_.v.is_prepared) of_kv.emplace_back(kValues, args_["v_tiles"]);
    if (plan_.mean_scores.exists) of_kv.emplace_back(kMeanScores, args_["mean_score_tiles"]);
    Value kind, tile, first = constant(0);
    for (const auto& [next_kind, count] : of_kv) {
      const Value is_behind = b_.less_equal(first, index), in_kind = b_.sub(index, first);
      kind = kind ? b_.select(is_behind, constant(next_kind), kind) : constant(next_kind);
      tile = tile ? b_.select(is_behind, in_kind, tile) : in_kind;
      first = b_.add(first, count);
    }
    const auto [head_in_group, q_tile] = divide(b_.sub(index, first), args_["q_tiles"]);
    const Value q_head = b_.add(b_.mul(kv_head, args_["group_heads"]), head_in_group);
    const Value is_kv = b_.less(index, first);
    return {
        b_.select(is_kv, kind, constant(kQueries)),
        {b_.select(is_kv, tile, q_tile), b_.select(is_kv, kv_head, q_head), batch, kv_batch_head}};
  }
  Item tile(Value number) const {
    const auto [kv_batch_head, index] = divide(number, args_["head_tiles"]);
    return tile(kv_batch_head, index);
  }

  Item item(const PrepareOrder::Place& place) const {
    const Item as_tile = tile(place.head, place.index);
    const auto [batch, kv_head] = divide(place.head, args_["hkv"]);
    const auto choose = [&](Value a, Value b) { return b_.select(place.is_statistics, a, b); };
    return {
        b_.select(place.exists, choose(constant(kStatistics), as_tile.kind), constant(kNothing)),
        {choose(place.index, as_tile.place.tile), choose(kv_head, as_tile.place.head), batch,
         place.head}};
  }

  // `last_work`: what is called when nothing is left to wait for, with still some work to do.
  void run(const Item& item, const LastWork& last_work) const {
    const TilePlace& place = item.place;
    std::vector<Case> cases = {
        {kKeys, [&] { k_.run(place, last_work); }},
        {kQueries, [&] { q_.run(place, last_work); }},
        {kValues, [&] { prepare_values(b_, args_, plan_.v, place, scratch_, last_work); }},
        {kMeanScores,
         [&] { prepare_mean_scores(b_, args_, plan_.mean_scores, place, scratch_, last_work); }},
        {kStatistics, [&] {
           fold_tokens(b_, args_, plan_, place, scratch_, last_work);
           fold_head_if_last(place.kv_batch_head);
         }}};
    dispatch(item, std::move(cases));
  }

  // That a tile is done.
  void count_tile(const Item& item) const {
    b_.when(b_.less(constant(kStatistics), item.kind), [&] {
      const Value counters = head_counters(b_, args_, item.place.kv_batch_head);
      b_.emit(Op::kRedReleaseGlobalAddI32, {counters, constant(kTilesDone * 4), constant(1)});
    });
  }

  Value is(const Item& item, Kind kind) const { return b_.equal(item.kind, constant(kind)); }

 private:
  using Case = std::pair<Kind, std::function<void()>>;

  bool counts_statistics() const { return args_.has("prepare_counters"); }

  // Who completes a head's chunks folds them: nobody has to wait for that.
  void fold_head_if_last(Value batch_head) const {
    const Value counters = head_counters(b_, args_, batch_head);
    const Value is_first = b_.equal(b_.tid(), constant(0));
    b_.barrier();
    b_.when(is_first, [&] {
      const Value earlier =
          b_.emit1(Op::kAtomGlobalAddI32, {counters, constant(kStatisticsDone * 4), constant(1)});
      b_.emit(Op::kStSharedI32, {earlier_, constant(0), earlier});
    });
    b_.barrier();
    const Value earlier = b_.emit1(Op::kLdSharedI32, {earlier_, constant(0)});
    const Value is_last = b_.equal(b_.add(earlier, constant(1)), args_["head_statistics"]);
    b_.when_uniform(is_last, [&] {
      fold_chunks(b_, args_, plan_, batch_head);
      b_.barrier();
      b_.when(is_first, [&] {
        b_.emit(Op::kRedReleaseGlobalAddI32,
                {counters, constant(kStatisticsDone * 4), constant(1)});
      });
    });
  }

  // The case of the item's kind, of those that the launch has.
  void dispatch(const Item& item, std::vector<Case> cases) const {
    std::erase_if(cases, [&](const Case& one) {
      return (one.first == kStatistics && !counts_statistics()) ||
             (one.first == kValues && !plan_.v.is_prepared) ||
             (one.first == kMeanScores && !plan_.mean_scores.exists);
    });
    dispatch(item, cases, 0);
  }
  void dispatch(const Item& item, const std::vector<Case>& cases, size_t first) const {
    if (first == cases.size()) return;
    b_.when_uniform(is(item, cases[first].first), cases[first].second,
                    [&] { dispatch(item, cases, first + 1); });
  }

  // a / b and a mod b.
  std::pair<Value, Value> divide(Value a, Value b) const {
    const Value quotient = b_.div(a, b);
    return {quotient, b_.sub(a, b_.mul(quotient, b))};
  }

  Builder& b_;
  const KernelArgs& args_;
  const ForwardPlan& plan_;
  RowQuantizer k_, q_;
  Value scratch_;
  Value earlier_;  // chunks of a head that were there before the team's
};

// A team takes items, one after the other, until none is left. Under the last work on one, its
// first thread takes the next: no earlier, as others may wait for what it takes. That cannot hang:
// an item waits only for items with smaller numbers, and a team takes its items in order; so the
// smallest that is not done is one that its team works on.
class Turnstile {
 public:
  Turnstile(Builder& b, const KernelArgs& args, const Items& items)
      : b_(b),
        args_(args),
        items_(items),
        order_(b, {args["kv_heads"], args["head_statistics"], args["head_tiles"], args["lag"]}),
        shared_(b.smem("items", 2 * kItemBytes)),
        is_first_(b.equal(b.tid(), constant(0))),
        taken_(b.var(constant(0))),
        turn_(b.var(constant(0))) {
    for (int i = 0; i < kWords; ++i) words_.push_back(b.var(constant(0)));
  }

  void run() {
    take();
    advance({});
    b_.loop_while(words_[0], [&] {
      const Item item{b_.get(words_[0]),
                      {b_.get(words_[1]), b_.get(words_[2]), b_.get(words_[3]), b_.get(words_[4])}};
      items_.run(item, [&] { take(); });
      advance([&] { items_.count_tile(item); });
    });
  }

 private:
  static constexpr int kWords = 5, kItemBytes = 32;  // kind, tile, head, batch, K head

  void take() {
    b_.when(is_first_, [&] {
      b_.set(taken_, b_.emit1(Op::kAtomRelaxedGlobalAddI32,
                              {args_["prepare_counters"], constant(kItemsTaken * 4), constant(1)}));
    });
  }

  // What was taken becomes the present item. Behind the barrier everything that the team has stored
  // is seen by those who see it counted, nobody uses shared memory for it any more, and all know
  // what was taken. The words of that take turns at two places: nobody still reads those of the
  // item before the last.
  void advance(const std::function<void()>& count) {
    const Value place_of_words = b_.add(shared_, b_.get(turn_));
    b_.when(is_first_, [&] {
      const auto [kind, place] = items_.item(order_.find(b_.get(taken_)));
      b_.emit(Op::kStSharedV4,
              {place_of_words, constant(0), kind, place.tile, place.head, place.batch});
      b_.emit(Op::kStSharedI32, {place_of_words, constant(16), place.kv_batch_head});
    });
    b_.barrier();
    if (count) b_.when(is_first_, count);
    std::vector<Value> words = b_.emit(Op::kLdSharedV4, {place_of_words, constant(0)});
    words.push_back(b_.emit1(Op::kLdSharedI32, {place_of_words, constant(16)}));
    for (int i = 0; i < kWords; ++i) {
      // The same in all lanes: said so, addresses are kept once a warp.
      b_.set(words_[i], b_.emit1(Op::kShflI32, {words[i], constant(0)}));
    }
    b_.set(turn_, b_.bit_xor(b_.get(turn_), constant(kItemBytes)));
  }

  Builder& b_;
  const KernelArgs& args_;
  const Items& items_;
  PrepareOrder order_;  // of the first thread
  Value shared_, is_first_;
  Var taken_;  // of the first thread
  Var turn_;   // in bytes
  std::vector<Var> words_;
};

}  // namespace

ir::Function generate_quantize(const ForwardPlan& plan) {
  Builder b("quantize", kPrepareThreads, plan.prepare_teams);
  const KernelArgs args(b, *plan.find_launch("quantize"));
  const Items items(b, args, plan);
  const Item item = items.tile(b.emit1(Op::kBlockX, {}));
  b.barrier();
  items.run(item, {});
  return b.finish(plan.target->sm);
}

ir::Function generate_prepare(const ForwardPlan& plan) {
  Builder b("prepare", Builder::Teams{kPrepareThreads, plan.prepare_teams});
  const KernelArgs args(b, *plan.find_launch("prepare"));
  const Items items(b, args, plan);
  Turnstile(b, args, items).run();
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
