#include <algorithm>

#include "compiler/kernels/generators.h"
#include "compiler/kernels/prepare.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::Op;
using ir::Value;

namespace {

// As many as registers allow without spilling: a row's tile is held while its maxima are found.
int blocks_per_sm(const ForwardPlan& plan) {
  const int columns = std::max(plan.q.padded_head_dim, plan.v.columns);
  return columns <= 64 ? 4 : columns <= 128 ? 2 : 1;
}

// Heads of `tiles` tiles follow one another.
TilePlace place_of(Builder& b, Value index, Value tiles, Value heads) {
  const Value batch_head = b.div(index, tiles);
  const Value batch = b.div(batch_head, heads);
  return {b.sub(index, b.mul(batch_head, tiles)), b.sub(batch_head, b.mul(batch, heads)), batch};
}

}  // namespace

// Blocks go from the last tile of K and V to the first: what `statistics` read last is what the L2
// cache still has. Those of Q, which nobody has read, come behind.
ir::Function generate_quantize(const ForwardPlan& plan) {
  Builder b("quantize", kPrepareThreads, blocks_per_sm(plan));
  const KernelArgs args(b, *plan.find_launch("quantize"));
  const Value block = b.emit1(Op::kBlockX, {});
  const Value kv_blocks = args["kv_blocks"], k_tiles = args["k_tiles"];
  const auto prepare_kv = [&] {
    const Value index = b.sub(b.sub(kv_blocks, constant(1)), block);
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
  };
  b.when_uniform(b.less(block, kv_blocks), prepare_kv, [&] {
    const Value index = b.sub(block, kv_blocks);
    quantize_rows(b, args, plan.q, place_of(b, index, args["q_tiles"], args["hq"]));
  });
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
