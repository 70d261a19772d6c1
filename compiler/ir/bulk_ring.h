// BulkRing: stages of shared memory that bulk copies fill and warpgroups drain, and the only owner
// of the barriers between them.
//
//   one thread:  ring.initialize();            then fence and block barrier, once for all rings
//   producer:    BulkRing::Cursor c = ring.cursor();  loop: ring.fill(c, source, bytes)
//   consumers:   BulkRing::Cursor c = ring.cursor();  loop: ring.wait(c); use ring.address(c);
//   ring.release(c)
//
// A stage is filled when its bytes have arrived ("full" barrier) and free again when every
// consuming warp has released it ("empty" barrier). Both sides walk through the stages in the same
// order.
#pragma once

#include <string>

#include "compiler/ir/builder.h"

namespace sagejit::ir {

class BulkRing {
 public:
  // num_warps: consuming warps, each of which releases every stage.
  BulkRing(Builder& b, const std::string& name, int stages, int stage_bytes, int num_warps);

  // A place in the walk: stage, and parity of the round.
  struct Cursor {
    Var stage, round;
  };
  Cursor cursor() const;

  void initialize() const;

  // Waits until the stage is free, starts the copy of `bytes` (i32, up to the stage's) from
  // `source` (i64), and moves on. One thread.
  void fill(const Cursor& cursor, Value source, Value bytes) const;

  // Waits until the stage is full. All threads of a consuming warp.
  void wait(const Cursor& cursor) const;
  // The stage's number, and its address in shared memory.
  Value stage(const Cursor& cursor) const { return b_.get(cursor.stage); }
  Value address(const Cursor& cursor) const;
  Value base() const { return data_; }
  int stage_bytes() const { return stage_bytes_; }
  // This warp is done with the stage that `cursor` is at.
  void release(const Cursor& cursor) const;
  // To the stage `step` further; a walk's steps must divide the number of stages.
  void advance(const Cursor& cursor, int step = 1) const;
  void done(const Cursor& cursor, int step = 1) const {
    release(cursor);
    advance(cursor, step);
  }

 private:
  Value full(Value stage) const;
  Value empty(Value stage) const;

  Builder& b_;
  int stages_, stage_bytes_, num_warps_;
  Value data_, barriers_;
};

}  // namespace sagejit::ir
