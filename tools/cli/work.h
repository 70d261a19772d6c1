// What a forward call has to do at least: the numerators of TFLOP/s and GB/s.
#pragma once

#include "compiler/artifact.h"
#include "compiler/sema/variant.h"
#include "runtime/launch/args.h"
#include "tests/reference/inputs.h"

namespace sagejit::cli {

// Operations of the two products over the query-key pairs that count: 2 b hq pairs (d + dv).
// A pair counts if the mask leaves it visible. Of a causal mask over equal lengths half of all
// pairs count, as is the custom of the field, which leaves half of the diagonal out.
double attention_flops(const Mask& mask, const reference::ProblemShape& shape);

// Bytes that the quantize phase cannot avoid moving (compiler/cost/traffic.h).
double quantize_bytes(const Artifact& artifact, const AttentionArgs& args);

}  // namespace sagejit::cli
