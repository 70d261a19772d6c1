#include "compiler/kernels/prepare_order.h"

namespace sagejit {

using ir::constant;
using ir::Value;

// Rounds are of three kinds, and those of a kind, which follow one another, of one length: `lag`
// rounds of statistics alone, then of both, then of tiles alone. Nothing that all numbers share is
// computed here: assemblers would keep it, in registers that the items need.
PrepareOrder::Place PrepareOrder::find(Value number) const {
  const auto& [heads, statistics, tiles, items, lag, lag_items, heads_ahead] = sizes_;
  const Value is_first = b_.less(number, lag_items);
  const auto [pair, in_pair] = items.divide(b_.max(b_.sub(number, lag_items), constant(0)));
  const Value is_last = b_.both(b_.less_equal(lag_items, number), b_.less_equal(heads_ahead, pair));
  const Value in_last = b_.add(in_pair, b_.mul(b_.sub(pair, heads_ahead), items.value()));
  const Divisor length(b_, b_.select(is_last, tiles.value(), statistics.value()),
                       b_.select(is_last, tiles.reciprocal(), statistics.reciprocal()));
  const auto [single, in_single] = length.divide(b_.select(is_last, in_last, number));

  const Value is_single = b_.either(is_first, is_last);
  const Value round = b_.select(is_single, single, pair);  // of its kind
  const Value in_round = b_.select(is_single, in_single, in_pair);
  const Value before_tiles = b_.select(is_last, constant(0), statistics.value());
  const Value is_statistics = b_.less(in_round, before_tiles);
  const Value of_pair = b_.select(is_statistics, lag, constant(0));
  const Value first_head =
      b_.select(is_last, heads_ahead, b_.select(is_first, constant(0), of_pair));
  const Value head = b_.add(round, first_head);
  return {b_.less(head, heads), is_statistics, head,
          b_.select(is_statistics, in_round, b_.sub(in_round, before_tiles))};
}

}  // namespace sagejit
