// The kernel generators: a plan in, verified kernel IR out. Each reads like the formula it
// computes.
#pragma once

#include <vector>

#include "compiler/ir/ir.h"
#include "compiler/plan/forward_plan.h"

namespace sagejit {

// statistics, f32, per chunk of tokens and channel: k_partial_sums[b, hkv, chunk, d] = sum of K;
// v_partial_amax[b, hkv, chunk, channel] = max |V|, or for smoothed V v_partial_sums = sum of V,
// v_partial_highest = max V and v_partial_lowest = max -V. For smoothed Q, of each of its blocks,
// q_mean[b, hq, block, d] = mean of Q, 0 where that is not finite.
ir::Function generate_statistics(const ForwardPlan& plan);

// fold, f32, per (batch, K head): k_mean[b, hkv, d] = mean of K over the tokens; for 8-bit V
// v_scales[b, hkv, channel] = amax / range and v_inverses = range / amax, 0 where amax is, with
// amax = max |V|; for smoothed V [b, hkv, 2, channel], scales of V - mean and then the means, where
// a mean that is not finite counts as 0.
ir::Function generate_fold(const ForwardPlan& plan);

// amax: amax[b, h] (or amax[0]) = bits of max |X|, X smoothed and rotated as asked for, over all
// tokens; the buffer starts as zeros.
ir::Function generate_amax(const ForwardPlan& plan, const QuantizePlan& operand);

// prepare: statistics, fold and quantize by the same teams of threads, head by head, so that K and
// V come from DRAM once. Teams take items by ticket, in the order of prepare_order.h; one that
// needs the statistics of a head waits for them.
ir::Function generate_prepare(const ForwardPlan& plan);

// quantize: every operand that attention reads.
// Q and K, X smoothed and rotated as asked for: codes = round(X * c / amax), scales = amax / c,
// amax per scale group, c = 127 for int8 (SageAttention, arXiv 2410.02367, Algorithm 1) and 7 for
// int4 (SageAttention 2, arXiv 2411.10958); a group of zeros has scale 0 and codes 0. 8-bit V:
// codes = e4m3, or int8, ((V - mean) * range / amax) as kChannelRows (core_matrix.h), scales =
// amax / range, per channel, the mean only with smooth_v (SageAttention 2, arXiv 2411.10958); a
// channel of zeros has scale 0 and codes 0. 16-bit V: codes = V rounded to v.type, as kTokenRows.
// fp4: codes = e2m1(X / scale), scales = e4m3(amax / 6), of groups of 16 (SageAttention 3, arXiv
// 2505.11594; group_scales.h). Smoothed Q: mean_scores (forward_plan.h).
ir::Function generate_quantize(const ForwardPlan& plan);

// attention: O = softmax(scale Q K^T) V and, if asked for, LSE; int8, int4 or fp4 Q K^T and P V of
// 16, 8 or 4 bits by mma.sync.
ir::Function generate_attention_mma_sync(const ForwardPlan& plan);

// The same by wgmma, for sm_90a.
ir::Function generate_attention_wgmma(const ForwardPlan& plan);

// One kernel of the plan.
ir::Function generate_kernel(const ForwardPlan& plan, const KernelLaunch& launch);

// Every kernel of the plan, in launch order.
std::vector<ir::Function> generate_kernels(const ForwardPlan& plan);

}  // namespace sagejit
