#include "compiler/cost/roofline.h"

#include <cmath>

#include "compiler/ir/ir.h"
#include "compiler/sema/check.h"
#include "tests/support/catch.h"

namespace sagejit::cost {
namespace {

const Throughput& hopper() {
  return throughput_of(find_target("sm_90a"));
}
const Throughput& ampere() {
  return throughput_of(find_target("sm_80"));
}

// Made up: no fast products of integers.
Throughput without_int8(int s8 = 0) {
  Throughput t = hopper();
  t.target = "sm_x";
  t.s8 = s8;
  return t;
}

Variant int8_variant() {
  Variant variant;
  variant.head_dim = variant.value_head_dim = 128;
  variant.q.type = variant.k.type = DType::kS8;
  return variant;
}

double clocks(ir::Op op, Unit unit, const Throughput& throughput = hopper()) {
  return clocks_of({op, 0, false, 1}, throughput)[static_cast<size_t>(unit)];
}

TEST_CASE("every operation of the IR has a cost on every target") {
  for (const Target& target : all_targets()) {
    const Throughput* throughput = find_throughput(target);
    CHECK((throughput == nullptr) == (target.sm / 10 == 10));  // not published
    for (int i = 0; throughput && i < static_cast<int>(ir::Op::kCount); ++i) {
      const auto op = static_cast<ir::Op>(i);
      CAPTURE(target.name, ir::info(op).name);
      CHECK_NOTHROW(clocks_of({op, 64, false, 1}, *throughput));
    }
  }
}

TEST_CASE("a warp keeps a unit busy for its lanes over the unit's rate") {
  CHECK(clocks(ir::Op::kEx2Approx, Unit::kSpecial) == 2);  // 32 / 16
  CHECK(clocks(ir::Op::kEx2Approx, Unit::kIssue) == 0.25);
  CHECK(clocks(ir::Op::kEx2Approx, Unit::kFp32) == 0);
  CHECK(clocks(ir::Op::kFmaF32, Unit::kFp32) == 0.25);
  CHECK(clocks(ir::Op::kFmaF32, Unit::kFp32, ampere()) == 0.5);
  CHECK(clocks(ir::Op::kAddI32, Unit::kAlu) == 0.5);
  CHECK(clocks(ir::Op::kLdMatrix, Unit::kShared) == 4);  // 512 bytes
  CHECK(clocks(ir::Op::kPackE4M3, Unit::kAlu) == 1);     // two conversions
  CHECK(clocks(ir::Op::kPackE4M3, Unit::kIssue) == 0.5);
  CHECK(clocks(ir::Op::kMbarrierWait, Unit::kIssue) == 0.5);  // a try and a branch
  CHECK(clocks(ir::Op::kLdGlobalV4If, Unit::kAlu) == 0.5);    // the comparison; moves are free
  // Two new numbers to a maximum of three; one elsewhere.
  CHECK(clocks(ir::Op::kMaxS32, Unit::kAlu) == 0.25);
  CHECK(clocks(ir::Op::kMaxS32, Unit::kAlu, ampere()) == 0.5);
  // From integers to floats: not the integer unit's work before Hopper.
  CHECK(clocks(ir::Op::kF32FromS32, Unit::kAlu) == 0.5);
  CHECK(clocks(ir::Op::kF32FromS32, Unit::kSpecial, ampere()) == 2);
}

TEST_CASE("products take the tensor cores' time, and shared memory's for what they read there") {
  CHECK(clocks(ir::Op::kMmaS8, Unit::kTensor, ampere()) == 2);  // 2 16 8 32 / 4096
  CHECK(clocks(ir::Op::kMmaF16F32, Unit::kTensor, ampere()) == 2);
  const Throughput& rtx = throughput_of(find_target("sm_89"));
  CHECK(clocks(ir::Op::kMmaF16F32, Unit::kTensor, rtx) ==
        2 * clocks(ir::Op::kMmaF16F16, Unit::kTensor, rtx));
  // Of a warpgroup's 64 x 128 x 32: a quarter for each warp.
  const UnitClocks shared = clocks_of({ir::Op::kWgmmaS8, 128, false, 4}, hopper());
  CHECK(shared[static_cast<size_t>(Unit::kTensor)] == 64);
  CHECK(shared[static_cast<size_t>(Unit::kShared)] == (128 + 64) * 32 / 128);
  const UnitClocks in_registers = clocks_of({ir::Op::kWgmmaE4M3F32, 128, true, 4}, hopper());
  CHECK(in_registers[static_cast<size_t>(Unit::kShared)] == 128 * 32 / 128);
  // None in hardware.
  CHECK(std::isinf(clocks(ir::Op::kWgmmaS8, Unit::kTensor, without_int8())));
}

TEST_CASE("the busiest unit binds") {
  const Variant variant = int8_variant();
  Schedule schedule;
  schedule.block_m = schedule.block_n = 64;
  schedule.num_warps = 4;
  std::vector<LoopCount> loops(1);
  loops[0].ops = {{ir::Op::kMmaS8, 0, false, 64}, {ir::Op::kEx2Approx, 0, false, 32}};
  Roofline roofline = roofline_of(variant, schedule, loops, ampere());
  CHECK(roofline.binding == Unit::kTensor);
  CHECK(roofline.tile_clocks[static_cast<size_t>(Unit::kTensor)] == 4 * 64 * 2);
  CHECK(roofline.tile_operations == 2.0 * 64 * 64 * 256);
  // A peak of 4096 operations a clock for half of the time: half of the tile is padding here.
  CHECK(roofline.bound_tflops == Approx(2.0 * 64 * 64 * 256 / 512 * 108 * 1.41e9 / 1e12));
  CHECK(std::isinf(roofline.tflops_by(Unit::kShared, ampere())));

  loops[0].ops[1].count = 500;
  CHECK(roofline_of(variant, schedule, loops, ampere()).binding == Unit::kSpecial);

  // Another warp's copies into shared memory, once a tile.
  loops.emplace_back();
  loops[1].bulk_copy_bytes = 128 * 1000;
  roofline = roofline_of(variant, schedule, loops, ampere());
  CHECK(roofline.tile_clocks[static_cast<size_t>(Unit::kShared)] == 1000);
}

TEST_CASE("least times are bytes over DRAM's rate, and operations over the bound") {
  Roofline roofline;
  roofline.bound_tflops = 100;
  const LeastTimes times = least_times(roofline, {2039e6, 2 * 2039e6}, 1e14, ampere());
  CHECK(times.quantize_dram_ms == Approx(1));
  CHECK(times.attend_dram_ms == Approx(2));
  CHECK(times.attend_units_ms == Approx(1000));
}

TEST_CASE("a type whose products are slow is cautioned about, with the faster one") {
  const Variant variant = int8_variant();
  for (const Target& target : all_targets()) {
    const Throughput* throughput = find_throughput(target);
    if (throughput) CHECK(caution_about_speed(variant, *throughput) == "");
  }
  Variant e4m3_scores = variant;
  e4m3_scores.q.type = e4m3_scores.k.type = DType::kE4M3;
  e4m3_scores.qk_accumulator = DType::kF32;
  CHECK(caution_about_speed(e4m3_scores, hopper()) == "");
  CHECK(caution_about_speed(e4m3_scores, throughput_of(find_target("sm_89"))) ==
        "the tensor cores of sm_89 make 1024 e4m3 operations a clock of a multiprocessor, and 2048 "
        "of "
        "int8\n  note: write q and k = int8, which are finer, too");
  const Throughput no_int8 = without_int8(256);
  CHECK(
      caution_about_speed(variant, no_int8) ==
      "the tensor cores of sm_x make 256 int8 operations a clock of a multiprocessor, and 8192 of "
      "e4m3\n  note: write q and k = e4m3");
  Throughput no_8_bits = no_int8;
  no_8_bits.e4m3_f32 = 0;
  CHECK_THAT(caution_about_speed(variant, no_8_bits),
             Catch::Contains("and 4096 of f16\n  note: attention that does not quantize q and k"));
  Variant int8_values = variant;
  int8_values.p = {DType::kU8, 255, false};
  int8_values.v.type = DType::kS8;
  int8_values.pv_accumulator = {DType::kS32, DType::kF32, 64};
  CHECK(caution_about_speed(int8_values, ampere()) == "");
  CHECK_THAT(caution_about_speed(int8_values, no_int8),
             Catch::Contains("\n  note: write q and k = e4m3\n") &&
                 Catch::EndsWith("\n  note: write p and v = e4m3"));
}

}  // namespace
}  // namespace sagejit::cost
