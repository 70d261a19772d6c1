#include "compiler/schedule/schedule.h"

#include <algorithm>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

bool is_legal(const Variant& variant, const Schedule& schedule, const Target& target) {
  try {
    check_schedule(variant, schedule, target);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

Schedule default_schedule(const Variant& variant, const Target& target) {
  // From the most to the least demanding; the first that fits the target's shared memory is taken. The
  // register budget decides the rows of a warp: O takes dv / 2 f32 registers a thread for every 16 rows.
  const bool wide = std::max(padded_head_dim(variant), padded_value_head_dim(variant)) > 128;
  const bool long_interval =
      variant.pv_accumulator.outer.has_value() && variant.pv_accumulator.interval > 64;
  const int block_n = long_interval ? 128 : 64;
  const Schedule candidates[] = {
      {.block_m = 128, .block_n = block_n, .num_warps = wide || long_interval ? 8 : 4, .stages = 2,
       .q_in_registers = !wide, .blocks_per_sm = wide || long_interval ? 1 : 2},
      {.block_m = 128, .block_n = block_n, .num_warps = 8, .stages = 2, .q_in_registers = false,
       .blocks_per_sm = 1},
      {.block_m = 64, .block_n = block_n, .num_warps = 4, .stages = 2, .q_in_registers = false,
       .blocks_per_sm = 1},
      {.block_m = 64, .block_n = 32, .num_warps = 4, .stages = 2, .q_in_registers = false,
       .blocks_per_sm = 1},
  };
  for (const Schedule& candidate : candidates) {
    if (is_legal(variant, candidate, target)) return candidate;
  }
  // Only a long interval can demand too much: every variant fits with tiles of 16 keys.
  const int interval = variant.pv_accumulator.interval;
  Variant nearest = variant;
  const auto fits = [&] {
    return is_legal(nearest, {.block_m = 64, .block_n = 32, .num_warps = 4, .q_in_registers = false},
                    target);
  };
  while (nearest.pv_accumulator.interval > 16 && !fits()) nearest.pv_accumulator.interval /= 2;
  fail(ErrorKind::kUnsupported,
       "variant `{}` does not fit the shared memory of {}: head_dim {} and value_head_dim {} leave no "
       "room for tiles of {} keys, which its two-level accumulation interval needs; the nearest that "
       "fits is an interval of {} keys",
       variant.name, target.name, variant.head_dim, variant.value_head_dim, interval,
       nearest.pv_accumulator.interval);
}

}  // namespace sagejit
