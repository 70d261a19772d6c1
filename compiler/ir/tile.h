// Tile verbs: moving tiles from global to shared memory, and fragments from shared memory to
// registers.
#pragma once

#include <functional>
#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/layout/tile_layout.h"

namespace sagejit::ir {

// Where a chunk of a tile lies: bytes from the tile's start to chunk `chunk` of row `row`.
Value chunk_offset(Builder& b, const TileLayout& layout, Value row, Value chunk);

// Copies tiles from row-major global memory to row-major, swizzled shared memory with cp.async;
// every thread of the block takes part. Chunks past `source_chunks` in a row and rows past the
// valid ones become zeros.
class TileLoader {
 public:
  // row_stride_bytes: i64, constant or register; a multiple of 16.
  TileLoader(Builder& b, const TileLayout& layout, int source_chunks, Value row_stride_bytes);

  // tile: i32 shared address; source: i64 address of the tile's row 0; valid_rows: i32, may exceed
  // rows.
  void load(Value tile, Value source, Value valid_rows) const;

 private:
  // What one thread copies in one round of the block: one chunk.
  struct Pass {
    Value row;            // i32, this thread's row in the pass
    Value shared_offset;  // i32 bytes
    Value global_offset;  // i64 bytes
    Value takes_part;     // pred, or none where all threads do
    Value has_source;     // pred, or none where every chunk has a source
  };
  Pass pass_at(int first_chunk, int source_chunks) const;
  void copy(const Pass& pass, Value tile, Value source, Value valid_rows) const;
  void load_regular(Value tile, Value source, Value valid_rows) const;

  Builder& b_;
  TileLayout layout_;
  Value row_stride_bytes_;
  // Where a pass advances every thread by whole swizzle periods, every pass is the first one moved
  // by a constant number of rows: only one address is kept in registers.
  bool regular_;
  int num_passes_, rows_per_pass_;
  Value pass_step_bytes_;     // i64, regular tiles alone
  std::vector<Pass> passes_;  // all, or the first of a regular tile
};

// Reads tensor-core fragments with ldmatrix.x4. A read covers 16 rows by 32 bytes (two chunks).
class FragmentReader {
 public:
  // Which quarter of the 16 x 2-chunk area each group of eight lanes addresses.
  enum class Order {
    kRowsFirst,    // lanes 8..15 the lower rows: A operands; B operands read with .trans
    kChunksFirst,  // lanes 8..15 the second chunk: B operands stored with columns as rows
  };
  FragmentReader(Builder& b, const TileLayout& layout, Order order, bool transposed);

  // Fixes the tile's address, a multiple of 128 bytes; the result serves all reads of that tile.
  std::vector<Value> at(Value tile) const;
  // Four registers from row `row` (multiple of 8) and chunk `chunk` (even) of the tile given by
  // `at`.
  std::vector<Value> read(const std::vector<Value>& tile, int row, int chunk) const;

 private:
  Builder& b_;
  TileLayout layout_;
  bool transposed_;
  int num_patterns_;  // values of the swizzled chunk bits above the lowest
  Value offset_;      // of chunk 0 from the tile's start
};

// A ring of shared-memory stages filled by cp.async: the only owner of its waits and barriers.
//
//   ring.fill(first, end, load);                       // starts the first copies
//   loop: slot = ring.next(tile, end, load); ...       // waits for the tile, starts a later one
class CopyRing {
 public:
  using Load = std::function<void(Value slot, Value tile)>;  // issues the copies of one tile

  CopyRing(Builder& b, const std::string& name, int stages, int stage_bytes);

  void fill(Value first, Value end, const Load& load);
  // The address of the stage that holds `tile`. Tiles are asked for in order, by all threads
  // together.
  Value next(Value tile, Value end, const Load& load);

 private:
  Value advance(Value slot) const;

  Builder& b_;
  int stages_;
  int stage_bytes_;
  Value base_;
  Var read_slot_, write_slot_;
};

}  // namespace sagejit::ir
