#include "compiler/kernels/value_tiles.h"

#include "compiler/kernels/scale_factors.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::FragmentReader;
using ir::Op;
using ir::TileLoader;
using ir::Value;

namespace {

constexpr int kElementBytes = 2;  // of the caller's V

// Prepared codes are copied as one range of memory, a chunk a row.
TileLoader loader_of(Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                     const TileLayout& layout) {
  if (!plan.v.is_prepared) {
    const int chunks = plan.variant.value_head_dim * kElementBytes / kChunkBytes;
    return {b, layout, chunks, args["v_stride_n"]};
  }
  const TileLayout range{layout.rows * layout.row_chunks, 1};
  return {b, range, 1, b.zext(constant(kChunkBytes))};
}

FragmentReader reader_of(Builder& b, const ForwardPlan& plan, const TileLayout& layout) {
  return plan.v.is_prepared ? FragmentReader(b, layout, FragmentReader::Order::kChunksFirst, false)
                            : FragmentReader(b, layout, FragmentReader::Order::kRowsFirst, true);
}

}  // namespace

ValueTiles::ValueTiles(Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                       const QueryTile& query_tile)
    : b_(b),
      plan_(plan),
      args_(args),
      query_tile_(query_tile),
      layout_(v_tile(plan.variant, plan.schedule)),
      loader_(loader_of(b, plan, args, layout_)),
      reader_(reader_of(b, plan, layout_)),
      head_address_(head_address()) {
  if (plan.v.group_scales) {
    scales_address_ = b.add64(args["v_scales"],
                              b.mul64(first_token(), b.zext(constant(plan.v.scale_token_bytes()))));
  }
}

// Of the head, counted over all heads.
Value ValueTiles::first_token() const {
  return b_.mul64(b_.zext(batch_kv_head_of(b_, args_, query_tile_)), b_.zext(args_["padded_n"]));
}

Value ValueTiles::head_address() const {
  if (!plan_.v.is_prepared) {
    return row_address(b_, args_, "v", "n", {query_tile_.batch, query_tile_.kv_head, constant(0)});
  }
  return b_.add64(args_["v_codes"],
                  b_.mul64(first_token(), b_.zext(constant(plan_.v.token_bytes()))));
}

void ValueTiles::load(Value address, Value scales, Value key_tile) const {
  const Value key = b_.mul(key_tile, constant(plan_.schedule.block_n));
  if (!plan_.v.is_prepared) {
    const Value first_row = b_.mul64(b_.zext(key), args_["v_stride_n"]);
    return loader_.load(address, b_.add64(head_address_, first_row), b_.sub(args_["n"], key));
  }
  // Tokens are padded to whole tiles.
  const Value first_code = b_.mul64(b_.zext(key), b_.zext(constant(plan_.v.token_bytes())));
  loader_.load(address, b_.add64(head_address_, first_code),
               constant(layout_.rows * layout_.row_chunks));
  if (!plan_.v.group_scales) return;
  const Value first_scale = b_.mul64(b_.zext(key), b_.zext(constant(plan_.v.scale_token_bytes())));
  copy_bytes(b_, scales, b_.add64(scales_address_, first_scale),
             v_scale_tile_bytes(plan_.variant, plan_.schedule));
}

ValueTiles::Tile ValueTiles::at(Value address, Value scales) const {
  Tile tile = {reader_.at(address), {}};
  if (plan_.v.group_scales) {
    tile.scales = b_.add(scales, b_.mul(scale_factor_row(b_), constant(kScaleWordBytes)));
  }
  return tile;
}

std::vector<Value> ValueTiles::read(const Tile& tile, int first_key, int column_tile) const {
  return plan_.v.is_prepared ? reader_.read(tile.codes, column_tile * kFragmentColumns,
                                            first_key * bits_of(plan_.v.type) / 8 / kChunkBytes)
                             : reader_.read(tile.codes, first_key, column_tile);
}

Value ValueTiles::read_scales(const Tile& tile, int first_key, int column_tile) const {
  const int block = first_key / kScaleWordElements * plan_.v.scale_columns;
  const int first = (block + column_tile * kFragmentColumns) * kScaleWordBytes;
  return b_.emit1(Op::kLdSharedI32, {tile.scales, constant(first)});
}

std::vector<Value> ValueTiles::scales(Value quad_lane, int column_tile) const {
  return load_channels(quad_lane, column_tile * kFragmentColumns);
}
std::vector<Value> ValueTiles::means(Value quad_lane, int column_tile) const {
  return load_channels(quad_lane, plan_.v.columns + column_tile * kFragmentColumns);
}

std::vector<Value> ValueTiles::load_channels(Value quad_lane, int column) const {
  const Value batch_head = batch_kv_head_of(b_, args_, query_tile_);
  const Value row = b_.address(args_["v_scales"], batch_head, plan_.v.scales() * 4);
  return b_.emit(Op::kLdGlobalV2F32, {b_.address(row, quad_lane, 8), constant(column * 4)});
}

}  // namespace sagejit
