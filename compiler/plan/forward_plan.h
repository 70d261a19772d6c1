// ForwardPlan: everything decided about one forward call before any instruction is generated: the
// kernels, their parameters and grids, the workspace. Generators read it and decide nothing of the
// kind themselves.
//
//   statistics  of chunks of tokens, per channel: sums of K where it   smoothing of K or Q, 8-bit V
//               is smoothed, largest magnitudes of V where it is
//               quantized, or sums and extremes where it is smoothed,
//               means of Q's blocks where it is
//   fold        of a head's chunks: the mean of K, scales and means     those
//               of V
//   amax_q/k    largest magnitude per head or tensor                  those granularities alone
//   quantize    K - mean and Q, rotated if asked for -> codes and     always
//               scales, q . mean for the LSE; V -> 8-bit codes or,
//               with wgmma, 16-bit v.type; for smoothed Q the scores
//               of its means
//   attention   O and LSE
//
// `statistics`, `fold` and `quantize` are one launch, `prepare`, which reads K and V from DRAM
// once; only where amax_k or amax_q, of smoothed K or Q, has its place between them do they stay
// apart. `prepare`
// takes a part of the multiprocessors, head after head, while the wgmma kernel begins on the others
// with the heads that are done.
#pragma once

#include <string>

#include "compiler/artifact.h"
#include "compiler/layout/key_order.h"
#include "compiler/layout/scale_groups.h"
#include "compiler/schedule/schedule.h"
#include "compiler/sema/variant.h"
#include "compiler/target/target.h"

namespace sagejit {

inline constexpr int kPrepareThreads =
    256;                                    // of every kernel but attention; of a team of `prepare`
inline constexpr int kPieceBytes = 16;      // of a row, that a thread handles at a time
inline constexpr int kValuePairTokens = 8;  // from one to the next of 8-bit V's pairs in a word
inline constexpr int kChunkPieces = 8;      // of a chunk, that a thread folds at a time
// What the threads of a team have folded of eight channels meets in shared memory. The gaps let 32
// channels, 4 threads' elements, be read from as many banks.
inline constexpr int kFoldBytes = 8 * (kPrepareThreads + 4) * 4;
inline constexpr int kMaxChunks =
    64;  // of the tokens of a (batch, head); a thread folds a channel of all
inline constexpr int kMinChunkTokens = 128;
// Kernels divide by a parameter by means of another, floor(kReciprocalOf / it).
inline constexpr int kReciprocalOf = 0x7fffffff;

// How threads lie over rows of so many elements (RowLanes in kernels/prepare.h): those of a row, a
// power of two, and the rows from one of a thread's to its next.
int lanes_of_row(int columns);
int pass_rows(int columns);

// Quantization of Q or K: codes [b, h, tokens, padded_head_dim], contiguous, a byte each or two to
// a byte, the first in the lower bits; with `core_matrices` tokens are padded and each head lies as
// kTokenRows of core_matrix.h says. Else with `order` token t lies in row column_of_key(order, t).
// Scales are f32, by `groups`; of fp4, which has `group_scales`, e4m3 [b, h, tokens,
// padded_head_dim / 16], rows as the codes'.
struct QuantizePlan {
  std::string operand;  // "q" or "k"; buffers are named after it
  ScaleGroups groups;
  DType input = DType::kF16;
  int head_dim = 0;
  int padded_head_dim = 0;  // codes past head_dim are 0
  DType type = DType::kS8;  // of the codes
  int code_bits = 8;
  bool group_scales = false;
  KeyOrder order = KeyOrder::kByColumn;
  float code_max = 0;  // codes are within [-code_max, code_max]
  int tile_rows = 0;   // tokens a team quantizes at a time; whole spans
  bool subtract_mean = false;
  int mean_span = 0;                 // tokens that share a mean; 0: all of them
  bool rotates = false;              // by the Hadamard matrix of size head_dim
  bool lse_bias = false;             // also writes q . mean of K
  bool clears_counters = false;      // also sets the attention kernel's tile counters to 0
  bool finds_largest_scale = false;  // also writes the largest scale of each head
  bool core_matrices = false;
  int token_multiple = 1;  // codes have a multiple of this many tokens; those past the end are 0
  // Q with core_matrices: of heads that are packed (packed_heads.h) the codes lie one head's behind
  // the other's, and the tokens of all together are padded. How many, as SizeExpr text; empty: one.
  std::string packed_heads;

  int row_bytes() const { return padded_head_dim * code_bits / 8; }
  // Of a tile's codes, where they meet in shared memory to be stored as core matrices.
  int stage_bytes() const { return core_matrices ? (tile_rows + 7) / 8 * 8 * row_bytes() : 0; }
  int scale_row_bytes() const { return padded_head_dim / kGroupElements; }  // with group_scales
  // amax is found by a launch of its own.
  bool finds_amax_first() const { return !group_scales && groups.is_dynamic(); }
};

// What smoothing took out of Q's scores: mean_scores f32 [b, hq, blocks, tokens] = scale log2(e)
// q_mean . (K - k_mean), a row for each block of queries that share a mean, q_mean f32 [b, hq,
// blocks, d]. Attention adds it to the scores of the block's queries.
struct MeanScoresPlan {
  bool exists = false;
  int span = 0;            // queries of a block
  int token_multiple = 1;  // tokens of a row; those past the end may hold anything
  DType input = DType::kF16;
  int head_dim = 0;
  bool subtract_mean = false;  // from K
  float scale_log2 = 0;        // scale log2(e)
};
inline constexpr int kMeanScoreRows = 8;                // blocks of a tile; a thread sums them all
inline constexpr int kMeanScoreKeys = kPrepareThreads;  // of a tile, one for each thread

// V as attention reads it, `v_codes` [b, hkv, tokens padded, columns], each head laid out as
// core_matrix.h says: 8-bit and fp4 V as kChannelRows, 16-bit V, for the wgmma kernel, as
// kTokenRows. Channels past value_head_dim and tokens past the end are 0. The mma.sync kernel reads
// the caller's 16-bit V and has none of this.
struct ValuePlan {
  bool is_prepared = false;
  // Codes are e4m3, e5m2 or int8, with v_scales f32 [b, hkv, columns] = amax / range; if the mean
  // is subtracted before, [b, hkv, 2, columns]: the scales, and the means.
  bool is_scaled = false;
  // Codes are fp4, with v_scales e4m3 [b, hkv, tokens padded / 64, value_scale_columns, 4]: a word
  // for the 64 keys of a product and a channel.
  bool group_scales = false;
  bool subtract_mean = false;
  // What is folded over its tokens.
  int num_folds() const { return !is_scaled ? 0 : subtract_mean ? 3 : 1; }
  int scales() const { return subtract_mean ? 2 * columns : columns; }  // of a head
  DType input = DType::kF16;
  DType type = DType::kF16;
  int value_head_dim = 0;
  int columns = 0;        // channels, padded
  int scale_columns = 0;  // that group scales are kept for
  float range = 0;        // magnitude that a channel's largest element is scaled to
  int token_multiple = 1;
  int tile_tokens = 0;  // tokens a team prepares at a time

  bool has_scales() const { return is_scaled || group_scales; }
  int token_bytes() const { return columns * bits_of(type) / 8; }
  int scale_token_bytes() const { return scale_columns / kGroupElements; }  // with group_scales
};

// How the operands' axes are called, in sizes and in kernels' parameters.
struct OperandNames {
  std::string_view heads, tokens;
};
OperandNames names_of(const QuantizePlan& plan);

struct ForwardPlan {
  Variant variant;
  Schedule schedule;
  const Target* target = nullptr;
  QuantizePlan q, k;
  ValuePlan v;
  MeanScoresPlan mean_scores;
  // That fit on a multiprocessor: teams of a block of `prepare`, blocks of `quantize`.
  int prepare_teams = 1;
  Plan plan;

  bool has_statistics() const { return q.subtract_mean || has_fold(); }
  bool has_fold() const { return k.subtract_mean || v.is_scaled; }
  bool prepares_at_once() const {
    const auto waits = [](const QuantizePlan& p) {
      return p.subtract_mean && p.finds_amax_first();
    };
    return has_statistics() && !waits(k) && !waits(q);
  }
  // At launch it is decided whether query heads that share K and V are packed (packed_heads.h).
  bool packs_heads() const { return schedule.pack_heads; }
  // Attention begins while `prepare` runs, and waits for each head apart.
  bool attends_by_head() const { return schedule.wgmma && prepares_at_once(); }

  // Of a team at a time: pieces that a thread loads, and shared memory.
  int num_pieces() const;
  int scratch_bytes() const;

  const KernelLaunch* find_launch(
      std::string_view kernel) const;  // null if the call has no such kernel
};

// Throws Error{kUnsupported} for a variant or schedule the target cannot have.
ForwardPlan make_forward_plan(const Variant& variant, const Schedule& schedule,
                              const Target& target);

}  // namespace sagejit
