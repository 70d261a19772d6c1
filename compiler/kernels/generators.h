// The kernel generators: a plan in, verified kernel IR out. Each reads like the formula it
// computes.
#pragma once

#include <vector>

#include "compiler/ir/ir.h"
#include "compiler/plan/forward_plan.h"

namespace sagejit {

// statistics: k_partial_sums[b, hkv, chunk, d] = sum over the chunk's tokens of K, and
// v_partial_amax[b, hkv, chunk, channel] = max |V| over them; f32.
ir::Function generate_statistics(const ForwardPlan& plan);

// amax: amax[b, h] (or amax[0]) = bits of max |X - mean|, over all tokens; the buffer starts as
// zeros.
ir::Function generate_amax(const ForwardPlan& plan, const QuantizePlan& operand);

// quantize: every operand that attention reads.
// Q and K: codes = round((X - mean) * 127 / amax), scales = amax / 127, amax per scale group
// (SageAttention, arXiv 2410.02367, Algorithm 1); a group of zeros has scale 0 and codes 0.
// 8-bit V: codes = e4m3(V * range / amax) as kChannelRows (core_matrix.h), scales = amax / range,
// per channel (SageAttention 2, arXiv 2411.10958); a channel of zeros has scale 0 and codes 0.
// 16-bit V: codes = V rounded to v.type, as kTokenRows.
ir::Function generate_quantize(const ForwardPlan& plan);

// attention: O = softmax(scale Q K^T) V and, if asked for, LSE; int8 Q K^T and 16-bit P V by
// mma.sync.
ir::Function generate_attention_mma_sync(const ForwardPlan& plan);

// The same by wgmma, for sm_90a; P and V of 8 bits too.
ir::Function generate_attention_wgmma(const ForwardPlan& plan);

// One kernel of the plan.
ir::Function generate_kernel(const ForwardPlan& plan, const KernelLaunch& launch);

// Every kernel of the plan, in launch order.
std::vector<ir::Function> generate_kernels(const ForwardPlan& plan);

}  // namespace sagejit
