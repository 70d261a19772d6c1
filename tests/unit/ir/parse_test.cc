#include "compiler/ir/builder.h"
#include "compiler/ir/ir.h"
#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit::ir {
namespace {

constexpr std::string_view kEveryForm =
    R"(kernel @every.form(q: i64, n: i32, scale: f32) threads 128 min_blocks 2 {
  smem @tile offset 0 bytes 16384
  smem @sums offset 16384 bytes 4
  %0:i32 = tid
  %1:i64 = param @q
  %2:i32 = param @n
  %3:i32 = smem @sums
  # a comment:  with %9, { and trailing blanks  
  $4:f32 = var 0fff800000
  %5:i64 = mul.i64 %1, -7L
  for %6:i32 = 0 to %2 step 1 {
    %7:pred = lt.s32 %6, -2147483648
    if %7 {
      %8:f32, %9:f32 = unpack.f16x2 %0
      set $4, %8
    } else {
      # 
      if %7 {
        st.shared.f32 %3, 0, 0f3f800000
      }
    }
    %10:f32 = get $4
  }
  $11:i32 = var %2
  while $11 {
    set $11, 0
  }
  barrier
}
)";

std::string parse_error(std::string_view text) {
  const Error error = thrown_by([&] { parse(text); });
  CHECK(error.kind() == ErrorKind::kInternal);
  return error.message();
}

// A kernel of one line, which is line 2 of the text.
std::string line_error(std::string_view line) {
  const std::string message =
      parse_error(fmt::format("kernel @k(x: i32) threads 32 min_blocks 1 {{\n{}\n}}\n", line));
  constexpr std::string_view kStart = "kernel IR text, line 2: ";
  REQUIRE(message.starts_with(kStart));
  return message.substr(kStart.size());
}

}  // namespace

TEST_CASE("every form of the text reads back") {
  const Function function = parse(kEveryForm);
  CHECK(print(function) == kEveryForm);
  CHECK(function.name == "every.form");
  CHECK(function.params.size() == 3);
  CHECK(function.params[2].type == Type::kF32);
  CHECK(function.smem_bytes() == 16388);
  CHECK(function.block_threads == 128);
  CHECK(function.min_blocks_per_sm == 2);
  CHECK(function.num_registers == 12);
  CHECK_NOTHROW(verify(function, 80));
}

TEST_CASE("constants have the type that their form says, registers that of their definition") {
  const Function function = parse(kEveryForm);
  const Inst& product = function.body[6];
  REQUIRE(product.op == Op::kMulI64);
  CHECK(product.operands[0] == Value{Value::Kind::kRegister, Type::kI64, 1});
  CHECK(product.operands[1] == Value{Value::Kind::kConst, Type::kI64, static_cast<uint64_t>(-7)});
  const Inst& loop = function.body[7];
  REQUIRE(loop.body.size() == 3);
  CHECK(loop.body[0].operands[1] == Value{Value::Kind::kConst, Type::kI32, 0x80000000u});
  CHECK(loop.body[1].body[1].operands[0] == Value{Value::Kind::kVariable, Type::kF32, 4});
  CHECK(loop.body[1].orelse.size() == 2);
  CHECK(function.body[4].text == "a comment:  with %9, { and trailing blanks  ");
}

TEST_CASE("products of a warpgroup, waits and barriers read back") {
  constexpr std::string_view kText = R"(kernel @k(q: i64) threads 128 min_blocks 1 {
  smem @bars offset 0 bytes 16
  %0:i64 = param @q
  %1:i32 = smem @bars
  $2:f32 = var 0f00000000
  $3:f32 = var 0f00000000
  $4:f32 = var 0f00000000
  $5:f32 = var 0f00000000
  mbarrier.init %1, 4
  mbarrier.init.fence
  mbarrier.expect %1, 64
  bulk.copy %1, %0, 64, %1
  mbarrier.wait %1, 0
  mbarrier.arrive %1
  setmaxnreg.inc 240
  wgmma.e4m3.f32 $2, $3, $4, $5, %0, %0, 0, 1
  wgmma.f16.f32 $2, $3, $4, $5, 1, 2, 3, 4, -1L, 1, 0
  wgmma.commit
  tie $2, $3
  wgmma.wait 0, $2, $3, $4, $5
}
)";
  const Function function = parse(kText);
  CHECK(print(function) == kText);
  CHECK_NOTHROW(verify(function, 90));
  const Inst& product = function.body[function.body.size() - 4];
  REQUIRE(product.op == Op::kWgmmaF16F32);
  CHECK(num_accumulators(product) == 4);
  CHECK(product.operands.size() == 11);
  CHECK(find_wgmma(product.op)->k == 16);
  CHECK(find_wgmma(Op::kWgmmaWait) == nullptr);
}

TEST_CASE("predicated loads, extremes of pairs and barriers of teams read back") {
  constexpr std::string_view kText = R"(kernel @k(p: i64) threads 64 min_blocks 1 {
  %0:i64 = param @p
  %1:i32 = tid
  %2:i32, %3:i32, %4:i32, %5:i32 = ld.global.v4.b32.if %0, 16, %1, %1
  %6:i32 = max.f16x2 %2, %3
  %7:i32 = min.f16x2 %2, %3
  %8:i32 = max.bf16x2 %4, %5
  %9:i32 = min.bf16x2 %4, %5
  barrier.team 1, 64
  bar.sync 2, 64
  bar.arrive 2, 64
}
)";
  const Function function = parse(kText);
  CHECK(print(function) == kText);
  CHECK_NOTHROW(verify(function, 80));
}

TEST_CASE("indentation and blank lines do not matter") {
  CHECK(print(parse("\n kernel @k( ) threads 32 min_blocks 1 {\n\n     barrier\n }\n\n")) ==
        "kernel @k() threads 32 min_blocks 1 {\n  barrier\n}\n");
}

TEST_CASE("what is not kernel IR is refused with its line and the reason") {
  CHECK(parse_error("") == "kernel IR text, line 0: there is no kernel");
  CHECK(parse_error("function @k") ==
        "kernel IR text, line 1: expected 'kernel' before 'function @k'");
  CHECK(parse_error("kernel @k() threads many min_blocks 1 {\n}") ==
        "kernel IR text, line 1: expected the number of threads before 'many min_blocks 1 {'");
  CHECK(parse_error("kernel @k(x: i31) threads 1 min_blocks 1 {\n}") ==
        "kernel IR text, line 1: 'i31' is no type");
  CHECK(parse_error("kernel @k(x: i32, x: i32) threads 1 min_blocks 1 {\n}") ==
        "kernel IR text, line 1: there are two parameters 'x'");
  CHECK(parse_error("kernel @k() threads 1 min_blocks 1 {\nsmem @a offset 0 bytes 4\n"
                    "smem @a offset 4 bytes 4\n}") ==
        "kernel IR text, line 3: there are two shared-memory objects 'a'");
  CHECK(parse_error("kernel @k() threads 1 min_blocks 1 {\nbarrier\n") ==
        "kernel IR text, line 2: the text ends inside a block");
  CHECK(parse_error("kernel @k() threads 1 min_blocks 1 {\n}\nbarrier\n") ==
        "kernel IR text, line 3: text after the kernel's closing brace");
  CHECK(parse_error("kernel @k() threads 1 min_blocks 1 {\n} else {\n}") ==
        "kernel IR text, line 2: unexpected 'else {'");
}

TEST_CASE("an instruction that cannot be read is refused with the reason") {
  CHECK(line_error("%1:i32 = plus.i32 1, 2") == "there is no operation 'plus.i32'");
  CHECK(line_error("%1 = tid") == "expected ':' before '= tid'");
  CHECK(line_error("%1:i32 tid") == "expected '=' before 'tid'");
  CHECK(line_error("%1:i32 = param @y") == "there is no parameter 'y'");
  CHECK(line_error("%1:i32 = smem @y") == "there is no shared-memory object 'y'");
  CHECK(line_error("%1:i32 = add.i32 %2, 1") == "%2 is defined nowhere");
  CHECK(line_error("%1:i32 = get $2") == "$2 is defined nowhere");
  CHECK(line_error("$1:i32 = var %1") == "%1 is defined nowhere");
  CHECK(line_error("cp.async.wait 2147483648") == "an i32 constant is out of range");
  CHECK(line_error("cp.async.wait 9223372036854775808L") == "an operand is out of range");
  CHECK(line_error("cp.async.wait 1,") == "expected an operand before ''");
  CHECK(line_error("cp.async.wait 1 2") == "unexpected '2'");
  CHECK(line_error("$1:f32 = var 0f123") == "an f32 is 0f and eight hex digits");
  CHECK(line_error("%16777216:i32 = tid") == "a register's number is out of range");
  CHECK(line_error("for %1:i32 = 0 until 4 {") == "expected 'to' before 'until 4 {'");
  CHECK(line_error("while 1") == "expected '{' before ''");
  CHECK(line_error("if 1") == "expected '{' before ''");
  CHECK(line_error("%1:i32 = ") == "expected an operation before ''");
}

TEST_CASE("nesting without end is refused") {
  std::string text = "kernel @k() threads 1 min_blocks 1 {\n";
  for (int i = 0; i < 70; ++i) text += "for %0:i32 = 0 to 1 step 1 {\n";
  CHECK_THAT(parse_error(text), Catch::EndsWith("blocks are nested too deeply"));
}

}  // namespace sagejit::ir
