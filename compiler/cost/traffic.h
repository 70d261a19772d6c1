// Bytes that the phases of a call cannot avoid moving between DRAM and the multiprocessors. Pure
// and thread-safe.
#pragma once

#include <functional>
#include <string_view>

#include "compiler/artifact.h"

namespace sagejit::cost {

// Counted once each: the caller's tensors that a phase reads or writes, and the workspace buffers
// that the quantize phase leaves to the attend phase, in both. What only a phase's own kernels
// exchange (sums, maxima, counters), and second reads, which the caches may serve, are not counted.
struct Traffic {
  double quantize_bytes = 0;
  double attend_bytes = 0;
};

// tensor_bytes: of the caller's tensor of that name: "q", "k", "v", "o", "lse".
Traffic traffic_of(const Plan& plan, SymbolValues values,
                   const std::function<double(std::string_view)>& tensor_bytes);

}  // namespace sagejit::cost
