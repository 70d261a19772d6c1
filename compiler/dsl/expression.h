// Expressions over the score and positions: `k <= q and q - k < 256`.
//
// Values are 32-bit signed integers (positions and literals without a point), reals (f32: `s`,
// literals with a point or an exponent) and conditions. An operation on two integers is an integer
// one, with a real among its operands a real one; `/` is always real.
//
//   or                                     weakest
//   and
//   not
//   <  <=  >  >=  ==  !=                   numbers to a condition; comparisons do not chain
//   +  -
//   *  /  //  %                            // and % take integers and round down: -1 // 64 is -1
//   - (sign)                               strongest
//   min(a, b)  max(a, b)  abs(a)  select(condition, a, b)
//
// Nothing is folded or reordered: the tree is the arithmetic that runs.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/dsl/token.h"

namespace sagejit::dsl {

class ValueReader;

enum class ExprType { kInteger, kReal, kCondition };

enum class ExprOp {
  kInteger,
  kReal,  // literals
  kScore,
  kQuery,
  kKey,
  kHead,
  kBatch,  // s, q, k, head, batch
  kOr,
  kAnd,
  kNot,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kEqual,
  kNotEqual,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kNegate,
  kMin,
  kMax,
  kAbs,
  kSelect,
};

struct Expr {
  ExprOp op;
  ExprType type;
  int integer = 0;    // kInteger alone; not negative
  double real = 0.0;  // kReal alone; finite, not negative
  std::vector<std::unique_ptr<Expr>> args;
};

using ExprPtr = std::unique_ptr<Expr>;

// Trees are at most this large, so walking them by recursion is safe.
inline constexpr int kMaxExprNodes = 1000;
inline constexpr int kMaxExprDepth = 64;  // of parentheses, calls and signs

struct ExprRules {
  std::string_view subject;   // "a mask", for messages
  bool sees_score = false;    // whether `s` is a name
  bool is_condition = false;  // the type the whole must have; else a number
  std::span<const std::string_view>
      other_words;  // what else could have been meant by an unknown name
};

// Reads the rest of a value as an expression and checks its types; diagnoses through the reader.
ExprPtr parse_expression(ValueReader& reader, const ExprRules& rules);

// A canonical text back to its tree, for generators; throws Error{kSpec} if it is not an
// expression.
ExprPtr parse_canonical(std::string_view text, bool is_condition);

// The canonical text: minimal parentheses, one space around binary operators, shortest literals.
std::string print(const Expr& expression);

// Structural equality.
bool equal(const Expr& a, const Expr& b);

// Rows of the operator and function tables, shared by the parser and the printer.
struct BinaryOperator {
  std::string_view text;
  ExprOp op;
  int precedence;  // larger binds tighter
};
struct Function {
  std::string_view name;
  ExprOp op;
  int num_args;
};
struct Variable {
  std::string_view name;
  ExprOp op;
  ExprType type;
};
inline constexpr int kNotPrecedence = 3;
inline constexpr int kComparisonPrecedence = 4;
inline constexpr int kSignPrecedence = 7;
std::span<const BinaryOperator> binary_operators();
std::span<const Function> functions();
std::span<const Variable> variables();

}  // namespace sagejit::dsl
