#include "compiler/kernels/prepare_order.h"

namespace sagejit {

using ir::constant;
using ir::Value;
using ir::Var;

PrepareOrder::PrepareOrder(ir::Builder& b, const Sizes& sizes)
    : b_(b), sizes_(sizes), round_(b.var(constant(0))), first_(b.var(constant(0))) {}

Value PrepareOrder::has_statistics(Value round) const {
  return b_.less(round, sizes_.heads);
}

Value PrepareOrder::round_size(Value round) const {
  const Value has_tiles = b_.less_equal(sizes_.lag, round);
  return b_.add(b_.select(has_statistics(round), sizes_.head_statistics, constant(0)),
                b_.select(has_tiles, sizes_.head_tiles, constant(0)));
}

PrepareOrder::Place PrepareOrder::find(Value number) {
  const Value num_rounds = b_.add(sizes_.heads, sizes_.lag);
  const auto is_behind = [&] {  // the present round, and there is another
    const Value end = b_.add(b_.get(first_), round_size(b_.get(round_)));
    const Value behind = b_.both(b_.less_equal(end, number), b_.less(b_.get(round_), num_rounds));
    return b_.select(behind, constant(1), constant(0));
  };
  const Var goes_on = b_.var(is_behind());
  b_.loop_while(goes_on, [&] {
    b_.set(first_, b_.add(b_.get(first_), round_size(b_.get(round_))));
    b_.set(round_, b_.add(b_.get(round_), constant(1)));
    b_.set(goes_on, is_behind());
  });
  const Value round = b_.get(round_), in_round = b_.sub(number, b_.get(first_));
  const Value statistics = b_.select(has_statistics(round), sizes_.head_statistics, constant(0));
  const Value is_statistics = b_.less(in_round, statistics);
  return {b_.less(round, num_rounds), is_statistics,
          b_.select(is_statistics, round, b_.sub(round, sizes_.lag)),
          b_.select(is_statistics, in_round, b_.sub(in_round, statistics))};
}

}  // namespace sagejit
