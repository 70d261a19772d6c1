// Shared by the kernels that prepare Q, K and V: how a block's threads are laid over rows of a
// tensor, and what they do with it.
#pragma once

#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/plan/forward_plan.h"

namespace sagejit {

inline constexpr int kLaneElements = 8;  // a thread handles 16 bytes of a row

// The block's threads as rows of `lanes_per_row` threads, a power of two: each takes 8 elements of
// a row.
struct RowLanes {
  RowLanes(ir::Builder& b, int row_elements);

  int lanes_per_row;
  int rows_per_pass;
  ir::Value row;    // this thread's row in a pass
  ir::Value lane;   // its place in the row
  ir::Value first;  // its first element of the row
};

// Eight 16-bit elements at `address`, in pairs; zeros where `valid` is false, without reading.
std::vector<ir::Var> load_words(ir::Builder& b, ir::Value address, ir::Value valid);
std::vector<ir::Value> load_pairs(ir::Builder& b, ir::Value address, ir::Value valid);

// The elements of such pairs as f32; `type` is f16 or bf16.
std::vector<ir::Value> unpack(ir::Builder& b, DType type, const std::vector<ir::Value>& pairs);

// A tile of rows of one (batch, head), numbered from the head's first; i32.
struct TilePlace {
  ir::Value tile, head, batch;
};

// The fold (kAddF32 or kMaxF32) of one channel over the chunks of a (batch, head), in their order,
// from `neutral`; `partial` f32 [b, heads, num_chunks, channels] is what fold_tokens wrote, and
// this thread has waited for. i32 indices.
struct ChunkPlace {
  ir::Value batch_head, channel;
};
ir::Value fold_chunks(ir::Builder& b, const KernelArgs& args, const std::string& partial,
                      int channels, const ChunkPlace& place, ir::Op op, float neutral = 0);

// Until the statistics of a (batch, K head) are there, where the launch counts that. Every thread
// that folds them waits itself.
void wait_for_statistics(ir::Builder& b, const KernelArgs& args, ir::Value batch_head);

// Eight f32 in shared memory at `address`, which is a multiple of 16.
std::vector<ir::Value> load_shared_f32s(ir::Builder& b, ir::Value address);

// A place in words of prepare_counters.
inline constexpr int kItemsTaken = 0;
inline constexpr int kStatisticsDone = 1;  // of the first (batch, K head)

// Statistics of a head: `place.tile` numbers chunks of K, where it is smoothed, then chunks of V,
// where it is scaled.
void fold_tokens(ir::Builder& b, const KernelArgs& args, const ForwardPlan& plan,
                 const TilePlace& place);

// Quantizes a tile of Q or K, and one of V.
void quantize_rows(ir::Builder& b, const KernelArgs& args, const QuantizePlan& operand,
                   const TilePlace& place);
void prepare_values(ir::Builder& b, const KernelArgs& args, const ValuePlan& v,
                    const TilePlace& place);

// f(value, other) folded over the lanes of a row; every lane gets the result.
ir::Value reduce_row(ir::Builder& b, const RowLanes& lanes, ir::Value value, ir::Op op);

}  // namespace sagejit
