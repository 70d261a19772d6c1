#include "compiler/ir/builder.h"

#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit::ir {
namespace {

Builder small_builder() {
  return Builder("k", 32);
}

int32_t folded(Value value) {
  REQUIRE(value.is_const());
  CHECK(value.type == Type::kI32);
  return static_cast<int32_t>(value.bits);
}

// The instructions that `write` appends to a kernel with parameters x and y, one a line; operations
// of the builder's own prologue and param are left out.
std::string written(const std::function<void(Builder&, Value x, Value y)>& write) {
  Builder b = small_builder();
  const Value x = b.param("x", Type::kI32), y = b.param("y", Type::kI32);
  write(b, x, y);
  const Function function = b.finish(80);
  std::string text;
  for (const Inst& inst : function.body) {
    if (inst.results.empty() || inst.results[0].bits > y.bits)
      text += print_line(function, inst) + "\n";
  }
  return text;
}

}  // namespace

TEST_CASE("integer operations on constants fold") {
  Builder b = small_builder();
  CHECK(folded(b.add(constant(5), constant(-7))) == -2);
  CHECK(folded(b.sub(constant(5), constant(7))) == -2);
  CHECK(folded(b.mul(constant(-3), constant(7))) == -21);
  CHECK(folded(b.mul(constant(1 << 30), constant(4))) == 0);  // wraps
  CHECK(folded(b.div(constant(17), constant(5))) == 3);
  CHECK(folded(b.div(constant(-1), constant(2))) == 0x7FFFFFFF);  // unsigned
  CHECK(folded(b.rem(constant(17), constant(5))) == 2);
  CHECK(folded(b.bit_and(constant(12), constant(10))) == 8);
  CHECK(folded(b.bit_or(constant(12), constant(10))) == 14);
  CHECK(folded(b.bit_xor(constant(12), constant(10))) == 6);
  CHECK(folded(b.shl(constant(3), 4)) == 48);
  CHECK(folded(b.shl(constant(3), 32)) == 0);
  CHECK(folded(b.shr(constant(-1), 28)) == 15);
  CHECK(folded(b.shr(constant(-1), 32)) == 0);
  CHECK(folded(b.min(constant(-1), constant(1))) == -1);  // signed
  CHECK(folded(b.max(constant(-1), constant(1))) == 1);
}

TEST_CASE("64-bit constants fold by their own sign") {
  Builder b = small_builder();
  CHECK(b.zext(constant(-1)).bits == 0xFFFFFFFFu);
  CHECK(b.sext(constant(-1)).bits == ~uint64_t{0});
  CHECK(b.mul64(b.sext(constant(-3)), b.zext(constant(5))).bits == static_cast<uint64_t>(-15));
  CHECK(b.zext(constant(7)).type == Type::kI64);
}

TEST_CASE("identities write nothing") {
  CHECK(written([](Builder& b, Value x, Value y) {
          CHECK(b.add(x, constant(0)) == x);
          CHECK(b.add(constant(0), x) == x);
          CHECK(b.sub(x, constant(0)) == x);
          CHECK(b.mul(x, constant(1)) == x);
          CHECK(b.mul(constant(1), x) == x);
          CHECK(b.div(x, constant(1)) == x);
          CHECK(b.bit_or(x, constant(0)) == x);
          CHECK(b.bit_xor(constant(0), x) == x);
          CHECK(b.shl(x, 0) == x);
          CHECK(b.shr(y, 0) == y);
          CHECK(b.mul(x, constant(0)) == constant(0));
          CHECK(b.bit_and(constant(0), x) == constant(0));
          CHECK(b.rem(x, constant(1)) == constant(0));
        }) == "");
}

TEST_CASE("powers of two become shifts and masks") {
  CHECK(written([](Builder& b, Value x, Value) {
          b.mul(constant(8), x);
          b.div(x, constant(16));
          b.rem(x, constant(32));
        }) ==
        "%5:i32 = shl.i32 %3, 3\n"
        "%6:i32 = shr.u32 %3, 4\n"
        "%7:i32 = and.i32 %3, 31\n");
}

TEST_CASE("what does not fold is written as it stands") {
  CHECK(written([](Builder& b, Value x, Value y) {
          b.sub(constant(0), x);
          b.div(x, constant(0));
          b.mul(x, constant(6));
          b.min(x, y);
          b.shl(constant(1), 3);
          b.mul64(b.zext(x), b.zext(constant(1)));
        }) ==
        "%5:i32 = sub.i32 0, %3\n"
        "%6:i32 = div.u32 %3, 0\n"
        "%7:i32 = mul.i32 %3, 6\n"
        "%8:i32 = min.s32 %3, %4\n"
        "%9:i64 = zext.i64 %3\n"
        "%10:i64 = mul.i64 %9, 1L\n");
}

TEST_CASE("floating point is never folded") {
  CHECK(written([](Builder& b, Value, Value) {
          b.fadd(constant_f32(1), constant_f32(0));
          b.fmul(constant_f32(-2), constant_f32(1));
        }) ==
        "%5:f32 = add.f32 0f3f800000, 0f00000000\n"
        "%6:f32 = mul.f32 0fc0000000, 0f3f800000\n");
}

TEST_CASE("an element's address is its unsigned index times its size") {
  Builder b = small_builder();
  const Value base = b.param("p", Type::kI64);
  CHECK(b.address(base, constant(0), 4) == base);
  b.address(base, b.tid(), 4);
  b.address(base, b.lane(), 1);
  const std::string text = print(b.finish(80));
  CHECK_THAT(text, Catch::EndsWith("  %4:i64 = zext.i64 %0\n  %5:i64 = mul.i64 %4, 4L\n"
                                   "  %6:i64 = add.i64 %3, %5\n  %7:i64 = zext.i64 %1\n"
                                   "  %8:i64 = add.i64 %3, %7\n}\n"));
}

TEST_CASE("shared-memory objects follow one another, aligned") {
  Builder b = small_builder();
  b.smem("a", 20, 16);
  b.smem("b", 4, 128);
  b.smem("c", 8);
  const Function function = b.finish(80);
  CHECK(function.smem[0].offset_bytes == 0);
  CHECK(function.smem[1].offset_bytes == 128);
  CHECK(function.smem[2].offset_bytes == 144);
  CHECK(function.smem_bytes() == 152);
}

TEST_CASE("teams have numbers, shared memory and barriers of their own") {
  Builder b("k", Builder::Teams{64, 3});
  CHECK(b.team_threads() == 64);
  b.smem("a", 20);
  b.barrier();
  b.smem("b", 100, 128);
  const Function function = b.finish(80);
  CHECK(function.block_threads == 3 * 64);
  CHECK(function.smem_bytes() == 3 * 256);
  CHECK(print(function) ==
        "kernel @k() threads 192 min_blocks 1 {\n"
        "  smem @a offset 0 bytes 20\n"
        "  smem @b offset 128 bytes 100\n"
        "  smem @other_teams offset 256 bytes 512\n"
        "  %0:i32 = tid\n"
        "  %1:i32 = shr.u32 %0, 6\n"
        "  %2:i32 = shfl.idx %1, 0\n"
        "  %3:i32 = and.i32 %0, 63\n"
        "  %4:i32 = mul.i32 %2, 256\n"
        "  %5:i32 = and.i32 %3, 31\n"
        "  %6:i32 = shr.u32 %3, 5\n"
        "  %7:i32 = smem @a\n"
        "  %8:i32 = add.i32 %7, %4\n"
        "  %9:i32 = add.i32 %2, 1\n"
        "  barrier.team %9, 64\n"
        "  %10:i32 = smem @b\n"
        "  %11:i32 = add.i32 %10, %4\n"
        "}\n");
  CHECK(print(parse(print(function))) == print(function));
}

TEST_CASE("a team alone is the block") {
  Builder teams("k", Builder::Teams{64, 1}), block("k", 64);
  for (Builder* b : {&teams, &block}) {
    b->smem("a", 20);
    b->barrier();
  }
  const std::string text = print(block.finish(80));
  CHECK_THAT(text, Catch::EndsWith("  barrier\n}\n"));
  CHECK(print(teams.finish(80)) == text);
}

TEST_CASE("teams that have no barrier, or part of a warp, are internal errors") {
  for (const Builder::Teams teams : {Builder::Teams{64, 0}, {64, 16}, {48, 2}}) {
    const Error error = thrown_by([&] { Builder("k", teams); });
    CHECK(error.kind() == ErrorKind::kInternal);
    CHECK(error.message() == "k: teams are 1 to 15, of whole warps");
  }
  CHECK_NOTHROW(Builder("k", Builder::Teams{64, 15}));
}

TEST_CASE("variables, loops and conditions") {
  CHECK(written([](Builder& b, Value x, Value y) {
          const Var sum = b.var(constant(0));
          b.loop(constant(0), x, constant(2),
                 [&](Value i) { b.when(b.less(i, y), [&] { b.set(sum, b.add(b.get(sum), i)); }); });
        }) ==
        "$5:i32 = var 0\n"
        "for %6:i32 = 0 to %3 step 2 {\n");
}

TEST_CASE("both sides of a condition") {
  Builder b = small_builder();
  const Value x = b.param("x", Type::kI32);
  const Var result = b.var(constant(0));
  b.when(
      b.less(x, constant(4)), [&] { b.set(result, constant(1)); },
      [&] {
        b.when(b.less(x, constant(8)), [&] { b.set(result, constant(2)); });
        b.set(result, constant(3));
      });
  b.when(
      b.less(x, constant(5)), [&] {}, [&] { b.set(result, constant(4)); });
  const std::string text = print(b.finish(80));
  CHECK_THAT(text, Catch::EndsWith("  if %5 {\n"
                                   "    set $4, 1\n"
                                   "  } else {\n"
                                   "    %6:pred = lt.s32 %3, 8\n"
                                   "    if %6 {\n"
                                   "      set $4, 2\n"
                                   "    }\n"
                                   "    set $4, 3\n"
                                   "  }\n"
                                   "  %7:pred = lt.s32 %3, 5\n"
                                   "  if %7 {\n"
                                   "  } else {\n"
                                   "    set $4, 4\n"
                                   "  }\n"
                                   "}\n"));
}

TEST_CASE("a loop while a variable is not 0") {
  Builder b = small_builder();
  const Var left = b.var(b.param("x", Type::kI32));
  b.loop_while(left, [&] { b.set(left, b.sub(b.get(left), constant(1))); });
  CHECK_THAT(print(b.finish(80)), Catch::EndsWith("  while $4 {\n"
                                                  "    %5:i32 = get $4\n"
                                                  "    %6:i32 = sub.i32 %5, 1\n"
                                                  "    set $4, %6\n"
                                                  "  }\n}\n"));
}

TEST_CASE("what blocks do to counters in global memory says how it is ordered") {
  Builder b = small_builder();
  const Value counter = b.param("p", Type::kI64);
  b.emit1(Op::kAtomRelaxedGlobalAddI32, {counter, constant(0), constant(1)});
  b.emit(Op::kRedReleaseGlobalAddI32, {counter, constant(4), constant(1)});
  b.emit1(Op::kLdAcquireGlobalI32, {counter, constant(4)});
  const Function function = b.finish(80);
  CHECK_THAT(print(function), Catch::EndsWith("  %4:i32 = atom.relaxed.global.add.i32 %3, 0, 1\n"
                                              "  red.release.global.add.i32 %3, 4, 1\n"
                                              "  %5:i32 = ld.acquire.global.b32 %3, 4\n}\n"));
  CHECK(print(parse(print(function))) == print(function));
  for (const Op op :
       {Op::kAtomRelaxedGlobalAddI32, Op::kRedReleaseGlobalAddI32, Op::kLdAcquireGlobalI32}) {
    CHECK(info(op).effect == Effect::kSync);  // never moved nor merged
  }
}

TEST_CASE("products of a warpgroup work on variables in place") {
  Builder b("k", 128);
  const Value descriptor = b.param("x", Type::kI64);
  std::vector<Var> accumulators;
  for (int i = 0; i < 2; ++i) accumulators.push_back(b.var(constant(0)));
  b.wgmma(Op::kWgmmaF16F16, accumulators, {descriptor}, descriptor,
          {.fenced = true, .accumulate = false});
  const std::vector<Value> a(4, b.tid());
  b.wgmma(Op::kWgmmaF16F16, accumulators, a, descriptor, {});
  b.tie(accumulators);
  b.wgmma_wait(1, accumulators);
  const Function function = b.finish(90);
  CHECK_THAT(print(function), Catch::EndsWith("  wgmma.f16.f16 $4, $5, %3, %3, 0, 1\n"
                                              "  wgmma.f16.f16 $4, $5, %0, %0, %0, %0, %3, 1, 0\n"
                                              "  tie $4, $5\n"
                                              "  wgmma.wait 1, $4, $5\n}\n"));
  Builder wrong("k", 128);
  const Value x = wrong.param("x", Type::kI64);
  wrong.wgmma(Op::kWgmmaF16F32, {wrong.var(constant(0))}, {x}, x, {});
  CHECK(thrown_by([&] { wrong.finish(90); }).kind() == ErrorKind::kInternal);
}

TEST_CASE("a generator's mistakes are internal errors") {
  Builder b = small_builder();
  const Value x = b.param("x", Type::kI32);
  const auto message = [&](Op op, const std::vector<Value>& operands) {
    const Error error = thrown_by([&] { b.emit(op, operands); });
    CHECK(error.kind() == ErrorKind::kInternal);
    return error.message();
  };
  CHECK(message(Op::kAddI32, {x}) == "add.i32 takes 2 operands, got 1");
  CHECK(message(Op::kAddI32, {x, constant_f32(1)}) == "operand 1 of add.i32 has the wrong type");
  CHECK(message(Op::kAddI32, {Value{}, x}) == "operand 0 of add.i32 has the wrong type");
  CHECK(message(Op::kCpAsyncWait, {x}) == "operand 0 of cp.async.wait has the wrong type");
  const Var variable = b.var(constant(0));
  CHECK(message(Op::kAddI32, {variable.reg, x}) == "operand 0 of add.i32 has the wrong type");
  CHECK(thrown_by([&] { b.set(variable, constant_f32(0)); }).message() == "set: types differ");
}

}  // namespace sagejit::ir
