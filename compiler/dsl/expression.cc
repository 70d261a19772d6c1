#include "compiler/dsl/expression.h"

#include <fmt/format.h>

#include <algorithm>

namespace sagejit::dsl {
namespace {

constexpr BinaryOperator kBinaryOperators[] = {
    {"or", ExprOp::kOr, 1},
    {"and", ExprOp::kAnd, 2},
    {"<", ExprOp::kLess, kComparisonPrecedence},
    {"<=", ExprOp::kLessEqual, kComparisonPrecedence},
    {">", ExprOp::kGreater, kComparisonPrecedence},
    {">=", ExprOp::kGreaterEqual, kComparisonPrecedence},
    {"==", ExprOp::kEqual, kComparisonPrecedence},
    {"!=", ExprOp::kNotEqual, kComparisonPrecedence},
    {"+", ExprOp::kAdd, 5},
    {"-", ExprOp::kSubtract, 5},
    {"*", ExprOp::kMultiply, 6},
    {"/", ExprOp::kDivide, 6},
    {"//", ExprOp::kFloorDivide, 6},
    {"%", ExprOp::kModulo, 6},
};

constexpr Function kFunctions[] = {
    {"min", ExprOp::kMin, 2},
    {"max", ExprOp::kMax, 2},
    {"abs", ExprOp::kAbs, 1},
    {"select", ExprOp::kSelect, 3},
};

constexpr Variable kVariables[] = {
    {"q", ExprOp::kQuery, ExprType::kInteger},   {"k", ExprOp::kKey, ExprType::kInteger},
    {"head", ExprOp::kHead, ExprType::kInteger}, {"batch", ExprOp::kBatch, ExprType::kInteger},
    {"s", ExprOp::kScore, ExprType::kReal},
};

template <typename Row>
const Row* find_row(std::span<const Row> rows, ExprOp op) {
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.op == op; });
  return row == rows.end() ? nullptr : &*row;
}

constexpr int kAtomPrecedence = 8;

int precedence_of(const Expr& e) {
  if (const auto* row = find_row(binary_operators(), e.op)) return row->precedence;
  if (e.op == ExprOp::kNot) return kNotPrecedence;
  if (e.op == ExprOp::kNegate) return kSignPrecedence;
  return kAtomPrecedence;
}

std::string print_real(double value) {
  std::string text = fmt::format("{}", value);
  // The point keeps the literal a real one when it is read again.
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// With parentheses if it binds weaker than its place demands.
std::string print_in(const Expr& e, int least_precedence) {
  const std::string text = print(e);
  return precedence_of(e) < least_precedence ? fmt::format("({})", text) : text;
}

}  // namespace

std::span<const BinaryOperator> binary_operators() {
  return kBinaryOperators;
}
std::span<const Function> functions() {
  return kFunctions;
}
std::span<const Variable> variables() {
  return kVariables;
}

std::string print(const Expr& e) {
  if (e.op == ExprOp::kInteger) return fmt::format("{}", e.integer);
  if (e.op == ExprOp::kReal) return print_real(e.real);
  if (e.op == ExprOp::kNot) return "not " + print_in(*e.args[0], kNotPrecedence);
  if (e.op == ExprOp::kNegate) return "-" + print_in(*e.args[0], kSignPrecedence);
  if (const auto* variable = find_row(variables(), e.op)) return std::string(variable->name);
  if (const auto* function = find_row(functions(), e.op)) {
    std::string args;
    for (const ExprPtr& arg : e.args) args += (args.empty() ? "" : ", ") + print(*arg);
    return fmt::format("{}({})", function->name, args);
  }
  const BinaryOperator& row = *find_row(binary_operators(), e.op);
  // Operators group to the left; comparisons, which do not chain, on neither side.
  const int left = row.precedence + (row.precedence == kComparisonPrecedence ? 1 : 0);
  return fmt::format("{} {} {}", print_in(*e.args[0], left), row.text,
                     print_in(*e.args[1], row.precedence + 1));
}

bool equal(const Expr& a, const Expr& b) {
  return a.op == b.op && a.type == b.type && a.integer == b.integer && a.real == b.real &&
         std::equal(a.args.begin(), a.args.end(), b.args.begin(), b.args.end(),
                    [](const ExprPtr& x, const ExprPtr& y) { return equal(*x, *y); });
}

}  // namespace sagejit::dsl
