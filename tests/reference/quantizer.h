// Bit-exact CPU model of the int8, int4 and e4m3 quantizers of Q and K, of K's mean, and of V's
// quantizers to e4m3, e5m2 and int8.
//
// For every element x of a scale group, in f32 with every operation rounded to nearest even:
//   xs    = f32(x) - mean[d]                        (only x where there is no mean)
//   xs    = rotated(xs)                             a row at a time, where the variant rotates
//   amax  = max |xs| over the group
//   scale = amax / c                                c is 127 for int8, 7 for int4, 448 for e4m3
//   inv   = amax == 0 ? 0 : c / amax
//   code  = clamp(round_half_even(xs * inv), -c, c), or e4m3(xs * inv), to nearest even and
//           saturating;                             a NaN becomes 0
// The group of token t of one (batch, head) is (t / span) * groups + (t % 8) * groups / 8, where
// `groups` is 1 except for the per-thread granularity. specs/numerics.md states the same for the
// kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/sema/variant.h"
#include "tests/reference/host_tensor.h"

namespace sagejit::reference {

// How the rows of one (batch, head) share scales, and the codes that they are scaled to.
struct GroupRule {
  int64_t span;             // tokens per tile of groups; 0: the whole (batch, head) is one group
  int64_t groups_per_tile;  // 1, 4 or 8
  bool whole_tensor;        // one scale for all batches and heads
  DType type = DType::kS8;  // of the codes

  float largest_code() const;

  int64_t num_groups(int64_t num_tokens) const;  // of one (batch, head); 1 at least
  int64_t group_of(int64_t token) const;
};
// Throws Error{kUnsupported} for granularities Q or K cannot have, and for types other
// than int8, int4 and e4m3.
GroupRule query_groups(const Variant& variant);
GroupRule key_groups(const Variant& variant);

struct Quantized {
  int64_t num_groups = 0;     // per (batch, head)
  std::vector<int8_t> codes;  // [b, h, t, d]; of e4m3 the bits
  std::vector<float> scales;  // [b, h, num_groups]; with whole_tensor all are the same value
};

// What is subtracted before x is quantized: f32 [b, h, blocks, d], a mean for every `span` tokens,
// or with span 0 [b, h, d], one for all; empty: nothing.
struct Means {
  std::vector<float> values;
  int64_t span = 0;

  int64_t num_blocks(int64_t num_tokens) const;  // of one (batch, head)
};

// x is f16, bf16 or f32 [b, h, t, d].
Quantized quantize(const HostTensor& x, const GroupRule& rule, const Means& means,
                   bool rotates = false);

// H x with H[i, j] = (-1)^popcount(i & j) / sqrt(d), d = x.size() a power of two: in f32, sums and
// differences at the strides 1, 2, 4, ..., d / 2 in turn, then one product with 1 / sqrt(d).
void rotate(std::vector<float>& x);

// V in e4m3, e5m2 or int8 with a scale per channel. For every channel of a (batch, head), in f32
// with every operation rounded to nearest even:
//   x     = x - mean where there is one
//   amax  = max |x| over the tokens, a NaN is passed over
//   scale = amax / range
//   inv   = amax == 0 ? 0 : range / amax
//   code  = e4m3(x * inv), e5m2 or int8, to nearest even, saturating;  a NaN becomes 0
struct QuantizedValues {
  std::vector<uint8_t> codes;  // [b, h, t, dv]
  std::vector<float> scales;   // [b, h, dv]
};

// x is f16 or bf16 [b, h, t, dv]; range in (0, 448], (0, 57344] or (0, 127]. mean: f32 [b, h, dv],
// or empty for none.
QuantizedValues quantize_values(const HostTensor& x, DType type, float range,
                                const std::vector<float>& mean = {});
// What a code stands for, before it is scaled.
float decoded_value(DType type, uint8_t code);

// The largest magnitude that the variant's V is scaled to.
float value_range(const Variant& variant);

// ---- fp4 in groups of 16 elements with an e4m3 scale each (numerics.md, 3.4), in f32 with every
// operation rounded to nearest even. A NaN counts as 0.
//   scale = e4m3(amax * (1 / largest)), saturating
//   code  = e2m1(x * (1 / max(scale, 2^-9)))
inline constexpr int64_t kGroupElements = 16;

struct GroupQuantized {
  std::vector<uint8_t> codes;  // e2m1, one to a byte, as the elements of x
  std::vector<uint8_t>
      scales;  // e4m3, as those with the grouped dimension divided by 16, rounded up
};
// Groups along d: Q and K [b, h, t, d].
GroupQuantized quantize_in_groups(const HostTensor& x, const Means& means, bool rotates);
// Groups along t: V [b, h, t, dv], whose groups' magnitudes are scaled to `largest`, 6 or less.
GroupQuantized quantize_values_in_groups(const HostTensor& x, float largest);
// Up to 16 elements that share a scale: what they become.
void round_group(double* x, int64_t count);

// Mean over the tokens, f64 [b, h, d]; zero where there are no tokens. Kernels keep it in f32 and
// are compared with this within a tolerance, then their codes bit for bit given their own mean.
std::vector<double> token_mean(const HostTensor& x);
// The same of every `span` tokens, f64 [b, h, blocks, d].
std::vector<double> block_mean(const HostTensor& x, int64_t span);

// What attention adds to the base-2 scores of a block of queries that share a mean, f32 [b, hq,
// blocks, n]: with every operation rounded to nearest even, channel after channel,
//   scale_log2 (q_mean . (K - k_mean))       by fused multiply-adds, then one product
// k_mean: f32 [b, hkv, d] or empty.
std::vector<float> mean_scores(const Means& q_means, const Shape4& q_shape, const HostTensor& k,
                               const std::vector<float>& k_mean, float scale_log2);

}  // namespace sagejit::reference
