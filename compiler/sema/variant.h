// Variant: what one attention kernel computes, resolved and checked; immutable once sema made it.
//
//   S = scale * (Q K^T), with Q and K smoothed and quantized as `q`, `k`, `smoothing` say
//   S = score modifiers (softcap, ALiBi, expression) and mask applied to S
//   P = softmax(S) over the keys, held in p.type;   O = P V, with V held in v.type
//
// Everything that can change a bit of the result is a field here; everything that cannot is in
// Schedule. Two variants that compare equal generate the same kernels. `name` is a label and takes
// no part in it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compiler/support/dtype.h"

namespace sagejit {

// An expression over the score and positions, e.g. `q - k < 256`. Opaque to everything but dsl,
// sema and the generators that accept expressions; equal texts in canonical form are equal
// expressions.
struct ScoreExpression {
  std::string canonical_text;
  bool operator==(const ScoreExpression&) const = default;
};

enum class MaskKind {
  kNone,
  kCausalTopLeft,      // key j is visible to query i iff j <= i
  kCausalBottomRight,  // key j is visible to query i iff j <= i + (n - m)
  kWindow,             // i + (n - m) - left <= j <= i + (n - m) + right
  kTensorBool,
  kTensorAdditive,
  kExpression,
};

struct Mask {
  MaskKind kind = MaskKind::kNone;
  int window_left = 0;  // kWindow alone; keys to the left that stay visible
  int window_right = 0;
  ScoreExpression expression;  // kExpression alone
  bool operator==(const Mask&) const = default;
};

struct Score {
  std::optional<double> scale;    // multiplies q.k; unset: 1/sqrt(head_dim)
  std::optional<double> softcap;  // c: S = c tanh(S / c)
  bool alibi = false;             // per-head slopes are a run-time tensor
  bool sinks = false;             // per-head sink logits are a run-time tensor
  ScoreExpression expression;     // empty text: none
  bool operator==(const Score&) const = default;
};

enum class Granularity { kTensor, kHead, kBlock, kWarp, kThread, kToken, kChannel, kGroup16 };

// How the rows of one operand share quantization scales (SageAttention 2, section 3.2).
//   kBlock, kWarp: `span` consecutive tokens share one scale
//   kThread:       a tile of `span` tokens has one scale per group of rows that one thread of an
//                  m16n8k32 product holds: 8 groups for Q {8i + t}, 4 for K {8i + 2t, 8i + 2t + 1}
//   kToken:        every token has its own;  kTensor, kHead: one for the whole tensor or (batch,
//   head)
struct Quantization {
  DType type = DType::kS8;
  Granularity granularity = Granularity::kBlock;
  int span = 0;  // tokens; 0 where the granularity has no span
  bool operator==(const Quantization&) const = default;
};

enum class Smoothing { kNone, kMean };

struct ProbabilityOperand {  // P as the second product reads it
  DType type = DType::kF16;
  double range = 1.0;        // P in [0, 1] is multiplied by this before it is converted
  bool direct_code = false;  // e4m3 alone: the code is computed arithmetically, not rounded
  bool operator==(const ProbabilityOperand&) const = default;
};

struct ValueOperand {  // V as the second product reads it
  DType type = DType::kF16;
  Granularity granularity = Granularity::kTensor;  // of its scales; unused for f16 and bf16
  int span = 0;
  Smoothing smoothing = Smoothing::kNone;
  double range = 0.0;  // largest magnitude after scaling; 0: the type's own maximum
  bool operator==(const ValueOperand&) const = default;
};

// An accumulator, or two levels: products gather in `inner` for `interval` keys, then are added to
// `outer`.
struct Accumulator {
  DType inner = DType::kF32;
  std::optional<DType> outer;  // unset: one level
  int interval = 0;            // keys; 0 unless `outer` is set
  bool operator==(const Accumulator&) const = default;
};

enum class RowSum {
  kExact,      // the softmax denominator sums P before it is converted to p.type
  kQuantized,  // it sums the converted P, by the tensor core: numerator and denominator agree
};

enum class StructureKind { kDense, kVarlen, kPaged, kBlockSparse, kSplitKv };

struct Structure {
  StructureKind kind = StructureKind::kDense;
  int parameter =
      0;  // kPaged: tokens of a page; kBlockSparse: tokens of a block; kSplitKv: splits; else 0
  bool operator==(const Structure&) const = default;
};

struct Variant {
  std::string name;

  int head_dim = 0;            // d, of q and k; a multiple of 8 in [16, 256]
  int value_head_dim = 0;      // dv, of v and o; likewise
  DType input = DType::kF16;   // q, k, v in memory
  DType output = DType::kF16;  // o in memory
  bool lse = false;            // also write log(sum(exp(true scores))), f32, natural log

  Mask mask;
  Score score;
  Quantization q, k;
  Smoothing smooth_q = Smoothing::kNone, smooth_k = Smoothing::kNone;
  int smooth_q_span =
      0;  // tokens that share one mean of Q (rows [i * span, (i + 1) * span)); 0 for kNone
  bool hadamard = false;  // Q and K are rotated by the same orthonormal Hadamard matrix
  ProbabilityOperand p;
  ValueOperand v;
  DType qk_accumulator = DType::kS32;
  Accumulator pv_accumulator;
  RowSum row_sum = RowSum::kExact;
  // log2 units: the maximum that P is taken relative to follows a row's true maximum only once that
  // outgrew it by more than this; P reaches p.range * 2^rescale_threshold.
  double rescale_threshold = 0.0;
  double exp2_polynomial_share =
      0.0;  // share of exp2 evaluated by polynomial instead of ex2.approx
  Structure structure;

  bool operator==(const Variant&) const = default;  // with the name
};

// Equality of what is computed: every field but `name`.
bool same_computation(const Variant& a, const Variant& b);

// What q . k is multiplied by.
double score_scale(const Variant& variant);

// The largest `range` that P in this type can have: the type's largest number, and 448 * 6 = 2688
// for fp4, whose groups of 16 have an e4m3 scale (SageAttention 3, two-level quantization of P).
double largest_p_range(DType type);

// The largest `range` that V in this type can have: the type's largest number; 0 for f16 and bf16,
// which are not scaled. A ValueOperand whose range is 0 has this one.
double largest_v_range(DType type);

}  // namespace sagejit
