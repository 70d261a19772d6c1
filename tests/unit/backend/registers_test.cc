#include "compiler/backend/ptx/registers.h"

#include <fmt/format.h>

#include "tests/support/catch.h"

namespace sagejit {
namespace {

// Whose register each of the numbers from 10 on has, in a kernel with an address %0, integers %1
// and %2, an f32 %3 and a predicate %4, after `lines`.
std::vector<uint64_t> sharing(std::string_view lines) {
  const ir::Function function = ir::parse(
      fmt::format("kernel @k(x: i64, n: i32) threads 128 min_blocks 1 {{\n"
                  "%0:i64 = param @x\n%1:i32 = param @n\n%2:i32 = tid\n%3:f32 = f32.s32 %1\n"
                  "%4:pred = lt.s32 %1, 8\n{}}}\n",
                  lines));
  const std::vector<uint64_t> all = share_registers(function);
  return {all.begin() + 10, all.end()};
}

using Numbers = std::vector<uint64_t>;

}  // namespace

TEST_CASE("a number and its bits share a register") {
  CHECK(sharing("%10:i32 = bits.f32 %3\n%11:f32 = f32.bits %10\n%12:f32 = f32.bits 0\n") ==
        Numbers{3, 3, 12});
}

TEST_CASE("what get read shares the variable's register while the variable keeps the value") {
  CHECK(sharing("$10:i32 = var 0\n%11:i32 = get $10\nst.global.b32 %0, 0, %11\nset $10, 1\n") ==
        Numbers{10, 10});
  CHECK(sharing("$10:i32 = var 0\n%11:i32 = get $10\nset $10, 1\nst.global.b32 %0, 0, %11\n") ==
        Numbers{10, 11});
  // Written in the instruction that uses it last, which reads first.
  CHECK(sharing("$10:i32 = var 0\n%11:i32 = get $10\n%12:i32 = add.i32 %11, 1\nset $10, %12\n") ==
        Numbers{10, 10, 10});
}

TEST_CASE("a use in a loop comes again after what the loop writes") {
  const auto loop = [](std::string_view body) {
    return sharing(fmt::format("$10:i32 = var 0\n%11:i32 = get $10\n{}", body));
  };
  CHECK(loop("for %12:i32 = 0 to 4 step 1 {\nst.global.b32 %0, 0, %11\nset $10, 1\n}\n") ==
        Numbers{10, 11, 12});
  CHECK(loop("for %12:i32 = 0 to 4 step 1 {\nst.global.b32 %0, 0, %11\n}\nset $10, 1\n") ==
        Numbers{10, 10, 12});
  // An end is compared with in every iteration.
  CHECK(loop("for %12:i32 = 0 to %11 step 1 {\nset $10, 1\n}\n") == Numbers{10, 11, 12});
  CHECK(loop("for %12:i32 = 0 to 4 step 1 {\nif %4 {\nset $10, 1\n} else {\n"
             "st.global.b32 %0, 0, %11\n}\n}\n") == Numbers{10, 11, 12});
}

TEST_CASE("a value is computed in the register of the variable that it is for") {
  CHECK(sharing("%10:i32 = add.i32 %1, 1\n$11:i32 = var %10\n") == Numbers{11, 11});
  CHECK(sharing("$10:i32 = var 0\n%11:i32 = add.i32 %1, 1\nset $10, %11\n"
                "st.global.b32 %0, 0, %11\n") == Numbers{10, 10});
}

TEST_CASE("a value stays apart from a variable that is in use until it is set") {
  // read meanwhile
  CHECK(sharing("$10:i32 = var 0\n%11:i32 = add.i32 %1, 1\n%12:i32 = get $10\n"
                "st.global.b32 %0, 0, %12\nset $10, %11\n") == Numbers{10, 11, 10});
  // set under a condition
  CHECK(sharing("$10:i32 = var 0\n%11:i32 = add.i32 %1, 1\nif %4 {\nset $10, %11\n}\n") ==
        Numbers{10, 11});
  // for two variables: the first has it
  CHECK(sharing("%10:i32 = add.i32 %1, 1\n$11:i32 = var %10\n$12:i32 = var %10\n") ==
        Numbers{11, 11, 12});
  // used after the variable has another value
  CHECK(sharing("$10:i32 = var 0\n%11:i32 = add.i32 %1, 1\nset $10, %11\nset $10, 7\n"
                "st.global.b32 %0, 0, %11\n") == Numbers{10, 11});
  // a parameter, an index and the like have registers of their own
  CHECK(sharing("$10:i32 = var %1\n") == Numbers{10});
  CHECK(sharing("$10:i32 = var 0\nfor %11:i32 = 0 to 4 step 1 {\nset $10, %11\n}\n") ==
        Numbers{10, 11});
}

TEST_CASE("a sequence of instructions writes no register that it has yet to read") {
  constexpr std::string_view kLoad =
      "$10:i32 = var 0\n%11:i32 = get $10\n"
      "%12:i32, %13:i32, %14:i32, %15:i32 = ld.global.v4.b32.if %0, 0, %11\n";
  CHECK(sharing(fmt::format("{}set $10, %12\n", kLoad)) == Numbers{10, 10, 12, 13, 14, 15});
  CHECK(sharing(fmt::format("{}$16:i32 = var %12\n", kLoad)) ==
        Numbers{10, 10, 16, 13, 14, 15, 16});
}

constexpr std::string_view kVariables =
    "$10:i32 = var 0\n$11:i32 = var 0\n$12:i32 = var 0\n%13:i32 = get $12\n";
constexpr std::string_view kProduct = "wgmma.f16.f16 $10, $11, %13, %1, %1, %1, %0, 0, 1\n";

TEST_CASE("operands of a product are in use until a wait") {
  const auto product = [](std::string_view rest) {
    return sharing(fmt::format("{}{}{}", kVariables, kProduct, rest));
  };
  const Numbers shared = {10, 11, 12, 12}, apart = {10, 11, 12, 13};
  CHECK(product("wgmma.commit\nwgmma.wait 0, $10, $11\nset $12, 1\n") == shared);
  CHECK(product("wgmma.commit\nset $12, 1\nwgmma.wait 0, $10, $11\n") == apart);
  CHECK(product("wgmma.wait 0, $10, $11\nset $12, 1\n") == apart);  // not committed
  CHECK(product("set $12, 1\n") == apart);
}

TEST_CASE("a wait that leaves groups in flight covers those before them") {
  const auto product = [](std::string_view rest) {
    return sharing(fmt::format("{}{}wgmma.commit\n{}", kVariables, kProduct, rest));
  };
  const Numbers shared = {10, 11, 12, 12}, apart = {10, 11, 12, 13};
  CHECK(product("wgmma.wait 1, $10, $11\nset $12, 1\nwgmma.wait 0, $10, $11\n") == apart);
  CHECK(product("wgmma.commit\nwgmma.wait 1, $10, $11\nset $12, 1\n") == shared);
  CHECK(product("wgmma.commit\nwgmma.wait 2, $10, $11\nset $12, 1\n") == apart);
  // A wait or commit under a condition may not run; a wait for what is only read writes nothing.
  CHECK(product("if %4 {\nwgmma.wait 0, $10, $11, $12\n}\nset $12, 1\nwgmma.wait 0, $10, $11\n") ==
        apart);
  CHECK(product("if %4 {\nwgmma.wait 0, $10, $11, $12\n}\nwgmma.wait 0, $10, $11\nset $12, 1\n") ==
        shared);
  CHECK(product("if %4 {\nwgmma.commit\n}\nwgmma.wait 1, $10, $11\nset $12, 1\n") == apart);
}

TEST_CASE("a product at a loop's end runs beside the next iteration") {
  const auto loop = [](std::string_view before, std::string_view after, std::string_view behind) {
    return sharing(
        fmt::format("$10:i32 = var 0\n$11:i32 = var 0\n$12:i32 = var 0\n"
                    "for %14:i32 = 0 to 4 step 1 {{\n{}%13:i32 = get $12\n{}"
                    "wgmma.commit\n{}}}\n{}",
                    before, kProduct, after, behind));
  };
  constexpr std::string_view kWait = "wgmma.wait 0, $10, $11\n", kSet = "set $12, 1\n";
  const Numbers shared = {10, 11, 12, 12, 14}, apart = {10, 11, 12, 13, 14};
  CHECK(loop(kSet, kWait, "") == shared);
  CHECK(loop(kSet, "", kWait) == apart);
  CHECK(loop(kSet, "", "") == apart);
  CHECK(loop("", "", kWait) == shared);
  CHECK(loop("", "", fmt::format("{}{}", kWait, kSet)) == shared);
  CHECK(loop("", "", fmt::format("{}{}", kSet, kWait)) == apart);
  // The value of the next iteration is not computed in the register that the product reads.
  CHECK(sharing(fmt::format("$10:i32 = var 0\n$11:i32 = var 0\n$12:i32 = var 0\n"
                            "for %14:i32 = 0 to 4 step 1 {{\n%15:i32 = add.i32 %14, 1\n"
                            "wgmma.wait 0, $10, $11\nset $12, %15\n%13:i32 = get $12\n{}"
                            "wgmma.commit\n}}\nwgmma.wait 0, $10, $11\n",
                            kProduct)) == Numbers{10, 11, 12, 13, 14, 12});
}

}  // namespace sagejit
