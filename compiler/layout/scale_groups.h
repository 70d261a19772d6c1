// ScaleGroups: which tokens of one (batch, head) share a quantization scale.
//
//   index(t) = (t / span) * groups + (t mod 8) * groups / 8
//
// One formula covers every granularity: token (span 1, groups 1), block and warp (span tokens, 1),
// and the per-thread groups of SageAttention 2 (section 3.2), whose members one thread of an
// m16n8k32 product holds: for Q rows {8i + g} (groups 8), for K columns {8i + 2t, 8i + 2t + 1}
// (groups 4). A span of 0 is one scale for the whole head or tensor.
#pragma once

#include <string>

#include "compiler/sema/variant.h"

namespace sagejit {

// Tokens so far apart have one scale, or those of two spans.
inline constexpr int kGroupOffsets = 8;

struct ScaleGroups {
  int span = 0;
  int groups = 1;
  bool per_head = true;  // false: one scale for the whole tensor

  bool is_dynamic() const { return span == 0; }  // needs a pass over the data before quantizing

  constexpr int index(int token) const {
    return span == 0 ? 0 : token / span * groups + token % kGroupOffsets * groups / kGroupOffsets;
  }
};

// Scales are laid out for whole runs of this many tokens, so that a kernel may read the scales of a
// partly filled tile.
inline constexpr int kScaleRunTokens = 128;

ScaleGroups scale_groups_of_q(const Quantization& q);
ScaleGroups scale_groups_of_k(const Quantization& k);

// Of `tile_tokens` tokens, so many in a row have the scales of one span: the longest run that
// divides both.
int scale_run(const ScaleGroups& groups, int tile_tokens);
// Kernels read the scales of shorter runs token by token.
inline constexpr int kLeastScaleRun = 16;

// SizeExpr text of the number of scales from one head to the next; `tokens` is "m" or "n".
std::string scale_head_stride(const ScaleGroups& groups, std::string_view tokens);

}  // namespace sagejit
