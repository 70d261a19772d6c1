#include "compiler/support/size_expr.h"

#include <array>
#include <limits>

#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

// Values of the symbols; the others are 0.
struct Sizes {
  int64_t b = 0, hq = 0, m = 0, n = 0;
};

int64_t evaluate(std::string_view text, const Sizes& sizes = {}) {
  std::array<int64_t, kNumSymbols> values{};
  values[static_cast<size_t>(Symbol::kB)] = sizes.b;
  values[static_cast<size_t>(Symbol::kHq)] = sizes.hq;
  values[static_cast<size_t>(Symbol::kM)] = sizes.m;
  values[static_cast<size_t>(Symbol::kN)] = sizes.n;
  return SizeExpr(text).evaluate(values);
}

std::string parse_error(std::string_view text) {
  const Error error = thrown_by([&] { SizeExpr{text}; });
  CHECK(error.kind() == ErrorKind::kInternal);
  return error.message();
}

}  // namespace

TEST_CASE("size expressions follow the usual precedence") {
  CHECK(evaluate("0") == 0);
  CHECK(evaluate("2 + 3 * 4") == 14);
  CHECK(evaluate("2 * 3 + 4") == 10);
  CHECK(evaluate("(2 + 3) * 4") == 20);
  CHECK(evaluate("10 - 3 - 4") == 3);
  CHECK(evaluate("10 - (3 - 4)") == 11);
  CHECK(evaluate("2*(3+4)*( 5 )") == 70);
  CHECK(evaluate("b * hq + m - n", {.b = 2, .hq = 8, .m = 100, .n = 7}) == 109);
}

TEST_CASE("size expressions know ceil_div, div, min and max") {
  CHECK(evaluate("ceil_div(128, 64)") == 2);
  CHECK(evaluate("ceil_div(129, 64)") == 3);
  CHECK(evaluate("ceil_div(0, 64)") == 0);
  CHECK(evaluate("ceil_div(0 - 7, 2)") == -3);
  CHECK(evaluate("div(129, 64)") == 2);
  CHECK(evaluate("min(m, n)", {.m = -5, .n = 3}) == -5);
  CHECK(evaluate("max(m, n)", {.m = -5, .n = 3}) == 3);
  CHECK(evaluate("min(32, ceil_div(max(n, 1), 256)) * 4", {.n = 1000}) == 16);
}

TEST_CASE("every symbol evaluates to its own value") {
  std::array<int64_t, kNumSymbols> values{};
  for (int i = 0; i < kNumSymbols; ++i) values[static_cast<size_t>(i)] = 1000 + i;
  for (int i = 0; i < kNumSymbols; ++i) {
    const std::string_view name = name_of(static_cast<Symbol>(i));
    INFO(name);
    CHECK(SizeExpr(name).evaluate(values) == 1000 + i);
  }
  CHECK(name_of(Symbol::kQStrideM) == "q.stride_m");
  CHECK(name_of(Symbol::kLseStrideH) == "lse.stride_h");
  CHECK(name_of(Symbol::kNumSms) == "num_sms");
  CHECK(name_of(Symbol::kAttendsAlone) == "attends_alone");
}

TEST_CASE("size expressions are equal by text, and 0 by default") {
  CHECK(SizeExpr() == SizeExpr("0"));
  CHECK(SizeExpr("b * m").text() == "b * m");
  CHECK_FALSE(SizeExpr("b * m") == SizeExpr("m * b"));
}

TEST_CASE("arithmetic that overflows 64 bits is an error of the caller's sizes") {
  const auto overflow = [](std::string_view text, const Sizes& sizes) {
    const Error error = thrown_by([&] { evaluate(text, sizes); });
    CHECK(error.kind() == ErrorKind::kArgument);
    return error.message();
  };
  CHECK(overflow("m * n", {.m = kMax / 2, .n = 3}) ==
        "the sizes of this problem overflow 64 bits in 'm * n'");
  CHECK(overflow("m + n", {.m = kMax, .n = 1}) ==
        "the sizes of this problem overflow 64 bits in 'm + n'");
  CHECK(overflow("0 - m - n", {.m = kMax, .n = 2}) ==
        "the sizes of this problem overflow 64 bits in '0 - m - n'");
  CHECK(overflow("div(m, n)", {.m = 1, .n = 0}) == "size expression 'div(m, n)' divides by 0");
  CHECK(overflow("ceil_div(m, n)", {.m = 1, .n = -2}) ==
        "size expression 'ceil_div(m, n)' divides by -2");
  CHECK(evaluate("m + n", {.m = kMax, .n = 0}) == kMax);
}

TEST_CASE("a malformed size expression is refused with its text, the reason and the column") {
  CHECK(parse_error("b b") == "size expression 'b b': unexpected text at column 3");
  CHECK(parse_error("b + ") == "size expression 'b + ': unknown name '' at column 5");
  CHECK(parse_error("(b") == "size expression '(b': expected ')' at column 3");
  CHECK(parse_error("min(b)") == "size expression 'min(b)': expected ',' at column 6");
  CHECK(parse_error("ceil_div b") == "size expression 'ceil_div b': expected '(' at column 10");
  CHECK_THAT(parse_error("b * rows"), Catch::Contains("unknown name 'rows'"));
  CHECK_THAT(parse_error("q.stride_x"), Catch::Contains("unknown name 'q.stride_x'"));
  CHECK_THAT(parse_error(""), Catch::Contains("unknown name ''"));
  CHECK(parse_error("9223372036854775808") ==
        "size expression '9223372036854775808': number out of range at column 1");
}

TEST_CASE("a size expression needs at most 16 values at once") {
  std::string deep = "1";
  for (int i = 1; i < 16; ++i) deep = "1 + (" + deep + ")";
  CHECK(evaluate(deep) == 16);
  CHECK_THAT(parse_error("1 + (" + deep + ")"), Catch::Contains("too deep"));
}

// Expressions are also read from cache files: no text may exhaust the parser's stack.
TEST_CASE("a size expression nests at most 64 deep") {
  const auto nested = [](size_t depth, std::string_view open, std::string_view close) {
    std::string text;
    for (size_t i = 0; i < depth; ++i) text += open;
    text += "7";
    for (size_t i = 0; i < depth; ++i) text += close;
    return text;
  };
  CHECK(evaluate(nested(63, "(", ")")) == 7);
  CHECK(evaluate(nested(63, "min(", ", 9)")) == 7);
  CHECK_THAT(parse_error(nested(64, "(", ")")), Catch::Contains("nested too deep at column 65"));
  CHECK_THAT(parse_error(nested(64, "min(", ", 9)")), Catch::Contains("nested too deep"));
  CHECK_THAT(parse_error(std::string(1000000, '(')), Catch::Contains("nested too deep"));
}

}  // namespace sagejit
