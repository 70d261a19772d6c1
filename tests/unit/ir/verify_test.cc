// Every rule of the verifier, broken once.
#include "compiler/ir/ir.h"
#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit::ir {
namespace {

constexpr std::string_view kPrologue =
    "  %0:i64 = param @x\n  %1:i32 = param @n\n  %2:i32 = smem @s\n  %3:f32 = f32.s32 %1\n"
    "  %4:pred = lt.s32 %1, 8\n";

// A function with parameters x and n, shared memory s, and one register of each type: %0 i64, %1
// and %2 i32, %3 f32, %4 pred; then `lines`.
Function kernel(std::string_view lines) {
  return parse(
      fmt::format("kernel @k(x: i64, n: i32) threads 128 min_blocks 1 {{\n"
                  "  smem @s offset 0 bytes 64\n{}{}}}\n",
                  kPrologue, lines));
}

std::string failure(const Function& function, int sm = 80) {
  const Error error = thrown_by([&] { verify(function, sm); });
  CHECK(error.kind() == ErrorKind::kInternal);
  return error.message();
}
std::string failure(std::string_view lines, int sm = 80) {
  return failure(kernel(lines), sm);
}

}  // namespace

TEST_CASE("a right function passes") {
  CHECK_NOTHROW(verify(kernel("  for %5:i32 = 0 to %1 step 1 {\n    if %4 {\n"
                              "      st.shared.b32 %2, 0, %5\n    }\n    barrier\n  }\n"),
                       80));
}

TEST_CASE("registers are defined once, before use, and used in their block") {
  CHECK(failure("%5:i32 = add.i32 %6, 1\n%6:i32 = tid\n") ==
        "kernel IR of 'k': add.i32 in '%5:i32 = add.i32 %6, 1': an operand is used before it is "
        "defined");
  CHECK(failure("%5:i32 = add.i32 %5, 1\n") ==
        "kernel IR of 'k': add.i32 in '%5:i32 = add.i32 %5, 1': an operand is used before it is "
        "defined");
  CHECK(failure("if %4 {\n%5:i32 = tid\n}\n%6:i32 = add.i32 %5, 1\n") ==
        "kernel IR of 'k': add.i32 in '%6:i32 = add.i32 %5, 1': an operand belongs to a closed "
        "block");
  CHECK(failure("if %4 {\n%5:i32 = tid\n} else {\n%6:i32 = add.i32 %5, 1\n}\n") ==
        "kernel IR of 'k': add.i32 in '%6:i32 = add.i32 %5, 1': an operand belongs to a closed "
        "block");
  CHECK(failure("for %5:i32 = 0 to 4 step 1 {\n}\n%6:i32 = add.i32 %5, 1\n") ==
        "kernel IR of 'k': add.i32 in '%6:i32 = add.i32 %5, 1': an operand belongs to a closed "
        "block");
  CHECK(failure("for %5:i32 = 0 to %5 step 1 {\n}\n") ==
        "kernel IR of 'k': for in 'for %5:i32 = 0 to %5 step 1 {': an operand is used before it is "
        "defined");
  CHECK(failure("%5:i32 = tid\n%5:i32 = tid\n") ==
        "kernel IR of 'k': tid in '%5:i32 = tid': a register is defined twice");
  CHECK(failure("if %4 {\n%5:i32 = tid\n}\n%5:i32 = tid\n") ==
        "kernel IR of 'k': tid in '%5:i32 = tid': a register is defined twice");
}

TEST_CASE("numbers outside the function's registers are refused") {
  Function result = kernel("%5:i32 = tid\n");
  result.num_registers = 5;
  CHECK(failure(result) ==
        "kernel IR of 'k': tid in '%5:i32 = tid': a result's number is out of range");
  Function operand = kernel("%5:i32 = add.i32 %1, 1\n");
  operand.body.back().operands[0].bits = 99;
  CHECK(failure(operand) ==
        "kernel IR of 'k': add.i32 in '%5:i32 = add.i32 %99, 1': an operand is no register of this "
        "function");
  operand.body.back().operands[0] = {};
  CHECK(failure(operand) ==
        "kernel IR of 'k': add.i32 in '%5:i32 = add.i32 <none>, 1': an operand is no register of "
        "this function");
}

TEST_CASE("operands and results fit the operation's row") {
  CHECK(failure("%5:i32 = add.i32 %1\n") ==
        "kernel IR of 'k': add.i32 in '%5:i32 = add.i32 %1': wrong number of operands or results");
  CHECK(failure("barrier 1\n") ==
        "kernel IR of 'k': barrier in 'barrier 1': wrong number of operands or results");
  CHECK(failure("%5:i32, %6:i32 = add.i32 %1, %1\n") ==
        "kernel IR of 'k': add.i32 in '%5:i32, %6:i32 = add.i32 %1, %1': wrong number of operands "
        "or results");
  CHECK(failure("%5:i32 = add.i32 %1, %3\n") ==
        "kernel IR of 'k': add.i32 in '%5:i32 = add.i32 %1, %3': operand types do not fit");
  CHECK(failure("%5:i32 = add.i32 %1, 0f00000000\n") ==
        "kernel IR of 'k': add.i32 in '%5:i32 = add.i32 %1, 0f00000000': operand types do not fit");
  CHECK(failure("cp.async.wait %1\n") ==
        "kernel IR of 'k': cp.async.wait in 'cp.async.wait %1': operand types do not fit");
  CHECK(failure("%5:f32 = add.i32 %1, %1\n") ==
        "kernel IR of 'k': add.i32 in '%5:f32 = add.i32 %1, %1': result types do not fit");
  Function predicate = kernel("%5:pred = and.pred %4, %4\n");
  predicate.body.back().operands[1] = {Value::Kind::kConst, Type::kPred, 1};
  CHECK(failure(predicate) ==
        "kernel IR of 'k': and.pred in '%5:pred = and.pred %4, 1': there are no constants of type "
        "pred");
}

TEST_CASE("an operation must exist on the target") {
  CHECK(failure("cp.async.commit\n", 75) ==
        "kernel IR of 'k': cp.async.commit in 'cp.async.commit': needs sm_80 or newer");
  CHECK_NOTHROW(verify(kernel("cp.async.commit\n"), 80));
  const std::string e4m3 =
      "%5:f32, %6:f32, %7:f32, %8:f32 = mma.e4m3.f32 %1, %1, %1, %1, %1, %1, 0f00000000, "
      "0f00000000, 0f00000000, 0f00000000\n";
  CHECK_THAT(failure(e4m3, 86), Catch::EndsWith("needs sm_89 or newer"));
  CHECK_NOTHROW(verify(kernel(e4m3), 89));
}

TEST_CASE("variables are defined by var, written by set and read by get") {
  CHECK(failure("$5:i32 = var 0\n%6:i32 = add.i32 $5, 1\n") ==
        "kernel IR of 'k': add.i32 in '%6:i32 = add.i32 $5, 1': an operand is a variable, which "
        "only get reads");
  CHECK(failure("$5:i32 = tid\n") ==
        "kernel IR of 'k': tid in '$5:i32 = tid': a result is a variable, which only var defines");
  CHECK(failure("%5:i32 = var 0\n") ==
        "kernel IR of 'k': var in '%5:i32 = var 0': result must be a variable");
  CHECK(failure("$5:i32 = var %3\n") == "kernel IR of 'k': var in '$5:i32 = var %3': types differ");
  CHECK(failure("%5:i32 = get %1\n") ==
        "kernel IR of 'k': get in '%5:i32 = get %1': operand 0 must be a variable");
  CHECK(failure("set %1, 0\n") ==
        "kernel IR of 'k': set in 'set %1, 0': operand 0 must be a variable");
  CHECK(failure("$5:i32 = var 0\n%6:f32 = get $5\n") ==
        "kernel IR of 'k': get in '%6:f32 = get $5': types differ");
  CHECK(failure("$5:i32 = var 0\nset $5, %3\n") ==
        "kernel IR of 'k': set in 'set $5, %3': types differ");
  CHECK(failure("$5:i32 = var 0\nset $5, $5\n") ==
        "kernel IR of 'k': set in 'set $5, $5': a variable's value goes through a register");
  CHECK(failure("$5:i32 = var 0\n$6:i32 = get $5\n") ==
        "kernel IR of 'k': get in '$6:i32 = get $5': a variable's value goes through a register");
}

TEST_CASE("structural operations have their shape") {
  CHECK(failure("%5:i32 = get\n") ==
        "kernel IR of 'k': get in '%5:i32 = get': wrong number of operands or results");
  CHECK(failure("set %1\n") ==
        "kernel IR of 'k': set in 'set %1': wrong number of operands or results");
  CHECK(
      failure("%5:i32, %6:i32 = smem @s\n") ==
      "kernel IR of 'k': smem in '%5:i32, %6:i32 = smem @s': wrong number of operands or results");
  CHECK(failure("for %5:i32 = 0 to %3 step 1 {\n}\n") ==
        "kernel IR of 'k': for in 'for %5:i32 = 0 to %3 step 1 {': bounds must be i32");
  CHECK(failure("for %5:f32 = 0 to %1 step 1 {\n}\n") ==
        "kernel IR of 'k': for in 'for %5:f32 = 0 to %1 step 1 {': the index must be i32");
  CHECK(failure("for $5:i32 = 0 to %1 step 1 {\n}\n") ==
        "kernel IR of 'k': for in 'for $5:i32 = 0 to %1 step 1 {': a result is a variable, which "
        "only var defines");
  CHECK(failure("if %1 {\n}\n") ==
        "kernel IR of 'k': if in 'if %1 {': condition must be a predicate");
  const std::string_view variable = "condition must be an i32 variable";
  for (const std::string_view line :
       {"while %1 {\n}\n", "while 1 {\n}\n", "$5:f32 = var %3\nwhile $5 {\n}\n"}) {
    CHECK_THAT(failure(line), Catch::EndsWith(std::string(variable)));
  }
  CHECK_NOTHROW(verify(kernel("$5:i32 = var 1\nwhile $5 {\nbarrier\nset $5, 0\n}\n"), 80));
  CHECK(failure("$5:i32 = var 1\nwhile $5 {\n%6:i32 = tid\n}\n%7:i32 = add.i32 %6, 1\n") ==
        "kernel IR of 'k': add.i32 in '%7:i32 = add.i32 %6, 1': an operand belongs to a closed "
        "block");
  Function loop = kernel("for %5:i32 = 0 to 4 step 1 {\n}\n");
  loop.body.back().operands.pop_back();
  CHECK(failure(loop) == "kernel IR of 'k': for in 'for': wrong number of operands or results");
  Function comment = kernel("# one line\n");
  comment.body.back().text = "two\nlines";
  CHECK(failure(comment) == "kernel IR of 'k': # in '# two': a comment must be one line");
}

TEST_CASE("parameters and shared memory that are referred to exist and have the type") {
  CHECK(failure("%5:i32 = param @x\n") ==
        "kernel IR of 'k': param in '%5:i32 = param @x': parameter type");
  CHECK(failure("%5:i64 = smem @s\n") ==
        "kernel IR of 'k': smem in '%5:i64 = smem @s': a shared-memory address is i32");
  Function function = kernel("%5:i32 = param @n\n");
  function.body.back().operands[0].bits = 2;
  CHECK(failure(function) ==
        "kernel IR of 'k': param in '%5:i32 = param @<none>': no such parameter");
  function.body.back().op = Op::kSmem;
  CHECK(failure(function) ==
        "kernel IR of 'k': smem in '%5:i32 = smem @<none>': no such shared-memory object");
}

TEST_CASE("operations of sm_90 need it") {
  for (const std::string_view line :
       {"mbarrier.init %2, 1", "mbarrier.arrive %2", "mbarrier.expect %2, %1",
        "mbarrier.wait %2, %1", "bulk.copy %2, %0, %1, %2", "wgmma.commit", "setmaxnreg.inc 168"}) {
    CAPTURE(line);
    const std::string text = fmt::format("{}\n", line);
    CHECK_THAT(failure(text, 89), Catch::EndsWith("needs sm_90 or newer"));
    CHECK_NOTHROW(verify(kernel(text), 90));
  }
  CHECK(failure("mbarrier.init %2, %1\n", 90) ==
        "kernel IR of 'k': mbarrier.init in 'mbarrier.init %2, %1': operand types do not fit");
  CHECK(failure("mbarrier.wait %0, %1\n", 90) ==
        "kernel IR of 'k': mbarrier.wait in 'mbarrier.wait %0, %1': operand types do not fit");
  CHECK(failure("bulk.copy %0, %2, %1, %2\n", 90) ==
        "kernel IR of 'k': bulk.copy in 'bulk.copy %0, %2, %1, %2': operand types do not fit");
}

TEST_CASE("a warpgroup's product has accumulators of its type, A, B and two flags") {
  constexpr std::string_view kVars =
      "$5:i32 = var 0\n$6:i32 = var 0\n$7:i32 = var 0\n$8:i32 = var 0\n$9:f32 = var %3\n";
  const auto product = [&](std::string_view line) { return fmt::format("{}{}\n", kVars, line); };
  const auto reason = [&](std::string_view line, int sm = 90) {
    const std::string message = failure(product(line), sm);
    const size_t end = message.rfind("': ");
    REQUIRE(end != std::string::npos);
    return message.substr(end + 3);
  };
  CHECK_NOTHROW(verify(kernel(product("wgmma.s8 $5, $6, $7, $8, %0, %0, 1, 1")), 90));
  CHECK_NOTHROW(verify(kernel(product("wgmma.s8 $5, $6, $7, $8, %1, %1, %1, %1, %0, 1, 0")), 90));
  CHECK_NOTHROW(verify(kernel(product("wgmma.f16.f16 $5, $6, %0, %0, 1, 1")), 90));
  CHECK(reason("wgmma.s8 $5, $6, $7, $8, %0, %0, 1, 1", 89) == "needs sm_90a");
  CHECK(reason("%10:i32 = wgmma.s8 $5, $6, $7, $8, %0, %0, 1, 1") ==
        "it has no results: it writes variables");
  const std::string_view number = "accumulators must fill 1 to 32 tiles of 8 columns";
  CHECK(reason("wgmma.s8 %0, %0, 1, 1") == number);
  CHECK(reason("wgmma.s8 $5, $6, $7, %0, %0, 1, 1") == number);
  CHECK(reason("wgmma.f16.f16 $5, %0, %0, 1, 1") == number);
  const std::string_view type = "accumulators must come first and have the type of the row";
  CHECK(reason("wgmma.s8 $5, $6, $7, $9, %0, %0, 1, 1") == type);
  CHECK(reason("wgmma.f16.f32 $5, $6, $7, $8, %0, %0, 1, 1") == type);
  CHECK(reason("wgmma.s8 $5, $6, $7, %0, $8, %0, 1, 1") == type);
  const std::string_view a = "A is one descriptor or four registers";
  CHECK(reason("wgmma.s8 $5, $6, $7, $8, %0, 1, 1") == a);
  CHECK(reason("wgmma.s8 $5, $6, $7, $8, %1, %1, %0, 1, 1") == a);
  CHECK(reason("wgmma.s8 $5, $6, $7, $8, %1, %0, 1, 1") == "A has the wrong type");
  CHECK(reason("wgmma.s8 $5, $6, $7, $8, %1, %1, %1, %0, %0, 1, 1") == "A has the wrong type");
  CHECK(reason("wgmma.s8 $5, $6, $7, $8, %0, %1, 1, 1") == "B is a descriptor");
  CHECK(reason("wgmma.s8 $5, $6, $7, $8, %0, %0, 1, 2") == "the last two operands are 0 or 1");
  CHECK(reason("wgmma.s8 $5, $6, $7, $8, %0, %0, 1, %1") == "the last two operands are 0 or 1");
  CHECK(reason("wgmma.s8 $5, $6, $7, $8, %0, %0, 2, 1") == "the last two operands are 0 or 1");
}

TEST_CASE("no product is wider than 256 columns") {
  std::string lines, accumulators;
  for (int i = 0; i < 132; ++i) {
    lines += fmt::format("${}:i32 = var 0\n", 5 + i);
    accumulators += fmt::format("${}, ", 5 + i);
    if (i == 127) {
      CHECK_NOTHROW(
          verify(kernel(fmt::format("{}wgmma.s8 {}%0, %0, 1, 1\n", lines, accumulators)), 90));
    }
  }
  CHECK_THAT(failure(fmt::format("{}wgmma.s8 {}%0, %0, 1, 1\n", lines, accumulators), 90),
             Catch::EndsWith("accumulators must fill 1 to 32 tiles of 8 columns"));
}

TEST_CASE("waits and ties name variables") {
  constexpr std::string_view kVar = "$5:i32 = var 0\n";
  const auto with = [&](std::string_view line) { return fmt::format("{}{}\n", kVar, line); };
  CHECK_NOTHROW(verify(kernel(with("wgmma.wait 1, $5")), 90));
  CHECK_NOTHROW(verify(kernel(with("wgmma.wait 0")), 90));
  CHECK_NOTHROW(verify(kernel(with("tie $5")), 80));
  CHECK(failure(with("wgmma.wait 1, $5"), 80) ==
        "kernel IR of 'k': wgmma.wait in 'wgmma.wait 1, $5': needs sm_90a");
  for (const std::string_view line :
       {"wgmma.wait", "wgmma.wait %1, $5", "wgmma.wait $5", "wgmma.wait 1, %1"}) {
    CAPTURE(line);
    CHECK_THAT(failure(with(line), 90), Catch::EndsWith("operands must be a number and variables"));
  }
  CHECK(failure(with("%6:i32 = tie $5")) ==
        "kernel IR of 'k': tie in '%6:i32 = tie $5': it has no results");
  CHECK(failure(with("tie %1")) == "kernel IR of 'k': tie in 'tie %1': operands must be variables");
  CHECK(failure("tie $5\n$5:i32 = var 0\n") ==
        "kernel IR of 'k': tie in 'tie $5': an operand is used before it is defined");
}

TEST_CASE("names are unique") {
  Function params = kernel("");
  params.params.push_back({"x", Type::kI32});
  CHECK(failure(params) == "kernel IR of 'k': there are two parameters 'x'");
  Function smem = kernel("");
  smem.smem.push_back({"s", 64, 4});
  CHECK(failure(smem) == "kernel IR of 'k': there are two shared-memory objects 's'");
}

TEST_CASE("shared-memory objects do not overlap") {
  const auto objects = [](std::string_view second) {
    return parse(
        fmt::format("kernel @k() threads 32 min_blocks 1 {{\n"
                    "smem @a offset 16 bytes 32\nsmem @b {}\n}}\n",
                    second));
  };
  CHECK(failure(objects("offset 32 bytes 16")) ==
        "kernel IR of 'k': shared-memory objects overlap");
  CHECK(failure(objects("offset 0 bytes 16")) == "kernel IR of 'k': shared-memory objects overlap");
  CHECK_NOTHROW(verify(objects("offset 48 bytes 16"), 80));
}

TEST_CASE("a barrier that some threads may skip is refused") {
  const std::string stands =
      "a barrier stands inside an if: threads that skip it would hang the others";
  const std::string reason = "kernel IR of 'k': barrier in 'barrier': " + stands;
  CHECK(failure("if %4 {\nbarrier\n}\n") == reason);
  CHECK(failure("if %4 {\nbarrier.team 1, 64\n}\n") ==
        "kernel IR of 'k': barrier.team in 'barrier.team 1, 64': " + stands);
  CHECK(failure("if %4 {\n} else {\nbarrier\n}\n") == reason);
  CHECK(failure("if %4 {\nfor %5:i32 = 0 to 4 step 1 {\nbarrier\n}\n}\n") == reason);
  CHECK(failure("if %4 {\nif.uniform %4 {\nbarrier\n}\n}\n") == reason);
  CHECK(failure("if.uniform %4 {\nif %4 {\nbarrier\n}\n}\n") == reason);
  CHECK_NOTHROW(verify(kernel("if.uniform %4 {\nbarrier\nbarrier.team 1, 64\n} else {\nif.uniform "
                              "%4 {\nbarrier\n}\n}\n"),
                       80));
}

TEST_CASE("a block has 1 to 1024 threads") {
  for (const int threads : {0, 1025}) {
    Function function = kernel("");
    function.block_threads = threads;
    CHECK(failure(function) == "kernel IR of 'k': threads must be 1..1024");
  }
}

}  // namespace sagejit::ir
