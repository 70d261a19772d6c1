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
        scratch_(b.smem("scratch", plan.scratch_bytes(), 128)),
        k_(b, args, plan.k, scratch_),
        q_(b, args, plan.q, scratch_) {}

  // Tiles of a K head: those of K, of V, of the scores of Q's means, as far as there are such, then
  // those of the Q that attends to it, head by head.
  Item tile(Value kv_batch_head, Value index) const {
    const auto [batch, kv_head] = divide(kv_batch_head, "hkv");
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
    const auto [head_in_group, q_tile] =
        divide(b_.max(b_.sub(index, first), constant(0)), "q_tiles");
    const Value q_head = b_.add(b_.mul(kv_head, args_["group_heads"]), head_in_group);
    const Value is_kv = b_.less(index, first);
    return {
        b_.select(is_kv, kind, constant(kQueries)),
        {b_.select(is_kv, tile, q_tile), b_.select(is_kv, kv_head, q_head), batch, kv_batch_head}};
  }
  Item tile(Value number) const {
    const auto [kv_batch_head, index] = divide(number, "head_tiles");
    return tile(kv_batch_head, index);
  }

  Item item(const PrepareOrder::Place& place) const {
    const Item as_tile = tile(place.head, place.index);
    const auto [batch, kv_head] = divide(place.head, "hkv");
    const auto choose = [&](Value a, Value b) { return b_.select(place.is_statistics, a, b); };
    return {
        b_.select(place.exists, choose(constant(kStatistics), as_tile.kind), constant(kNothing)),
        {choose(place.index, as_tile.place.tile), choose(kv_head, as_tile.place.head), batch,
         place.head}};
  }

  void run(const Item& item, const Meanwhile& meanwhile) const {
    const TilePlace& place = item.place;
    std::vector<Case> cases = {
        {kKeys, [&] { k_.run(place, meanwhile); }},
        {kQueries, [&] { q_.run(place, meanwhile); }},
        {kValues, [&] { prepare_values(b_, args_, plan_.v, place, scratch_, meanwhile); }},
        {kMeanScores,
         [&] { prepare_mean_scores(b_, args_, plan_.mean_scores, place, scratch_, meanwhile); }},
        {kStatistics, [&] { fold_tokens(b_, args_, plan_, place, scratch_, meanwhile); }}};
    dispatch(item, std::move(cases));
  }

 private:
  using Case = std::pair<Kind, std::function<void()>>;

  bool counts_statistics() const { return args_.has("prepare_counters"); }

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
    b_.when_uniform(b_.equal(item.kind, constant(cases[first].first)), cases[first].second,
                    [&] { dispatch(item, cases, first + 1); });
  }

  Divisor::Result divide(Value x, std::string_view by) const {
    return Divisor(b_, args_, by).divide(x);
  }

  Builder& b_;
  const KernelArgs& args_;
  const ForwardPlan& plan_;
  Value scratch_;
  RowQuantizer k_, q_;
};

// A team takes items, one after the other, until none is left. One thread finds the next: it takes
// its number under the last work on an item, no earlier, as others may wait for what it takes.
// Another says that an item is done: of tiles while the loads of the next one are on their way, as
// it waits until all that the team has stored is seen; of statistics at once, since who completes
// a head's chunks folds them.
//
// That cannot hang: an item waits only for items with smaller numbers, a team takes its items in
// order, and nothing that is done stays unsaid while the team waits; so the smallest number that is
// not done is one that its team works on.
class Turnstile {
 public:
  Turnstile(Builder& b, const KernelArgs& args, const ForwardPlan& plan, const Items& items)
      : b_(b),
        args_(args),
        plan_(plan),
        items_(items),
        order_(b, {args["kv_heads"],
                   {b, args, "head_statistics"},
                   {b, args, "head_tiles"},
                   {b, args, "head_items"},
                   args["lag"],
                   args["lag_items"],
                   args["heads_ahead"]}),
        shared_(b.smem("items", kPlaces * kItemBytes + 4)),
        completes_head_(b.add(shared_, constant(kPlaces * kItemBytes))),
        taken_(b.var(constant(0))),
        place_(b.var(constant(0))) {
    for (int i = 0; i < kWords; ++i) words_.push_back(b.var(constant(0)));
  }

  void run() {
    b_.when(is_thread(kCounter), [&] {
      b_.emit(Op::kStSharedI32, {shared_, constant(0), constant(kNothing)});
    });
    take();
    advance({});
    b_.loop_while(words_[0], [&] {
      const Item item{b_.get(words_[0]),
                      {b_.get(words_[1]), b_.get(words_[2]), b_.get(words_[3]), b_.get(words_[4])}};
      items_.run(item, {.loading = [&] { count_tile_before(); }, .last_work = [&] { take(); }});
      count_tile_before();  // if nothing was loaded
      count_statistics(item);
      advance([&] { fold_completed(item); });
    });
    count_tile_before();
  }

 private:
  static constexpr int kWords = 5, kItemBytes = 32;       // kind, tile, head, batch, K head
  static constexpr int kPlaces = 4;                       // of items in turn
  static constexpr int kBefore = kPlaces - 1, kNext = 1;  // from the present item's
  static constexpr int kFinder = 32, kCounter = 0;        // threads, of two warps

  Value is_thread(int number) const { return b_.equal(tid_again(b_), constant(number)); }

  Value words_at(int distance) const {
    const Value bytes = b_.add(b_.get(place_), constant(distance * kItemBytes));
    return b_.add(shared_, b_.bit_and(bytes, constant(kPlaces * kItemBytes - 1)));
  }

  void take() {
    b_.when(is_thread(kFinder), [&] {
      b_.set(taken_, b_.emit1(Op::kAtomRelaxedGlobalAddI32,
                              {args_["prepare_counters"], constant(kItemsTaken * 4), constant(1)}));
    });
  }

  // What was taken becomes the present item. Behind the barrier everything that the team has stored
  // is seen by those who see it counted, nobody uses shared memory for it any more, and all know
  // what was taken.
  void advance(const std::function<void()>& behind_barrier) {
    const Value next = words_at(kNext);
    b_.when(is_thread(kFinder), [&] {
      const auto [kind, place] = items_.item(order_.find(b_.get(taken_)));
      b_.emit(Op::kStSharedV4, {next, constant(0), kind, place.tile, place.head, place.batch});
      b_.emit(Op::kStSharedI32, {next, constant(16), place.kv_batch_head});
    });
    b_.barrier();
    call(behind_barrier);
    std::vector<Value> words = b_.emit(Op::kLdSharedV4, {next, constant(0)});
    words.push_back(b_.emit1(Op::kLdSharedI32, {next, constant(16)}));
    for (int i = 0; i < kWords; ++i) {
      // The same in all lanes: said so, addresses are kept once a warp.
      b_.set(words_[i], b_.emit1(Op::kShflI32, {words[i], constant(0)}));
    }
    b_.set(place_, b_.sub(next, shared_));
  }

  // That the item before the present one is done, if it was a tile; once.
  void count_tile_before() const {
    b_.when(is_thread(kCounter), [&] {
      const Value words = words_at(kBefore);
      const Value kind = b_.emit1(Op::kLdSharedI32, {words, constant(0)});
      b_.when(b_.less(constant(kStatistics), kind), [&] {
        b_.emit(Op::kStSharedI32, {words, constant(0), constant(kNothing)});
        const Value head = b_.emit1(Op::kLdSharedI32, {words, constant(16)});
        b_.emit(Op::kRedReleaseGlobalAddI32,
                {head_counters(b_, args_, head), constant(kTilesDone * 4), constant(1)});
      });
    });
  }

  // That a chunk is there, and whether it completes its head.
  void count_statistics(const Item& item) const {
    b_.when_uniform(is_statistics(item), [&] {
      b_.barrier();
      b_.when(is_thread(kCounter), [&] {
        const Value counters = head_counters(b_, args_, item.place.kv_batch_head);
        const Value earlier =
            b_.emit1(Op::kAtomGlobalAddI32, {counters, constant(kStatisticsDone * 4), constant(1)});
        const Value is_last = b_.equal(b_.add(earlier, constant(1)), args_["head_statistics"]);
        b_.emit(Op::kStSharedI32,
                {completes_head_, constant(0), b_.select(is_last, constant(1), constant(0))});
      });
    });
  }
  void fold_completed(const Item& item) const {
    b_.when_uniform(is_statistics(item), [&] {
      const Value completes = b_.emit1(Op::kLdSharedI32, {completes_head_, constant(0)});
      b_.when_uniform(b_.not_equal(completes, constant(0)), [&] {
        const Value head = item.place.kv_batch_head;
        fold_chunks(b_, args_, plan_, head);
        b_.barrier();
        b_.when(is_thread(kCounter), [&] {
          b_.emit(Op::kRedReleaseGlobalAddI32,
                  {head_counters(b_, args_, head), constant(kStatisticsDone * 4), constant(1)});
        });
      });
    });
  }
  Value is_statistics(const Item& item) const { return b_.equal(item.kind, constant(kStatistics)); }

  Builder& b_;
  const KernelArgs& args_;
  const ForwardPlan& plan_;
  const Items& items_;
  PrepareOrder order_;
  Value shared_, completes_head_;
  Var taken_;  // of the thread that finds
  Var place_;  // of the present item, in bytes
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
  Turnstile(b, args, plan, items).run();
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
