#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "compiler/dsl/expression.h"
#include "compiler/dsl/lexer.h"
#include "compiler/dsl/value_reader.h"
#include "compiler/support/suggest.h"

namespace sagejit::dsl {
namespace {

// Habits from other languages, and what they are called here.
constexpr std::pair<std::string_view, std::string_view> kForeignOperators[] = {
    {"&&", "and"}, {"||", "or"}, {"!", "not"}, {"=", "=="}};

// A subtree with its place, which types are reported at.
struct Part {
  ExprPtr expr;
  Span span;
};

std::string_view name_of(ExprType type) {
  return type == ExprType::kCondition ? "a condition" : "a number";
}

class ExpressionParser {
 public:
  ExpressionParser(ValueReader& reader, const ExprRules& rules) : reader_(reader), rules_(rules) {}

  ExprPtr run() {
    Part whole = binary(1);
    if (!reader_.at_end()) unexpected_operator();
    const bool is_condition = whole.expr->type == ExprType::kCondition;
    if (rules_.is_condition && !is_condition) {
      reader_.fail(whole.span, fmt::format("{} is a condition, this is a number", rules_.subject),
                   "it is true where query q sees key k, for example q - k < 256");
    }
    if (!rules_.is_condition && is_condition) {
      reader_.fail(whole.span, fmt::format("{} is a number, this is a condition", rules_.subject),
                   "select(condition, a, b) turns a condition into a number");
    }
    return std::move(whole.expr);
  }

 private:
  // Counts a level of nesting for as long as it lives.
  class Level {
   public:
    explicit Level(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxExprDepth) {
        parser_.reader_.fail(
            parser_.reader_.peek().span,
            fmt::format("the expression nests deeper than {} levels", kMaxExprDepth),
            "split it, or write it with fewer parentheses");
      }
    }
    ~Level() { --parser_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    ExpressionParser& parser_;
  };

  Part make(ExprOp op, ExprType type, Span span) {
    if (++num_nodes_ > kMaxExprNodes) {
      reader_.fail(span, fmt::format("the expression has more than {} terms", kMaxExprNodes),
                   "a mask this intricate is better given as a tensor: mask = tensor(bool)");
    }
    auto expr = std::make_unique<Expr>();
    expr->op = op;
    expr->type = type;
    return {std::move(expr), span};
  }

  void unexpected_operator() {
    const Token& token = reader_.peek();
    for (const auto& [foreign, ours] : kForeignOperators) {
      if (token.is(foreign)) {
        reader_.fail(token.span, fmt::format("`{}` is not an operator here", foreign),
                     fmt::format("write `{}`", ours));
      }
    }
    reader_.fail(token.span, fmt::format("expected an operator, found {}", describe(token)));
  }

  const BinaryOperator* next_operator(int least_precedence) const {
    for (const BinaryOperator& row : binary_operators()) {
      if (reader_.peek().is(row.text)) return row.precedence >= least_precedence ? &row : nullptr;
    }
    return nullptr;
  }

  Part binary(int least_precedence) {
    Part left = unary(least_precedence);
    while (const BinaryOperator* row = next_operator(least_precedence)) {
      const Token token = reader_.take();
      Part right = binary(row->precedence + 1);
      left = combine(*row, token, std::move(left), std::move(right));
      if (row->precedence == kComparisonPrecedence && next_operator(kComparisonPrecedence) &&
          next_operator(kComparisonPrecedence)->precedence == kComparisonPrecedence) {
        reader_.fail(reader_.peek().span, "comparisons do not chain",
                     "join two with `and`: a < b and b < c");
      }
    }
    return left;
  }

  void require(const Part& part, bool condition, std::string_view mark) {
    if ((part.expr->type == ExprType::kCondition) == condition) return;
    reader_.fail(part.span,
                 fmt::format("`{}` takes {}, this is {}", mark,
                             condition ? "conditions" : "numbers", name_of(part.expr->type)));
  }

  Part combine(const BinaryOperator& row, const Token& token, Part left, Part right) {
    const bool logical = row.op == ExprOp::kAnd || row.op == ExprOp::kOr;
    require(left, logical, row.text);
    require(right, logical, row.text);
    const bool integers =
        left.expr->type == ExprType::kInteger && right.expr->type == ExprType::kInteger;
    const bool rounds_down = row.op == ExprOp::kFloorDivide || row.op == ExprOp::kModulo;
    if (rounds_down && !integers) {
      reader_.fail(token.span, fmt::format("`{}` takes integers", row.text),
                   "positions and literals without a point are integers; `/` divides reals");
    }
    const Expr& divisor = *right.expr;
    if ((rounds_down || row.op == ExprOp::kDivide) &&
        (divisor.op == ExprOp::kInteger || divisor.op == ExprOp::kReal) && divisor.integer == 0 &&
        divisor.real == 0.0) {
      reader_.fail(right.span, "division by zero");
    }
    ExprType type = ExprType::kReal;
    if (logical || row.precedence == kComparisonPrecedence) {
      type = ExprType::kCondition;
    } else if (integers && row.op != ExprOp::kDivide) {
      type = ExprType::kInteger;
    }
    Part part = make(row.op, type, join(left.span, right.span));
    part.expr->args.push_back(std::move(left.expr));
    part.expr->args.push_back(std::move(right.expr));
    return part;
  }

  Part unary(int least_precedence) {
    const Token token = reader_.peek();
    const bool is_not = token.is("not");
    if (!is_not && !token.is("-")) return primary();
    if (is_not && least_precedence > kNotPrecedence) {
      reader_.fail(token.span, "`not` binds weaker than what stands before it",
                   "write (not condition) in parentheses");
    }
    const Level level(*this);
    reader_.take();
    Part operand = is_not ? binary(kNotPrecedence) : unary(kSignPrecedence);
    require(operand, is_not, token.text);
    Part part = make(is_not ? ExprOp::kNot : ExprOp::kNegate, operand.expr->type,
                     join(token.span, operand.span));
    part.expr->args.push_back(std::move(operand.expr));
    return part;
  }

  Part primary() {
    const Level level(*this);
    const Token token = reader_.peek();
    if (token.kind == TokenKind::kNumber) return literal(reader_.take());
    if (reader_.accept("(")) {
      Part part = binary(1);
      const Token close = reader_.peek();
      reader_.expect(")", "");
      part.span = join(token.span, close.span);
      return part;
    }
    if (token.kind != TokenKind::kWord || next_operator(1)) {
      if (token.is("!")) unexpected_operator();
      reader_.fail_expected("a number, a name or `(`");
    }
    return reader_.peek(1).is("(") ? call(reader_.take()) : variable(reader_.take());
  }

  Part literal(const Token& token) {
    const bool real = token.text.find_first_of(".eE") != std::string_view::npos;
    Part part = make(real ? ExprOp::kReal : ExprOp::kInteger,
                     real ? ExprType::kReal : ExprType::kInteger, token.span);
    if (real) {
      part.expr->real = reader_.parse_number(token);
    } else {
      part.expr->integer = reader_.parse_integer(token, "an integer");
    }
    return part;
  }

  [[noreturn]] void unknown(const Token& token, std::string_view what) {
    std::vector<std::string_view> names, all;
    for (const Variable& v : variables()) {
      if (v.op != ExprOp::kScore || rules_.sees_score) names.push_back(v.name);
    }
    all = names;
    for (const Function& f : functions()) all.push_back(f.name);
    const std::vector<std::string_view> listed = all;
    all.insert(all.end(), rules_.other_words.begin(), rules_.other_words.end());
    std::string note = did_you_mean(token.text, all);
    if (note.empty()) {
      note = fmt::format("{} can use {}", rules_.subject, list_words(listed, "and"));
    }
    reader_.fail(token.span, fmt::format("`{}` is not a {}", token.text, what), std::move(note));
  }

  Part variable(const Token& token) {
    for (const Variable& row : variables()) {
      if (token.text != row.name) continue;
      if (row.op == ExprOp::kScore && !rules_.sees_score) {
        reader_.fail(token.span, "`s` is the score, which a mask does not see",
                     "an expression of the score is written score = ...");
      }
      return make(row.op, row.type, token.span);
    }
    for (const Function& row : functions()) {
      if (token.text == row.name) reader_.fail_expected(fmt::format("`(` after `{}`", row.name));
    }
    unknown(token, "name an expression knows");
  }

  Part call(const Token& token) {
    const auto rows = functions();
    const auto row = std::find_if(rows.begin(), rows.end(),
                                  [&](const Function& f) { return f.name == token.text; });
    if (row == rows.end()) unknown(token, "function");
    reader_.expect("(", "");
    std::vector<Part> args;
    do {
      args.push_back(binary(1));
    } while (reader_.accept(","));
    const Token close = reader_.peek();
    reader_.expect(")", "");
    const Span span = join(token.span, close.span);
    if (static_cast<int>(args.size()) != row->num_args) {
      reader_.fail(span, fmt::format("`{}` takes {} argument{}, not {}", row->name, row->num_args,
                                     row->num_args == 1 ? "" : "s", args.size()));
    }
    ExprType type = ExprType::kInteger;
    for (size_t i = 0; i < args.size(); ++i) {
      const bool wants_condition = row->op == ExprOp::kSelect && i == 0;
      if ((args[i].expr->type == ExprType::kCondition) != wants_condition) {
        reader_.fail(
            args[i].span,
            fmt::format("argument {} of `{}` is {}, this is {}", i + 1, row->name,
                        wants_condition ? "a condition" : "a number", name_of(args[i].expr->type)));
      }
      if (args[i].expr->type == ExprType::kReal) type = ExprType::kReal;
    }
    Part part = make(row->op, type, span);
    for (Part& arg : args) part.expr->args.push_back(std::move(arg.expr));
    return part;
  }

  ValueReader& reader_;
  const ExprRules& rules_;
  int depth_ = 0;
  int num_nodes_ = 0;
};

}  // namespace

ExprPtr parse_expression(ValueReader& reader, const ExprRules& rules) {
  return ExpressionParser(reader, rules).run();
}

ExprPtr parse_canonical(std::string_view text, bool is_condition) {
  const SourceFile file{"<expression>", std::string(text)};
  Diagnostics diagnostics;
  Value value{lex(file, diagnostics)};
  value.tokens.pop_back();
  diagnostics.throw_if_errors();
  if (value.tokens.empty()) {
    diagnostics.error({&file, 0, 1}, "the expression is empty");
    diagnostics.throw_if_errors();
  }
  ValueReader reader(value, diagnostics);
  const ExprRules rules{is_condition ? "a mask" : "a score", !is_condition, is_condition, {}};
  try {
    return parse_expression(reader, rules);
  } catch (const ValueRejected&) {
    diagnostics.throw_if_errors();
    throw;
  }
}

}  // namespace sagejit::dsl
