// Kernels that hold every operation, for tests of back ends.
#pragma once

#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/target/target.h"
#include "tests/support/catch.h"

namespace sagejit {

// sm_90a has more than sm_90, which shares its number, and its successors, and so has sm_120a;
// products of 8-bit floats are for targets that have them in hardware.
inline bool has(const Target& target, ir::Op op) {
  const bool is_of_warpgroups =
      op == ir::Op::kWgmmaCommit || op == ir::Op::kRegistersUp || op == ir::Op::kRegistersDown;
  const ir::MmaInfo* mma = ir::find_mma(op);
  const bool is_of_fp8 = mma && is_fp8(mma->a);
  const bool is_of_fp4 = op == ir::Op::kMmaE2M1 || op == ir::Op::kPackE2M1;
  return ir::info(op).min_sm <= target.sm && (target.wgmma || !is_of_warpgroups) &&
         (target.native_fp8_mma || !is_of_fp8) && (target.fp4_mma || !is_of_fp4);
}

// An integer constant that the operation takes: which threads of a quad hold scale factors, or, for
// setmaxnreg, no less than 24.
inline int immediate_of(ir::Op op) {
  return op == ir::Op::kMmaE2M1 ? 1 : 32;
}

// Emits the operation and stores its results, so that it is not removed before the assembler has
// seen it.
inline void emit_and_store(ir::Builder& b, ir::Op op, ir::Value address, ir::Value integer) {
  const auto operand = [&](char letter) -> ir::Value {
    switch (letter) {
      case 'p':
        return b.less(integer, ir::constant(7));
      case 'l':
        return address;
      case 'f':
        return b.emit1(ir::Op::kF32FromS32, {integer});
      case 'i':
        return ir::constant(immediate_of(op));
      case 'r':
        return integer;
      default:
        FAIL("no operand for letter " << letter);
        return {};
    }
  };
  std::vector<ir::Value> operands;
  for (const char letter : info(op).operands) operands.push_back(operand(letter));
  for (const ir::Value result : b.emit(op, operands)) {
    switch (result.type) {
      case ir::Type::kF32:
        b.emit(ir::Op::kStGlobalF32, {address, ir::constant(0), result});
        break;
      case ir::Type::kI32:
        b.emit(ir::Op::kStGlobalI32, {address, ir::constant(0), result});
        break;
      case ir::Type::kI64:
        b.emit(ir::Op::kStGlobalI32, {result, ir::constant(0), integer});
        break;
      case ir::Type::kPred: {
        const ir::Value chosen = b.select(result, ir::constant(3), ir::constant(5));
        b.emit(ir::Op::kStGlobalI32, {address, ir::constant(0), chosen});
        break;
      }
      case ir::Type::kB16:
        FAIL("no store for 16 bits");
        break;
    }
  }
}

// A kernel that has every operation of ops.def and mma.def that the target knows once.
inline ir::Function kernel_of_everything(const Target& target) {
  ir::Builder b("everything", 32);
  const ir::Value address = b.param("p", ir::Type::kI64), integer = b.param("n", ir::Type::kI32);
  for (int i = 0; i < static_cast<int>(ir::Op::kParam); ++i) {
    const ir::Op op = static_cast<ir::Op>(i);
    if (has(target, op)) emit_and_store(b, op, address, integer);
  }
  return b.finish(target.sm);
}

// A product of wgmma.def, 32 columns wide, with A from shared memory and from registers. What it
// wrote is stored.
inline void emit_warpgroup_product(ir::Builder& b, const ir::WgmmaInfo& row, ir::Value address) {
  const bool is_f32 = row.c == DType::kF32;
  std::vector<ir::Var> accumulators;
  for (int j = 0; j < (row.c == DType::kF16 ? 8 : 16); ++j) {
    accumulators.push_back(b.var(is_f32 ? ir::constant_f32(0) : ir::constant(0)));
  }
  b.wgmma(row.op, accumulators, {address}, address, {.fenced = true, .accumulate = false});
  b.wgmma(row.op, accumulators, std::vector<ir::Value>(4, b.tid()), address, {});
  b.emit(ir::Op::kWgmmaCommit, {});
  b.wgmma_wait(0, accumulators);
  for (const ir::Var& x : accumulators) {
    b.emit(is_f32 ? ir::Op::kStGlobalF32 : ir::Op::kStGlobalI32,
           {address, ir::constant(0), b.get(x)});
  }
}

// Every product of wgmma.def.
inline ir::Function kernel_of_every_warpgroup_product() {
  ir::Builder b("products", 128);
  const ir::Value address = b.param("p", ir::Type::kI64);
  for (int i = static_cast<int>(ir::Op::kWgmmaWait) + 1; i < static_cast<int>(ir::Op::kCount);
       ++i) {
    emit_warpgroup_product(b, *ir::find_wgmma(static_cast<ir::Op>(i)), address);
  }
  return b.finish(90);
}

// A kernel of one operation of ops.def, mma.def or wgmma.def.
inline ir::Function kernel_of(ir::Op op, const Target& target) {
  const ir::WgmmaInfo* wgmma = ir::find_wgmma(op);
  ir::Builder b("one", wgmma ? 128 : 32);
  const ir::Value address = b.param("p", ir::Type::kI64), integer = b.param("n", ir::Type::kI32);
  if (wgmma) {
    emit_warpgroup_product(b, *wgmma, address);
  } else {
    emit_and_store(b, op, address, integer);
  }
  return b.finish(target.sm);
}

}  // namespace sagejit
