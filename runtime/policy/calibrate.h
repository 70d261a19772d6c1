// From measured cosines to a policy: the fast variant where it is close enough, else the careful
// one (SageAttention, arXiv 2410.02367, section 4.5, "adaptive quantization"). Pure.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/policy/policy.h"

namespace sagejit {

// How close the fast variant came to full precision on one input of a layer.
struct LayerCosine {
  std::string layer;
  int64_t step = 0;   // of a model that calls its layers again and again; else 0
  double cosine = 0;  // over the whole output; NaN where an output is not finite
};

// The paper's: the worst cosine of the careful variant over its models' layers.
inline constexpr double kFastCosine = 0.998;

// Throws Error{kArgument} unless the variants compute the same attention but for quantization.
void check_candidates(const Variant& fast, const Variant& careful);

// A layer and step takes `fast` if its cosine is above `threshold` on every input. A step that was
// measured stands for those up to the next one of its layer, the first for those before it too;
// ranges that agree are joined. Layers come in the order of their first input. What was not
// measured takes `careful`. Throws what check_candidates does, and Error{kArgument} without inputs.
Policy calibrate(const Variant& fast, const Variant& careful, std::span<const LayerCosine> cosines,
                 double threshold);

// "layer.3" at step 4 of "step.4.layer.3" or "layer.3.step.4"; any other name is a layer's, at step
// 0.
struct LayerStep {
  std::string layer;
  int64_t step = 0;
};
LayerStep layer_step_of(std::string_view name);

}  // namespace sagejit
