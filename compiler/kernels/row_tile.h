// The rows of Q or K that a team of threads handles at a time.
#pragma once

#include <string>
#include <vector>

#include "compiler/kernels/prepare.h"

namespace sagejit {

// `tile_rows` tokens of one (batch, head), eight elements a thread and pass, smoothed.
class RowTile {
 public:
  RowTile(ir::Builder& b, const KernelArgs& args, const QuantizePlan& plan, const TilePlace& place);

  int num_passes() const {
    return (plan_.tile_rows + lanes_.rows_per_pass - 1) / lanes_.rows_per_pass;
  }
  const RowLanes& lanes() const { return lanes_; }
  ir::Value first_token() const { return first_token_; }
  ir::Value num_tokens() const { return num_tokens_; }
  ir::Value num_code_tokens() const;  // padding included, where the codes have any
  ir::Value batch_head() const;

  // This thread's row of a pass, counted from the tile's first.
  ir::Value row(int pass) const;
  ir::Value token(int pass) const;
  // A token that exists and belongs to this tile.
  ir::Value in_tensor(int pass) const { return before(num_tokens_, pass); }
  ir::Value has_codes(int pass) const { return before(num_code_tokens(), pass); }

  // A piece for each pass; zeros outside the tensor.
  void load();
  // The mean over tokens of the K head, this thread's eight channels; waits for it.
  void load_mean();
  const std::vector<ir::Value>& mean() const { return mean_; }

  // The elements of one pass.
  std::vector<ir::Value> elements(int pass) const {
    return unpack(b_, plan_.input, pieces_.pairs(pass));
  }
  // x, or where it is smoothed, x - mean; of a row outside the tensor, anything.
  std::vector<ir::Value> smoothed(int pass) const;
  // max |x|, or |x - mean|, over whole rows of the tensor, those of some passes; every lane of a
  // row gets it.
  ir::Value rows_amax(int first_pass, int end_pass) const;
  void forget_elements() const { pieces_.forget(); }

 private:
  ir::Value plain_amax(int pass) const;
  ir::Value smoothed_amax(int pass) const;
  ir::Value before(ir::Value end, int pass) const;

  ir::Builder& b_;
  const KernelArgs& args_;
  const QuantizePlan& plan_;
  RowLanes lanes_;
  TilePlace place_;
  ir::Value first_token_, num_tokens_;
  ir::Value in_row_;  // this lane has elements
  Pieces pieces_;
  std::vector<ir::Value> mean_;
};

}  // namespace sagejit
