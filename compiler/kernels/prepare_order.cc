#include "compiler/kernels/prepare_order.h"

namespace sagejit {

using ir::constant;
using ir::Value;

Value PrepareOrder::statistics_among(Value count) const {
  const auto& [heads, head_statistics, head_tiles, lag] = sizes_;
  const Value lead = b_.mul(lag, head_statistics);
  const Value round = b_.max(b_.add(head_statistics, head_tiles), constant(1));
  const Value behind_lead = b_.max(b_.sub(count, lead), constant(0));
  const Value rounds = b_.min(b_.div(behind_lead, round), b_.sub(heads, lag));
  const Value in_round = b_.min(b_.sub(behind_lead, b_.mul(rounds, round)), head_statistics);
  const Value found =
      b_.add(b_.add(b_.min(count, lead), b_.mul(rounds, head_statistics)), in_round);
  return b_.min(found, b_.mul(heads, head_statistics));  // behind the last round are none
}

}  // namespace sagejit
