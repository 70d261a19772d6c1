#include "compiler/cost/roofline.h"

#include <algorithm>
#include <limits>

#include "compiler/support/error.h"

namespace sagejit::cost {
namespace {

void add(UnitClocks& sum, const UnitClocks& clocks) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += clocks[i];
}

double tflops(double operations, double clocks, const Throughput& t) {
  if (clocks == 0) return std::numeric_limits<double>::infinity();
  return operations / clocks * t.num_sms * t.clock_mhz * 1e6 / 1e12;
}

}  // namespace

double Roofline::tflops_by(Unit unit, const Throughput& throughput) const {
  return tflops(tile_operations, tile_clocks[static_cast<size_t>(unit)], throughput);
}

Roofline roofline_of(const Variant& variant, const Schedule& schedule,
                     const std::vector<LoopCount>& loops, const Throughput& throughput) {
  const LoopCount* steady = main_loop(loops);
  if (!steady) fail(ErrorKind::kInternal, "the attention kernel has no loop with products");
  Roofline roofline;
  for (const OpCount& op : steady->ops) add(roofline.tile_clocks, clocks_of(op, throughput));
  for (double& clocks : roofline.tile_clocks) clocks *= schedule.num_warps;
  // The loop of the warp that loads for the others, once a tile.
  for (const LoopCount& loop : loops) {
    if (loop.has_products() || loop.bulk_copy_bytes == 0) continue;
    for (const OpCount& op : loop.ops) add(roofline.tile_clocks, clocks_of(op, throughput));
    roofline.tile_clocks[static_cast<size_t>(Unit::kShared)] +=
        static_cast<double>(loop.bulk_copy_bytes) / kSmemBytesPerClock;
  }
  roofline.tile_operations =
      2.0 * schedule.block_m * schedule.block_n * (variant.head_dim + variant.value_head_dim);
  const auto most = std::max_element(roofline.tile_clocks.begin(), roofline.tile_clocks.end());
  roofline.binding = static_cast<Unit>(most - roofline.tile_clocks.begin());
  roofline.bound_tflops = roofline.tflops_by(roofline.binding, throughput);
  return roofline;
}

LeastTimes least_times(const Roofline& roofline, const Traffic& traffic, double operations,
                       const Throughput& throughput) {
  const double bytes_per_ms = throughput.dram_gb_s * 1e6;
  return {traffic.quantize_bytes / bytes_per_ms, traffic.attend_bytes / bytes_per_ms,
          operations / (roofline.bound_tflops * 1e9)};
}

}  // namespace sagejit::cost
