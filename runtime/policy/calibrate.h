// From measured cosines to a policy: the fast variant where it is close enough, else the careful
// one (SageAttention, arXiv 2410.02367, section 4.5, "adaptive quantization"). Pure.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/policy/policy.h"

namespace sagejit {

// How close an output came to full precision; NaN where it is not finite.
struct Cosines {
  double overall = 1;     // over the whole tensor
  double worst_head = 1;  // over the (batch, head) that came least close
};

// How close both variants came on one input of a layer.
struct LayerCosines {
  std::string layer;
  int64_t step = 0;  // of a model that calls its layers again and again; else 0
  Cosines fast, careful;
};

// The paper's: the worst cosine of the careful variant over its models' layers.
inline constexpr double kFastCosine = 0.998;

// Throws Error{kArgument} unless the variants compute the same attention but for quantization.
void check_candidates(const Variant& fast, const Variant& careful);

// A layer and step takes `fast` if both its cosines are above `threshold` on every input. A layer
// that was measured at one step takes the same at all. Else a step between two that were measured
// takes `fast` if both do, and those before the first and after the last take `careful`, as does
// all that was not measured. Ranges that agree are joined; layers come in the order of their first
// input. The comment has a line for each of failures_of_careful. Throws what check_candidates does,
// and Error{kArgument} without inputs.
Policy calibrate(const Variant& fast, const Variant& careful,
                 std::span<const LayerCosines> measured, double threshold);

// Where `careful` is not above `threshold` either, so that no candidate will do: a sentence for
// each layer and step.
std::vector<std::string> failures_of_careful(std::span<const LayerCosines> measured,
                                             double threshold);

// A policy's layers are words without '#': '_' in place of that and of blanks. Throws
// Error{kArgument} for names with control characters.
std::string policy_word(std::string_view layer);

// "layer.3" at step 4 of "step.4.layer.3" or "layer.3.step.4"; any other name is a layer's, at step
// 0.
struct LayerStep {
  std::string layer;
  int64_t step = 0;
};
LayerStep layer_step_of(std::string_view name);

}  // namespace sagejit
