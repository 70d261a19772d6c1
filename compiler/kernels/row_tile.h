// The rows of Q or K that a team of threads handles at a time.
#pragma once

#include <string>
#include <vector>

#include "compiler/kernels/prepare.h"

namespace sagejit {

// `tile_rows` tokens of one (batch, head), eight elements a thread and pass, smoothed and rotated.
class RowTile {
 public:
  RowTile(ir::Builder& b, const KernelArgs& args, const QuantizePlan& plan, const TilePlace& place);

  int num_passes() const {
    return (plan_.tile_rows + lanes_.rows_per_pass - 1) / lanes_.rows_per_pass;
  }
  // No thread has rows past the tile's.
  bool passes_fill_tile() const { return num_passes() * lanes_.rows_per_pass == plan_.tile_rows; }
  const RowLanes& lanes() const { return lanes_; }
  ir::Value first_token() const { return first_token_; }
  ir::Value num_tokens() const { return num_tokens_; }
  ir::Value batch_head() const;

  // Where codes of the head lie: in a pack of rows (packed_heads.h), the head alone where heads are
  // not packed. The padding, where a pack has any, is part of its last head's.
  struct CodePlace {
    ir::Value pack;          // number of its first row, i64
    ir::Value first, count;  // rows of the pack
  };
  CodePlace code_place() const;

  // This thread's row of a pass, counted from the tile's first.
  ir::Value row(int pass) const;
  ir::Value token(int pass) const;
  // A token that exists and belongs to this tile.
  ir::Value in_tensor(int pass) const { return before(num_tokens_, pass); }
  ir::Value has_codes(int pass) const { return before(code_place().count, pass); }

  // A piece for each pass. Rows outside the tensor are NaNs, which are in no maximum and whose
  // codes are 0; elements past the head_dim are 0.
  void load() const;
  // Until the means of the K head and of the Q that attends to it are there; loads the first that
  // is subtracted.
  void wait_for_means() const;
  // The mean over tokens of the K head, this thread's eight channels.
  std::vector<ir::Value> load_key_mean() const;

  // The elements of one pass.
  std::vector<ir::Value> elements(int pass) const {
    return unpack(b_, plan_.input, pieces_.pairs(pass));
  }
  // x as it is quantized: where it is smoothed, x - mean; where it is rotated, H times that. All
  // lanes of a warp.
  std::vector<ir::Value> operand(int pass) const;
  // The largest magnitude of that over whole rows, those of some passes and of so many rows of a
  // warp, side by side; every lane of them gets it.
  ir::Value rows_amax(int first_pass, int end_pass, int rows = 1) const;
  void forget_elements() const { pieces_.forget(); }

 private:
  ir::Value plain_amax(int first_pass, int end_pass) const;
  ir::Value centred_amax(int first_pass, int end_pass) const;
  ir::Value rotated_amax(int pass) const;
  void load_passes(bool all_exist) const;
  void rotate(std::vector<ir::Value>& x) const;
  ir::Value before(ir::Value end, int pass) const;
  int block_of(int pass) const;
  const std::vector<ir::Value>& mean(int pass) const;  // that is subtracted

  ir::Builder& b_;
  const KernelArgs& args_;
  const QuantizePlan& plan_;
  RowLanes lanes_;
  TilePlace place_;
  ir::Value first_token_, num_tokens_;
  ir::Value first_row_;
  ir::Value in_row_;  // this lane has elements; unset: every lane
  Pieces pieces_;
  // The mean of the last pass that asked for one, and of which block it is: most rows of a thread
  // share it.
  mutable std::vector<ir::Value> mean_;
  mutable int mean_block_ = -1;
};

}  // namespace sagejit
