// Bit-exact CPU model of the int8 quantizers of Q and K, of K's mean, and of V's quantizers to e4m3
// and int8.
//
// For every element x of a scale group, in f32 with every operation rounded to nearest even:
//   xs    = f32(x) - mean[d]                        (only x where there is no mean)
//   amax  = max |xs| over the group
//   scale = amax / 127
//   inv   = amax == 0 ? 0 : 127 / amax
//   code  = clamp(round_half_even(xs * inv), -127, 127);  a NaN becomes 0
// The group of token t of one (batch, head) is (t / span) * groups + (t % 8) * groups / 8, where
// `groups` is 1 except for the per-thread granularity. specs/numerics.md states the same for the
// kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/sema/variant.h"
#include "tests/reference/host_tensor.h"

namespace sagejit::reference {

// How the rows of one (batch, head) share scales.
struct GroupRule {
  int64_t span;             // tokens per tile of groups; 0: the whole (batch, head) is one group
  int64_t groups_per_tile;  // 1, 4 or 8
  bool whole_tensor;        // one scale for all batches and heads

  int64_t num_groups(int64_t num_tokens) const;  // of one (batch, head); 1 at least
  int64_t group_of(int64_t token) const;
};
// Throws Error{kUnsupported} for granularities Q or K cannot have, and for types other than int8.
GroupRule query_groups(const Variant& variant);
GroupRule key_groups(const Variant& variant);

struct Quantized {
  int64_t num_groups = 0;     // per (batch, head)
  std::vector<int8_t> codes;  // [b, h, t, d]
  std::vector<float> scales;  // [b, h, num_groups]; with whole_tensor all are the same value
};

// x is f16, bf16 or f32 [b, h, t, d]. mean: f32 [b, h, d], or empty for none.
Quantized quantize(const HostTensor& x, const GroupRule& rule, const std::vector<float>& mean);

// V in e4m3 or int8 with a scale per channel. For every channel of a (batch, head), in f32 with
// every operation rounded to nearest even:
//   x     = x - mean where there is one
//   amax  = max |x| over the tokens, a NaN is passed over
//   scale = amax / range
//   inv   = amax == 0 ? 0 : range / amax
//   code  = e4m3(x * inv), or int8, to nearest even, saturating;  a NaN becomes 0
struct QuantizedValues {
  std::vector<uint8_t> codes;  // [b, h, t, dv]
  std::vector<float> scales;   // [b, h, dv]
};

// x is f16 or bf16 [b, h, t, dv]; range in (0, 448], or (0, 127]. mean: f32 [b, h, dv], or empty
// for none.
QuantizedValues quantize_values(const HostTensor& x, DType type, float range,
                                const std::vector<float>& mean = {});
// What a code stands for, before it is scaled.
float decoded_value(DType type, uint8_t code);

// The largest magnitude that the variant's V is scaled to.
float value_range(const Variant& variant);

// Mean over the tokens, f64 [b, h, d]; zero where there are no tokens. Kernels keep it in f32 and
// are compared with this within a tolerance, then their codes bit for bit given their own mean.
std::vector<double> token_mean(const HostTensor& x);

}  // namespace sagejit::reference
