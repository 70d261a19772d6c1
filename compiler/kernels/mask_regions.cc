#include "compiler/kernels/mask_regions.h"

#include "compiler/support/error.h"

namespace sagejit {

using ir::constant;
using ir::Value;

RowRange existing_rows(ir::Builder& b, Value first, int count, Value num_rows) {
  const Value end = b.sub(num_rows, constant(1));
  return {b.min(first, end), b.min(b.add(first, constant(count - 1)), end),
          b.min(b.max(b.sub(num_rows, first), constant(0)), constant(1))};
}

MaskRegions::MaskRegions(ir::Builder& b, const Mask& mask, Value m, Value n, const RowRange& rows,
                         int tile_keys)
    : b_(b), mask_(mask), n_(n) {
  const bool aligned_to_end =
      mask.kind == MaskKind::kCausalBottomRight || mask.kind == MaskKind::kWindow;
  offset_ = aligned_to_end ? b.sub(n, m) : constant(0);
  const Value tile = constant(tile_keys), zero = constant(0);
  // Part of a block's rows, a warpgroup's, may lie behind the last row altogether: they see no key
  // tile, at a place that is among the block's.
  const auto tiles_below = [&](Value keys) { return b.div(b.max(keys, zero), tile); };
  const auto tiles_covering = [&](Value keys) {
    return b.div(b.add(b.max(keys, zero), constant(tile_keys - 1)), tile);
  };
  const Bounds first = bounds_of(rows.first), last = bounds_of(rows.last);
  const Value begin = first.low ? tiles_below(first.low) : zero;
  const Value seen_end = b.max(begin, tiles_covering(b.add(last.high, constant(1))));
  const Value end = b.add(begin, b.mul(rows.exists, b.sub(seen_end, begin)));
  Value full_end = b.min(tiles_below(b.add(first.high, constant(1))), end);
  if (!last.low) {
    runs_ = {{begin, full_end, false}, {full_end, end, true}};
    return;
  }
  const Value full_begin = b.min(b.max(tiles_covering(last.low), begin), end);
  full_end = b.max(full_end, full_begin);
  runs_ = {{begin, full_begin, true}, {full_begin, full_end, false}, {full_end, end, true}};
}

MaskRegions::Bounds MaskRegions::bounds_of(Value row) const {
  const Value last_key = b_.sub(n_, constant(1));
  const Value diagonal = b_.add(row, offset_);
  switch (mask_.kind) {
    case MaskKind::kNone:
      return {{}, last_key};
    case MaskKind::kCausalTopLeft:
    case MaskKind::kCausalBottomRight:
      return {{}, b_.min(diagonal, last_key)};
    case MaskKind::kWindow:
      return {b_.sub(diagonal, constant(mask_.window_left)),
              b_.min(b_.add(diagonal, constant(mask_.window_right)), last_key)};
    default:
      fail(ErrorKind::kInternal, "mask regions: this mask has no row bounds");
  }
}

}  // namespace sagejit
