// Shared by the kernels that prepare Q, K and V: how a block's threads are laid over rows of a
// tensor.
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
std::vector<ir::Value> load_pairs(ir::Builder& b, ir::Value address, ir::Value valid);

// The elements of such pairs as f32; `type` is f16 or bf16.
std::vector<ir::Value> unpack(ir::Builder& b, DType type, const std::vector<ir::Value>& pairs);

// Both in one.
std::vector<ir::Value> load_elements(ir::Builder& b, DType type, ir::Value address,
                                     ir::Value valid);

// k's mean over tokens for this thread's eight channels: the partial sums, added in order of the
// chunks, divided by the number of tokens.
std::vector<ir::Value> load_mean(ir::Builder& b, const KernelArgs& args, const RowLanes& lanes,
                                 int head_dim);

// f(value, other) folded over the lanes of a row; every lane gets the result.
ir::Value reduce_row(ir::Builder& b, const RowLanes& lanes, ir::Value value, ir::Op op);

}  // namespace sagejit
