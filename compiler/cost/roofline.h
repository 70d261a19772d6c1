// The least time that attention takes by each unit that it keeps busy, and the unit that binds: a
// prediction from counts and rates, where everything overlaps perfectly. Kernels reach a part of
// it.
//
// Williams et al., "Roofline: an insightful visual performance model", 2009, with a roof for each
// unit. Pure and thread-safe.
#pragma once

#include "compiler/cost/instruction_clocks.h"
#include "compiler/cost/traffic.h"
#include "compiler/schedule/schedule.h"

namespace sagejit::cost {

struct Roofline {
  // Of one multiprocessor, for one tile of block_m queries by block_n keys.
  UnitClocks tile_clocks{};
  double tile_operations = 0;  // 2 block_m block_n (d + dv): padding does not count
  Unit binding = Unit::kTensor;
  double bound_tflops = 0;  // 10^12 operations a second of the whole GPU; 0: products are emulated

  // 10^12 operations a second, were that unit the only one. Infinite for one that is not used.
  double tflops_by(Unit unit, const Throughput& throughput) const;
};

// Of the steady state of the attention kernel, whose loops these are. Throws Error{kInternal}
// without a loop that has products.
Roofline roofline_of(const Variant& variant, const Schedule& schedule,
                     const std::vector<LoopCount>& loops, const Throughput& throughput);

// The least times of one call, milliseconds.
struct LeastTimes {
  double quantize_dram_ms = 0;  // to move what preparing the operands must move
  double attend_dram_ms = 0;    // to move what attention must move
  double attend_units_ms = 0;   // the binding unit's, for `operations`
};
LeastTimes least_times(const Roofline& roofline, const Traffic& traffic, double operations,
                       const Throughput& throughput);

}  // namespace sagejit::cost
