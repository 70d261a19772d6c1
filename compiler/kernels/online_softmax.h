// The online softmax of one warp's query rows, in base 2: running maximum, running sum, and P of
// one key tile.
//
//   m' = max(m, max_j x_j c)     P_j = 2^(x_j c - m')     l' = l 2^(m - m') + sum_j P_j
//
// x is a raw score and c its dequantization: scale log2(e) dq dk. m is -inf until a row sees a key.
#pragma once

#include <vector>

#include "compiler/ir/builder.h"

namespace sagejit {

// Scores of one warp for one key tile, f32: [16-row tile][8-key tile][element of the C fragment].
using Scores = std::vector<std::vector<std::vector<ir::Value>>>;

// Rows of a warp that one thread holds: two for each 16-row tile; row r is elements 2 (r % 2) and
// 2 (r % 2) + 1 of row tile r / 2.
constexpr int rows_of_thread(int num_row_tiles) {
  return 2 * num_row_tiles;
}

// How the scores of one key tile become numbers: x c, where c depends on the row and on a group of
// keys.
struct Dequantization {
  std::vector<ir::Value> row_factors;  // by row of the thread: scale log2(e) dq
  std::vector<ir::Value>
      key_factors;  // dk, one per run of key tiles; empty: already multiplied into x
};

class OnlineSoftmax {
 public:
  OnlineSoftmax(ir::Builder& b, int num_row_tiles, bool sums_p);

  struct Step {
    std::vector<ir::Value> shrink;  // by row of the thread: what O and l are multiplied by
  };
  // Replaces the scores by P. `masked`: scores may be -inf, and rows may see no key at all.
  Step step(Scores& scores, const Dequantization& dequantization, bool masked);

  // After the last step; every thread of a quad holds the same.
  std::vector<ir::Value> row_max() const;  // log2 units; -inf for rows without keys
  std::vector<ir::Value> row_sum()
      const;  // 0 for rows without keys; valid if constructed with sums_p

 private:
  ir::Value factor(const Dequantization& dequantization, int row, size_t run, bool masked) const;
  ir::Value quad_reduce(ir::Value value, ir::Op op) const;

  ir::Builder& b_;
  bool sums_p_;
  std::vector<ir::Var> max_, sum_;
};

}  // namespace sagejit
