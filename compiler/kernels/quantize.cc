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

// Heads of `tiles` tiles follow one another.
TilePlace place_of(Builder& b, Value index, Value tiles, Value heads) {
  const Value batch_head = b.div(index, tiles);
  const Value batch = b.div(batch_head, heads);
  return {b.sub(index, b.mul(batch_head, tiles)), b.sub(batch_head, b.mul(batch, heads)), batch};
}

// Tiles of K and V, head by head: those of K, then those of V.
void quantize_kv(Builder& b, const KernelArgs& args, const ForwardPlan& plan, Value index) {
  const Value k_tiles = args["k_tiles"];
  if (!plan.v.is_prepared) {
    return quantize_rows(b, args, plan.k, place_of(b, index, k_tiles, args["hkv"]));
  }
  const TilePlace place = place_of(b, index, b.add(k_tiles, args["v_tiles"]), args["hkv"]);
  b.when_uniform(
      b.less(place.tile, k_tiles), [&] { quantize_rows(b, args, plan.k, place); },
      [&] {
        const Value tile = b.sub(place.tile, k_tiles);
        prepare_values(b, args, plan.v, {tile, place.head, place.batch});
      });
}

// Tiles of K and V, then those of Q.
void quantize_tile(Builder& b, const KernelArgs& args, const ForwardPlan& plan, Value index) {
  const Value kv_tiles = args["kv_tiles"];
  b.when_uniform(
      b.less(index, kv_tiles), [&] { quantize_kv(b, args, plan, index); },
      [&] {
        const Value q_index = b.sub(index, kv_tiles);
        quantize_rows(b, args, plan.q, place_of(b, q_index, args["q_tiles"], args["hq"]));
      });
}

// The block takes items, one after the other, until none is left. It takes the next while it works
// on one. That cannot hang: an item waits only for items with smaller numbers, and the smallest
// that is not done is the one that its block works on.
void for_each_item(Builder& b, const KernelArgs& args, const std::function<void(Value)>& work) {
  const Value shared = b.smem("item", 4);
  const Value is_first = b.equal(b.tid(), constant(0));
  const Var taken = b.var(constant(0));  // of the first thread
  const auto take = [&] {
    b.when(is_first, [&] {
      const Value counters = args["prepare_counters"];
      b.set(taken, b.emit1(Op::kAtomRelaxedGlobalAddI32,
                           {counters, constant(kItemsTaken * 4), constant(1)}));
    });
  };
  const Var item = b.var(constant(0)), goes_on = b.var(constant(0));
  const auto next = [&] {
    b.barrier();  // nobody uses shared memory for the item before
    b.when(is_first, [&] { b.emit(Op::kStSharedI32, {shared, constant(0), b.get(taken)}); });
    b.barrier();
    // The same in all lanes: said so, addresses are kept once a warp.
    const Value all = b.emit1(Op::kLdSharedI32, {shared, constant(0)});
    b.set(item, b.emit1(Op::kShflI32, {all, constant(0)}));
    b.set(goes_on, b.select(b.less(b.get(item), args["num_items"]), constant(1), constant(0)));
  };
  take();
  next();
  b.loop_while(goes_on, [&] {
    take();
    work(b.get(item));
    next();
  });
}

// After a barrier: everything that the block has stored for its item is seen by those who wait.
void count_statistics(Builder& b, const KernelArgs& args, const TilePlace& place) {
  b.barrier();
  b.when(b.equal(b.tid(), constant(0)), [&] {
    const Value batch_head = b.add(b.mul(place.batch, args["hkv"]), place.head);
    const Value counter = b.address(args["prepare_counters"], batch_head, 4);
    b.emit(Op::kRedReleaseGlobalAddI32, {counter, constant(kStatisticsDone * 4), constant(1)});
  });
}

}  // namespace

ir::Function generate_quantize(const ForwardPlan& plan) {
  Builder b("quantize", kPrepareThreads, plan.prepare_blocks_per_sm);
  const KernelArgs args(b, *plan.find_launch("quantize"));
  quantize_tile(b, args, plan, b.emit1(Op::kBlockX, {}));
  return b.finish(plan.target->sm);
}

ir::Function generate_prepare(const ForwardPlan& plan) {
  Builder b("prepare", kPrepareThreads, plan.prepare_blocks_per_sm);
  const KernelArgs args(b, *plan.find_launch("prepare"));
  const PrepareOrder order(
      b, {args["kv_heads"], args["head_statistics"], args["head_tiles"], args["lag"]});
  for_each_item(b, args, [&](Value item) {
    const Value statistics = order.statistics_among(item);
    const Value with_this = order.statistics_among(b.add(item, constant(1)));
    b.when_uniform(
        b.less(statistics, with_this),
        [&] {
          const TilePlace place = place_of(b, statistics, args["head_statistics"], args["hkv"]);
          fold_tokens(b, args, plan, place);
          count_statistics(b, args, place);
        },
        [&] { quantize_tile(b, args, plan, b.sub(item, statistics)); });
  });
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
