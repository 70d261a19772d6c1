#include "compiler/dsl/expression.h"

#include "compiler/support/error.h"
#include "tests/support/catch.h"

namespace sagejit::dsl {
namespace {

std::string mask(std::string_view text) {
  return print(*parse_canonical(text, true));
}
std::string score(std::string_view text) {
  return print(*parse_canonical(text, false));
}

}  // namespace

TEST_CASE("parentheses stay only where they change the tree") {
  CHECK(score("((s))") == "s");
  CHECK(score("(s + q) + k") == "s + q + k");
  CHECK(score("s + (q + k)") == "s + (q + k)");
  CHECK(score("s - (q - k)") == "s - (q - k)");
  CHECK(score("(s * 2) + (q * k)") == "s * 2 + q * k");
  CHECK(score("(s + 2) * k") == "(s + 2) * k");
  CHECK(score("-(s * 2)") == "-(s * 2)");
  CHECK(score("(-s) * 2") == "-s * 2");
  CHECK(score("-(-s)") == "--s");
  CHECK(score("s - (-2)") == "s - -2");
  CHECK(mask("not (not (k < q))") == "not not k < q");
  CHECK(mask("(not (k < q)) and (q < 3)") == "not k < q and q < 3");
  CHECK(mask("not ((k < q) and (q < 3))") == "not (k < q and q < 3)");
  CHECK(mask("(k < 1 and q < 2) or k < 3") == "k < 1 and q < 2 or k < 3");
  CHECK(mask("k < 1 and (q < 2 or k < 3)") == "k < 1 and (q < 2 or k < 3)");
  CHECK(mask("k < 1 and (q < 2 and k < 3)") == "k < 1 and (q < 2 and k < 3)");
  CHECK(score("select((k < 1), (s), 0)") == "select(k < 1, s, 0)");
}

TEST_CASE("nothing is folded") {
  CHECK(score("1 + 2 * 3") == "1 + 2 * 3");
  CHECK(score("s * 1 + 0") == "s * 1 + 0");
  CHECK(mask("1 < 2") == "1 < 2");
}

TEST_CASE("literals keep their type and value") {
  CHECK(score("2.0") == "2.0");
  CHECK(score("2") == "2");
  CHECK(score("007") == "7");
  CHECK(score(".50") == "0.5");
  CHECK(score("1e3") == "1000.0");
  CHECK(score("1e30") == "1e+30");
  CHECK(parse_canonical("2.0", false)->type == ExprType::kReal);
  CHECK(parse_canonical("2", false)->type == ExprType::kInteger);
}

TEST_CASE("types") {
  const auto type = [](std::string_view text) { return parse_canonical(text, false)->type; };
  CHECK(type("q + k * 2") == ExprType::kInteger);
  CHECK(type("q // 64 % 2") == ExprType::kInteger);
  CHECK(type("q / 64") == ExprType::kReal);
  CHECK(type("max(q, k)") == ExprType::kInteger);
  CHECK(type("max(q, s)") == ExprType::kReal);
  CHECK(type("select(q < k, 1, 2)") == ExprType::kInteger);
  CHECK(type("select(q < k, 1, 2.5)") == ExprType::kReal);
  CHECK(type("-abs(q)") == ExprType::kInteger);
  CHECK(parse_canonical("q < k", true)->type == ExprType::kCondition);
}

TEST_CASE("the tree groups as the page says") {
  const ExprPtr e = parse_canonical("q - k - 1 < 2 and k < 3 or not q < 4", true);
  CHECK(e->op == ExprOp::kOr);
  CHECK(e->args[1]->op == ExprOp::kNot);
  CHECK(e->args[0]->op == ExprOp::kAnd);
  const Expr& less = *e->args[0]->args[0];
  CHECK(less.op == ExprOp::kLess);
  CHECK(less.args[0]->args[0]->op == ExprOp::kSubtract);
  CHECK(equal(*e, *parse_canonical("(((q - k) - 1 < 2) and k < 3) or (not (q < 4))", true)));
  CHECK_FALSE(equal(*e, *parse_canonical("q - k - 1 < 2 and (k < 3 or not q < 4)", true)));
}

TEST_CASE("what is no expression is an error") {
  for (const char* text : {"", "s +", "(s", "s)", "s s", "min(s)", "min", "x", "s // 2", "s < 1",
                           "s and s", "1 / 0", "s % 0", "s,s", "\"s\"", "not s", "s + not s"}) {
    INFO(text);
    CHECK_THROWS_AS(parse_canonical(text, false), Error);
  }
}

TEST_CASE("limits hold without touching the stack") {
  const std::string deep = std::string(100000, '(') + "s" + std::string(100000, ')');
  CHECK_THROWS_AS(parse_canonical(deep, false), Error);
  CHECK_THROWS_AS(parse_canonical(std::string(100000, '-') + "s", false), Error);
  std::string nots;
  for (int i = 0; i < 100000; ++i) nots += "not ";
  CHECK_THROWS_AS(parse_canonical(nots + "q < k", true), Error);
  std::string sum = "s";
  for (int i = 0; i < 499; ++i) sum += " + s";
  CHECK(score(sum) == sum);
  CHECK_THROWS_AS(parse_canonical(sum + " + s", false), Error);
}

}  // namespace sagejit::dsl
