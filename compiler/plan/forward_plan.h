// ForwardPlan: everything decided about one forward call before any instruction is generated: the
// kernels, their parameters and grids, the workspace. Generators read it and decide nothing of the
// kind themselves.
//
//   k_mean      partial sums of K over chunks of tokens                       smoothing of K alone
//   amax_q/k    largest magnitude per head or tensor                          those granularities
//   alone quantize_k  K - mean -> int8 codes and scales; keeps the mean             always
//   quantize_q  Q -> int8 codes and scales; q . mean for the LSE              always
//   attention   O and LSE
#pragma once

#include <string>

#include "compiler/artifact.h"
#include "compiler/layout/scale_groups.h"
#include "compiler/schedule/schedule.h"
#include "compiler/sema/variant.h"
#include "compiler/target/target.h"

namespace sagejit {

inline constexpr int kPrepareThreads = 256;  // of every kernel but attention
inline constexpr int kMeanMaxChunks =
    32;  // partial sums of a (batch, head); each consumer adds them up
inline constexpr int kMeanMinChunkTokens = 256;

// Quantization of Q or K.
struct QuantizePlan {
  std::string operand;  // "q" or "k"; kernels and buffers are named after it
  ScaleGroups groups;
  DType input = DType::kF16;
  int head_dim = 0;
  int padded_head_dim = 0;  // codes past head_dim are 0
  int tile_rows = 0;        // tokens a block quantizes; whole spans
  bool subtract_mean = false;
  bool lse_bias = false;  // also writes q . mean
};

struct ForwardPlan {
  Variant variant;
  Schedule schedule;
  const Target* target = nullptr;
  QuantizePlan q, k;
  Plan plan;

  const KernelLaunch* find_launch(
      std::string_view kernel) const;  // null if the call has no such kernel
};

// Throws Error{kUnsupported} for a variant or schedule the target cannot have.
ForwardPlan make_forward_plan(const Variant& variant, const Schedule& schedule,
                              const Target& target);

}  // namespace sagejit
