// One forward call on a device, with host tensors in and out.
#pragma once

#include <vector>

#include "runtime/launch/kernel.h"
#include "tools/cli/run_inputs.h"

namespace sagejit::cli {

struct RunTimes {                // milliseconds; one entry per timed launch
  std::vector<double> total_ms;  // everything
  std::vector<double> quantize_ms,
      attend_ms;  // the two phases launched apart; empty unless repeated
};

struct DeviceResult {
  reference::HostTensor o;    // [b, hq, m, dv], the inputs' layout
  reference::HostTensor lse;  // f32 [b, hq, m, 1]; without elements where the variant writes none
  RunTimes times;
  uint64_t workspace_bytes = 0;
  bool repeatable = true;  // every launch gave the same bits
};

// repeats == 1: one launch, timed. More: one more launch to warm up, then `repeats` timed ones,
// whole and by phase. Outputs start as NaN, so what a kernel leaves unwritten shows.
DeviceResult run_on_device(const Kernel& kernel, const Layer& layer, Layout layout, int repeats);

}  // namespace sagejit::cli
