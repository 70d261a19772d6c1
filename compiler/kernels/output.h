// The end of an attention kernel: O and LSE of one warp's query rows go to memory.
//
//   O = acc / l (times V's scale of the channel)         0 for rows that see no key
//   LSE = ln 2 (m + log2 (l / range)) + scale q . mean(K)      natural logarithm of the true scores
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "compiler/kernels/online_softmax.h"
#include "compiler/kernels/scores.h"

namespace sagejit {

struct RowResults {
  std::vector<ir::Value> sums, maxima;  // by row of the thread
  // The four elements of O's 8-column tile, f32, before normalisation.
  std::function<std::array<ir::Value, 4>(int row_tile, int column_tile)> elements;
};

// tid: this thread, counted from the tile's first.
void store_output(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                  const QueryTile& tile, const RowResults& results, float range_log2,
                  ir::Value tid);

}  // namespace sagejit
