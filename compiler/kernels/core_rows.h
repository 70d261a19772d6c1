// Addresses in operands that lie as core matrices (core_matrix.h).
#pragma once

#include "compiler/ir/builder.h"

namespace sagejit {

// A tile's rows as core matrices in shared memory, where a team's threads bring them together: a
// warp's pieces of a few rows are far apart in such a layout, and stored as they are would take
// many transactions. Rows of core matrices are turned, by their column of the tile, so that neither
// the pieces of a row nor the rows of a core matrix meet in one bank.
class CoreRowStage {
 public:
  // `shared`: the bytes of so many rows, a multiple of 8, aligned to 128.
  CoreRowStage(ir::Builder& b, ir::Value shared, int rows, int row_bytes)
      : b_(b), shared_(shared), rows_(rows), row_bytes_(row_bytes) {}

  // Where eight bytes from byte `byte` of row `row` on go; a row 8 further is row_stride(8)
  // further.
  ir::Value place(ir::Value row, ir::Value byte) const;
  int row_stride(int rows) const { return rows * row_bytes_; }  // of multiples of 8
  // Stores the first `count` rows as rows `first` and following of the head at `head`; all threads,
  // behind a barrier. `first_is_band`: it is known to be a multiple of 8.
  void store(ir::Value head, ir::Value first, bool first_is_band, ir::Value count) const;

 private:
  ir::Value turned(ir::Value row, ir::Value core) const;

  ir::Builder& b_;
  ir::Value shared_;
  int rows_, row_bytes_;
};

}  // namespace sagejit
