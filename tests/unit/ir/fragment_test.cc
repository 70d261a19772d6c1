// The layouts against the formulas of the PTX ISA (section "Warp-level matrix instructions",
// "Matrix Fragments for mma.m16n8k16 with floating point type" and "... for mma.m16n8k32"), which
// count elements, not bytes.
#include "compiler/ir/fragment.h"

#include <array>

#include "tests/support/catch.h"

namespace sagejit::ir {
namespace {

constexpr Op kHalfProducts[] = {Op::kMmaF16F32, Op::kMmaF16F16, Op::kMmaBF16F32};

void check_at(Coordinate at, int row, int column) {
  CHECK(at.row == row);
  CHECK(at.column == column);
}

}  // namespace

TEST_CASE("m16n8k16 fragments of 16-bit elements lie as the PTX ISA says") {
  for (const Op op : kHalfProducts) {
    const MmaInfo& mma = mma_info(op);
    INFO(info(op).name);
    CHECK(a_registers(mma) == 4);
    CHECK(b_registers(mma) == 2);
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane >> 2, thread = lane % 4;
      for (int i = 0; i < 8; ++i) {  // a0 .. a7
        const int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
        const int column = i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8;
        check_at(a_element(mma, lane, i / 2, i % 2), row, column);
      }
      for (int i = 0; i < 4; ++i) {  // b0 .. b3
        const int row = i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8;
        check_at(b_element(mma, lane, i / 2, i % 2), row, group);
      }
    }
  }
}

TEST_CASE("m16n8k64 fragments of int4 lie as the PTX ISA says") {
  const MmaInfo& mma = mma_info(Op::kMmaS4);
  CHECK(a_registers(mma) == 4);
  CHECK(b_registers(mma) == 2);
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, thread = lane % 4;
    for (int i = 0; i < 32; ++i) {  // a0 .. a31
      const int row = i < 8 || (i >= 16 && i < 24) ? group : group + 8;
      const int column = thread * 8 + (i & 7) + (i < 16 ? 0 : 32);
      check_at(a_element(mma, lane, i / 8, i % 8), row, column);
    }
    for (int i = 0; i < 16; ++i) {  // b0 .. b15
      const int row = thread * 8 + (i & 7) + (i < 8 ? 0 : 32);
      check_at(b_element(mma, lane, i / 8, i % 8), row, group);
    }
  }
}

TEST_CASE("m16n8k32 fragments of int8 lie as the PTX ISA says") {
  const MmaInfo& mma = mma_info(Op::kMmaS8);
  CHECK(a_registers(mma) == 4);
  CHECK(b_registers(mma) == 2);
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, thread = lane % 4;
    for (int i = 0; i < 16; ++i) {  // a0 .. a15
      const int row = i < 4 || (i >= 8 && i < 12) ? group : group + 8;
      const int column = i < 8 ? thread * 4 + (i & 3) : thread * 4 + (i & 3) + 16;
      check_at(a_element(mma, lane, i / 4, i % 4), row, column);
    }
    for (int i = 0; i < 8; ++i) {  // b0 .. b7
      const int row = i < 4 ? thread * 4 + (i & 3) : thread * 4 + (i & 3) + 16;
      check_at(b_element(mma, lane, i / 4, i % 4), row, group);
    }
  }
}

TEST_CASE("accumulators lie as the PTX ISA says, packed by two in f16") {
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, thread = lane % 4;
    for (int i = 0; i < 4; ++i) {
      check_at(c_element(lane, i), i < 2 ? group : group + 8, thread * 2 + (i & 1));
    }
  }
  CHECK(c_registers(mma_info(Op::kMmaF16F32)) == 4);
  CHECK(c_registers(mma_info(Op::kMmaF16F16)) == 2);
  CHECK(c_registers(mma_info(Op::kMmaS8)) == 4);
}

TEST_CASE("an mma's signature follows from its shape") {
  CHECK(info(Op::kMmaS8).results == "rrrr");
  CHECK(info(Op::kMmaS8).operands == "rrrrrrrrrr");
  CHECK(info(Op::kMmaF16F32).results == "ffff");
  CHECK(info(Op::kMmaF16F32).operands == "rrrrrrffff");
  CHECK(info(Op::kMmaF16F16).results == "rr");
  CHECK(info(Op::kMmaF16F16).ptx ==
        "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {$0, $1}, {$2, $3, $4, $5}, {$6, $7}, "
        "{$8, $9};");
  CHECK_THROWS_WITH(mma_info(Op::kAddI32), "operation is not a tensor-core product");
}

}  // namespace sagejit::ir
