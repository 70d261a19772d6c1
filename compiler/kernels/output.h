// The end of an attention kernel: O and LSE of one warp's query rows go to memory.
//
//   O = acc / l (times V's scale of the channel, plus its mean if it was smoothed)
//     0 for rows that see no key
//   LSE = ln 2 (log2 l - (log2 range - m)) + scale q . mean(K)   natural logarithm, of the true
//   scores
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/scores.h"

namespace sagejit {

// What one thread holds of its query rows.
struct RowResults {
  std::vector<ir::Value> rows, sums, offsets;  // numbers of the rows, l and log2 range - m
  // The four elements of O's 8-column tile, f32, before normalisation.
  std::function<std::array<ir::Value, 4>(int row_tile, int column_tile)> elements;
  // V's scales of the thread's two columns of a tile; empty where V has none.
  std::function<std::vector<ir::Value>(int column_tile)> value_scales;
  // V's means that its codes are without, likewise.
  std::function<std::vector<ir::Value>(int column_tile)> value_means;
};

void store_output(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                  const QueryTile& tile, const RowResults& results);

}  // namespace sagejit
