// V's key tiles in the mma.sync kernel: from global to shared memory, and from there as the B
// operand of P V; and what its channels are scaled by.
//
//   16 bits   the caller's V, a row a token, transposed on the way to registers
//   8, 4 bits the prepared codes (core_matrix.h), a row a channel, as they lie; behind those of fp4
//   their scales
#pragma once

#include <vector>

#include "compiler/ir/tile.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/kernels/scores.h"
#include "compiler/plan/forward_plan.h"

namespace sagejit {

class ValueTiles {
 public:
  ValueTiles(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
             const QueryTile& query_tile);

  // Starts the copies of a key tile to shared memory at `address`, and of its scales to `scales`;
  // by the whole block.
  void load(ir::Value address, ir::Value scales, ir::Value key_tile) const;

  // Fixes the addresses, multiples of 128, for all reads of that tile.
  struct Tile {
    std::vector<ir::Value> codes;
    ir::Value scales;  // this thread's first, with fp4
  };
  Tile at(ir::Value address, ir::Value scales) const;
  // The B operands, two registers each, of the product from `first_key` on and 8-column tiles
  // `column_tile` (even) and the next.
  std::vector<ir::Value> read(const Tile& tile, int first_key, int column_tile) const;

  // With fp4: a register of scales for four 8-column tiles, from `column_tile` (a multiple of four)
  // on; thread t of a quad has those of tile column_tile + t.
  ir::Value read_scales(const Tile& tile, int first_key, int column_tile) const;

  bool is_scaled() const { return plan_.v.is_scaled; }
  bool has_means() const { return plan_.v.subtract_mean; }
  // Of the thread's two columns of an 8-column tile, f32. By lane `quad_lane` of its quad.
  std::vector<ir::Value> scales(ir::Value quad_lane, int column_tile) const;
  std::vector<ir::Value> means(ir::Value quad_lane, int column_tile) const;

 private:
  ir::Value first_token() const;
  ir::Value head_address() const;
  std::vector<ir::Value> load_channels(ir::Value quad_lane, int column) const;

  ir::Builder& b_;
  const ForwardPlan& plan_;
  const KernelArgs& args_;
  QueryTile query_tile_;
  TileLayout layout_;
  ir::TileLoader loader_;
  ir::FragmentReader reader_;
  ir::Value head_address_;    // of key 0
  ir::Value scales_address_;  // of key 0's block, with fp4
};

}  // namespace sagejit
