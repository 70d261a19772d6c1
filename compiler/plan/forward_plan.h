// ForwardPlan: everything decided about one forward call before any instruction is generated: the
// kernels, their parameters and grids, the workspace. Generators read it and decide nothing of the
// kind themselves.
//
//   k_mean      partial sums of K over chunks of tokens               smoothing of K alone
//   amax_q/k    largest magnitude per head or tensor                  those granularities alone
//   quantize_k  K - mean -> int8 codes and scales; keeps the mean     always
//   convert_v   V -> 16-bit v.type                                    wgmma, 16-bit V
//   amax_v      largest magnitude per channel                         wgmma, 8-bit V
//   quantize_v  V -> e4m3 codes and scales                            wgmma, 8-bit V
//   quantize_q  Q -> int8 codes and scales; q . mean for the LSE      always
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

// Quantization of Q or K: codes int8 [b, h, tokens, padded_head_dim], contiguous; with
// `core_matrices` tokens are padded and each head lies as kTokenRows of core_matrix.h says.
struct QuantizePlan {
  std::string operand;  // "q" or "k"; kernels and buffers are named after it
  ScaleGroups groups;
  DType input = DType::kF16;
  int head_dim = 0;
  int padded_head_dim = 0;  // codes past head_dim are 0
  int tile_rows = 0;        // tokens a block quantizes; whole spans
  bool subtract_mean = false;
  bool lse_bias = false;         // also writes q . mean
  bool clears_counters = false;  // also sets the attention kernel's tile counters to 0
  bool core_matrices = false;
  int token_multiple = 1;  // codes have a multiple of this many tokens; those past the end are 0
};

// V as the wgmma kernel reads it, `v_codes` [b, hkv, tokens padded, columns], each head laid out as
// core_matrix.h says: 16-bit V as kTokenRows, 8-bit V as kChannelRows. Channels past value_head_dim
// and tokens past the end are 0. The mma.sync kernel reads the caller's V and has none of this.
struct ValuePlan {
  bool is_prepared = false;
  bool is_scaled = false;  // codes are e4m3; with v_scales f32 [b, hkv, columns] = amax / range
  DType input = DType::kF16;
  DType type = DType::kF16;
  int value_head_dim = 0;
  int columns = 0;  // channels, padded
  float range = 0;  // magnitude that a channel's largest element is scaled to
  int token_multiple = 1;
  int tile_tokens = 0;  // tokens a block of convert_v or quantize_v prepares
  int amax_tokens = 0;  // tokens a block of amax_v reads
};

struct ForwardPlan {
  Variant variant;
  Schedule schedule;
  const Target* target = nullptr;
  QuantizePlan q, k;
  ValuePlan v;
  Plan plan;

  const KernelLaunch* find_launch(
      std::string_view kernel) const;  // null if the call has no such kernel
};

// Throws Error{kUnsupported} for a variant or schedule the target cannot have.
ForwardPlan make_forward_plan(const Variant& variant, const Schedule& schedule,
                              const Target& target);

}  // namespace sagejit
