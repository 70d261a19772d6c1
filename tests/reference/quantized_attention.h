// What a quantized variant should cost in accuracy: its quantization done exactly, the rest in
// float64.
//
//   Qhat, Khat and their scales by the bit-exact model, smoothed by f32-rounded means and rotated
//   if asked
//
//   S = (Qhat . Khat) * scale_q * scale_k * scale, for smoothed Q plus scale * mean of Q . (K -
//   mean of K); then an exact softmax
//
//   P times its range, rounded to its type or coded directly, relative to the row's final maximum
//
//   V rounded to its type; 8-bit V by the bit-exact model
//
//   O = (P V) / l, exact accumulators; l sums P before or after rounding as the variant says
//
// A kernel differs from it by what this leaves out: accumulator rounding, approximate exp2, and P
// rounded relative to the running maximum (with rescale_threshold, to an older one) instead of the
// final one. None of them should move its error much.
#pragma once

#include <string>
#include <vector>

#include "compiler/sema/variant.h"
#include "tests/reference/attention.h"
#include "tests/reference/host_tensor.h"

namespace sagejit::reference {

// Shapes as exact_attention. Throws Error{kUnsupported} for what it does not model: operands other
// than int8, int4 or e4m3 Q and K with f16, bf16 or (V per channel) e4m3, e5m2 or int8 P and V, or
// fp4 ones, smoothing of 16-bit or fp4 V. k_mean, q_mean: the f32 means [b, hkv, d] and [b, hq,
// blocks, d] that K and Q are smoothed by; empty: the model's own. A kernel's may differ in the
// last bits (numerics.md, section 2), which turn over a code now and then. key_tile:
// AttentionEngine's; with it fp4 P, whose rounding is coarse, is the kernel's but for codes that
// the last bits of a score turn over.
AttentionResult quantized_attention(const Variant& variant, const HostTensor& q,
                                    const HostTensor& k, const HostTensor& v,
                                    const std::vector<float>& k_mean = {},
                                    const std::vector<float>& q_mean = {}, int64_t key_tile = 0);

// What fp8 tensor cores whose sums keep 13 bits (numerics.md, 4.2) may lose of the scores of a row,
// which the model adds up exactly: of the key that loses most, RMS, in natural-log units, [b, hq,
// m]. Empty where Q and K are not e4m3. The means as above.
std::vector<double> fp8_score_loss(const Variant& variant, const HostTensor& q, const HostTensor& k,
                                   const HostTensor& v, const std::vector<float>& k_mean = {},
                                   const std::vector<float>& q_mean = {});

// Whether quantized_attention models the variant; if not, `why` says what is missing.
bool models_quantization(const Variant& variant, std::string* why);

}  // namespace sagejit::reference
