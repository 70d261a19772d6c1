// BulkRing: stages of shared memory that bulk copies fill and warpgroups drain, and the only owner
// of the barriers between them.
//
//   one thread:      ring.initialize();   then fence and block barrier, once for all rings
//   both sides:      RingCursor c(b, stages);
//   producing warp:  loop: ring.begin(c); store words; ring.fill(c, sources);     c.advance()
//   consuming warps: loop: ring.wait(c); use ring.units(c); ring.release(c);   c.advance()
//
// A stage is pieces of data, whose parts one bulk copy each brings, and words, which the producing
// warp stores. It is full when all are there, and free again when every consuming warp has released
// it. Both sides walk through the stages in the same order.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compiler/ir/builder.h"

namespace sagejit::ir {

// A place in a walk through the stages of a ring: stage, and parity of the round.
class RingCursor {
 public:
  RingCursor(Builder& b, int stages, Value first = constant(0));

  Value stage() const;
  Value round() const;
  // To the stage `step` further; a walk's steps must divide the number of stages.
  void advance(int step = 1);

 private:
  Builder& b_;
  int stages_;
  Var stage_, round_;
};

class BulkRing {
 public:
  // A stage: pieces of `num_parts` parts of so many bytes each (multiples of 16), one after the
  // other, and `num_words` of 4 bytes. num_warps: consuming warps, each of which releases every
  // stage.
  struct Piece {
    std::string name;
    int part_bytes;
    int num_parts = 1;
    int bytes() const { return part_bytes * num_parts; }
  };
  struct Shape {
    int stages;
    std::vector<Piece> pieces;
    int num_words, num_warps;
  };
  BulkRing(Builder& b, const std::string& name, const Shape& shape);

  void initialize() const;

  // Waits until the stage is free: its words may be stored. All lanes of the producing warp.
  void begin(const RingCursor& at) const;
  // Where a part comes from (i64), and a predicate, the same in all lanes; without it, always.
  struct Source {
    Value address, condition;
  };
  // Starts the copies of the pieces, a source for each part, and publishes the words. All lanes.
  void fill(const RingCursor& at, const std::vector<Source>& sources) const;
  // Publishes words alone. All lanes.
  void publish(const RingCursor& at) const;

  // Waits until the stage is full. All threads of a consuming warp.
  void wait(const RingCursor& at) const;
  // Address of a piece of the stage, in units of 16 bytes and in bytes, and of its words, in bytes.
  Value units(const RingCursor& at, int piece = 0) const;
  Value address(const RingCursor& at, int piece) const { return this->piece(at.stage(), piece); }
  Value words(const RingCursor& at) const;
  // This warp is done with the stage.
  void release(const RingCursor& at) const;

 private:
  Value full(Value stage) const;
  Value empty(Value stage) const;
  Value piece(Value stage, int index) const;  // its address
  // (number among all parts, piece, number within the piece)
  void for_each_part(const std::function<void(size_t, int, int)>& visit) const;

  Builder& b_;
  Shape shape_;
  std::vector<Value> pieces_;  // of the first stage
  Value words_, barriers_;
};

}  // namespace sagejit::ir
