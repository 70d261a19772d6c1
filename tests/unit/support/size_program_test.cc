#include "compiler/support/size_program.h"

#include <array>

#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

using Symbols = std::array<int64_t, kNumSymbols>;

Symbols symbols(int64_t m, int64_t n) {
  Symbols values = {};
  values[static_cast<size_t>(Symbol::kM)] = m;
  values[static_cast<size_t>(Symbol::kN)] = n;
  return values;
}

}  // namespace

TEST_CASE("size programs: every expression has the value that it has alone") {
  const char* const texts[] = {"m",
                               "num_sms",
                               "7",
                               "m * ceil_div(n, 64) * 64",
                               "ceil_div(n, 64) - 64",
                               "64 - ceil_div(n, 64)",
                               "min(m, n) + max(m, n) * div(n, 3)",
                               "(m + n) * (m - n)",
                               "n"};
  SizeProgram program;
  std::vector<int> places;
  for (const char* text : texts) places.push_back(program.add(SizeExpr(text)));
  for (const auto& [m, n] : {std::pair{1, 1}, {130, 200}, {0, 77}}) {
    std::array<int64_t, SizeProgram::kMaxValues> values;
    program.evaluate(symbols(m, n), values);
    for (size_t i = 0; i < std::size(texts); ++i) {
      INFO(texts[i]);
      CHECK(values[static_cast<size_t>(places[i])] == SizeExpr(texts[i]).evaluate(symbols(m, n)));
    }
  }
}

TEST_CASE("size programs: what expressions share is computed once") {
  SizeProgram program;
  CHECK(program.num_values() == kNumSymbols);
  const int first = program.add(SizeExpr("m * ceil_div(n, 64)"));
  CHECK(program.num_values() == kNumSymbols + 3);  // 64, the quotient, the product
  CHECK(program.add(SizeExpr("m * ceil_div(n, 64)")) == first);
  CHECK(program.add(SizeExpr("m")) == static_cast<int>(Symbol::kM));
  CHECK(program.num_values() == kNumSymbols + 3);
  program.add(SizeExpr("ceil_div(n, 64) * 64"));
  CHECK(program.num_values() == kNumSymbols + 4);
}

TEST_CASE("size programs: an error names the expression, a limit is a limit") {
  SizeProgram program;
  program.add(SizeExpr("n * n"));
  program.add(SizeExpr("n * n + m"));
  program.add(SizeExpr("div(4, m)"));
  std::array<int64_t, SizeProgram::kMaxValues> values;
  const auto message = [&](const Symbols& given) {
    const Error error = thrown_by([&] { program.evaluate(given, values); });
    CHECK(error.kind() == ErrorKind::kArgument);
    return error.message();
  };
  CHECK(message(symbols(1, int64_t{1} << 40)) ==
        "the sizes of this problem overflow 64 bits in 'n * n'");
  CHECK(message(symbols(0, 1)) == "size expression 'div(4, m)' divides by 0");
  const Error error = thrown_by([&] {
    for (int i = 0; i <= SizeProgram::kMaxValues; ++i) program.add(SizeExpr(std::to_string(i)));
  });
  CHECK(error.kind() == ErrorKind::kInternal);
  CHECK(error.message() == "a plan's size expressions have more than 512 parts");
}

}  // namespace sagejit
