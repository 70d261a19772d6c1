#include "compiler/kernels/scale_factors.h"

#include "compiler/ir/tile.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::Op;
using ir::Value;

namespace {

constexpr int kRowTile = 16;

int num_words(const QuantizePlan& plan) {
  return plan.scale_row_bytes() / kScaleWordBytes;
}

// Words of shared memory that follow one another, as few loads as their number allows.
std::vector<Value> load_words(Builder& b, Value address, int offset, int count) {
  const int together = count % 4 == 0 ? 4 : count % 2 == 0 ? 2 : 1;
  const Op op = together == 4   ? Op::kLdSharedV4
                : together == 2 ? Op::kLdSharedV2
                                : Op::kLdSharedI32;
  std::vector<Value> words;
  for (int i = 0; i < count; i += together) {
    for (const Value word : b.emit(op, {address, constant(offset + i * kScaleWordBytes)})) {
      words.push_back(word);
    }
  }
  return words;
}

}  // namespace

Value scale_factor_row(Builder& b) {
  return b.add(b.mul(b.bit_and(b.lane(), constant(3)), constant(kFragmentColumns)),
               b.shr(b.lane(), 2));
}

void copy_bytes(Builder& b, Value shared, Value global, int bytes) {
  const TileLayout layout{bytes / kChunkBytes, 1};
  ir::TileLoader(b, layout, 1, b.zext(constant(kChunkBytes)))
      .load(shared, global, constant(layout.rows));
}

KeyScaleFactors::KeyScaleFactors(Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                                 const QueryTile& tile)
    : b_(b),
      plan_(plan),
      head_address_(b.add64(args["k_scales"], b.mul64(b.zext(batch_kv_head_of(b, args, tile)),
                                                      args["k_scales_stride_h"]))) {}

void KeyScaleFactors::load(Value address, Value first_key) const {
  const Value offset = b_.mul64(b_.zext(first_key), b_.zext(constant(plan_.k.scale_row_bytes())));
  copy_bytes(b_, address, b_.add64(head_address_, offset),
             k_scale_tile_bytes(plan_.variant, plan_.schedule));
}

std::vector<std::vector<Value>> KeyScaleFactors::read(Value address) const {
  const int row_bytes = plan_.k.scale_row_bytes(), rows = kScaledTiles * kFragmentColumns;
  const Value mine = b_.add(address, b_.mul(scale_factor_row(b_), constant(row_bytes)));
  std::vector<std::vector<Value>> words;
  for (int row = 0; row < plan_.schedule.block_n; row += rows) {
    words.push_back(load_words(b_, mine, row * row_bytes, num_words(plan_.k)));
  }
  return words;
}

std::vector<std::vector<Value>> load_query_scale_factors(Builder& b, const ForwardPlan& plan,
                                                         const KernelArgs& args,
                                                         const QueryTile& tile, Value first_row,
                                                         int num_row_tiles) {
  const Value head = b.add64(
      args["q_scales"],
      b.mul64(b.zext(batch_head_of(b, args, tile.batch, tile.head)), args["q_scales_stride_h"]));
  const Value quad_lane = b.bit_and(b.lane(), constant(3));
  const Value in_tile = b.add(b.shr(b.lane(), 2),
                              b.mul(b.bit_and(quad_lane, constant(1)), constant(kFragmentColumns)));
  std::vector<std::vector<Value>> words;
  for (int first_tile = 0; first_tile < num_row_tiles; first_tile += 2) {
    Value row = b.add(b.add(first_row, constant(first_tile * kRowTile)), in_tile);
    const bool is_pair = first_tile + 1 < num_row_tiles;
    if (is_pair) row = b.add(row, b.mul(b.shr(quad_lane, 1), constant(kRowTile)));
    const Value existing = b.min(row, b.sub(args["m"], constant(1)));
    const Value address = b.address(head, existing, plan.q.scale_row_bytes());
    words.emplace_back();
    for (int word = 0; word < num_words(plan.q); ++word) {
      words.back().push_back(
          b.emit1(Op::kLdGlobalI32, {address, constant(word * kScaleWordBytes)}));
    }
  }
  return words;
}

}  // namespace sagejit
