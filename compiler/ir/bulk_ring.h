// BulkRing: stages of shared memory that bulk copies fill and warpgroups drain, and the only owner
// of the barriers between them.
//
//   one thread:     ring.initialize();          then fence and block barrier, once for all rings
//   producing warp: Cursor c = ring.cursor();   loop: ring.begin(c); store words; ring.fill(c,
//   source) consumers:      Cursor c = ring.cursor();   loop: ring.wait(c); use ring.address(c);
//   ring.done(c)
//
// A stage is data, which one bulk copy brings, and words, which the producing warp stores. It is
// full when both are there, and free again when every consuming warp has released it. Both sides
// walk through the stages in the same order.
#pragma once

#include <string>

#include "compiler/ir/builder.h"

namespace sagejit::ir {

class BulkRing {
 public:
  // A stage: `data_bytes` (a multiple of 16), then `num_words` of 4 bytes. num_warps: consuming
  // warps, each of which releases every stage.
  struct Shape {
    int stages, data_bytes, num_words, num_warps;
  };
  BulkRing(Builder& b, const std::string& name, const Shape& shape);

  // A place in the walk: stage, and parity of the round.
  struct Cursor {
    Var stage, round;
  };
  Cursor cursor() const;

  void initialize() const;

  // Waits until the stage is free: its words may be stored. All lanes of the producing warp.
  void begin(const Cursor& cursor) const;
  // Starts the copy of the data from `source` (i64), publishes the words, and moves on. All lanes.
  void fill(const Cursor& cursor, Value source) const;

  // Publishes words alone, and moves on. All lanes.
  void publish(const Cursor& cursor) const;

  // Waits until the stage is full. All threads of a consuming warp.
  void wait(const Cursor& cursor) const;
  // Address of the stage's data, and of its words.
  Value address(const Cursor& cursor) const;
  Value words(const Cursor& cursor) const;
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
  Shape shape_;
  Value data_, words_, barriers_;
};

}  // namespace sagejit::ir
