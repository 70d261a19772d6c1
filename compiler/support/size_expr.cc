#include "compiler/support/size_expr.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

constexpr std::array<std::string_view, kNumSymbols> kSymbolNames = {
    "b",
    "hq",
    "hkv",
    "m",
    "n",
    "q",
    "q.stride_b",
    "q.stride_h",
    "q.stride_m",
    "k",
    "k.stride_b",
    "k.stride_h",
    "k.stride_n",
    "v",
    "v.stride_b",
    "v.stride_h",
    "v.stride_n",
    "o",
    "o.stride_b",
    "o.stride_h",
    "o.stride_m",
    "lse",
    "lse.stride_b",
    "lse.stride_h",
    "num_sms",
    "attends_alone",
};

constexpr int kMaxDepth = 16;    // values at once
constexpr int kMaxNesting = 64;  // of parentheses and functions; the parser recurses as deep

}  // namespace

std::string_view name_of(Symbol symbol) {
  return kSymbolNames[static_cast<int>(symbol)];
}

// Recursive descent; emits postfix steps and tracks the stack depth they need.
class SizeExprParser {
 public:
  SizeExprParser(std::string_view text, std::vector<SizeExpr::Step>& steps)
      : text_(text), steps_(steps) {}

  void parse() {
    sum();
    skip_space();
    if (pos_ != text_.size()) error("unexpected text");
  }

 private:
  using Op = SizeExpr::Op;

  [[noreturn]] void error(std::string_view what) const {
    fail(ErrorKind::kInternal, "size expression '{}': {} at column {}", text_, what, pos_ + 1);
  }

  void skip_space() {
    while (pos_ < text_.size() && text_[pos_] == ' ') ++pos_;
  }

  bool accept(char c) {
    skip_space();
    if (pos_ >= text_.size() || text_[pos_] != c) return false;
    ++pos_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) error(fmt::format("expected '{}'", c));
  }

  void push(Op op, int64_t value) {
    steps_.push_back({op, value});
    if (++depth_ > kMaxDepth) error("too deep");
  }

  void binary(Op op) {
    steps_.push_back({op, 0});
    --depth_;
  }

  void sum() {
    if (++nesting_ > kMaxNesting) error("nested too deep");
    product();
    for (;;) {
      if (accept('+')) {
        product();
        binary(Op::kAdd);
      } else if (accept('-')) {
        product();
        binary(Op::kSub);
      } else {
        break;
      }
    }
    --nesting_;
  }

  void product() {
    factor();
    while (accept('*')) {
      factor();
      binary(Op::kMul);
    }
  }

  void factor() {
    if (accept('(')) {
      sum();
      return expect(')');
    }
    skip_space();
    if (pos_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[pos_]))) {
      int64_t value = 0;
      const auto [end, code] =
          std::from_chars(text_.data() + pos_, text_.data() + text_.size(), value);
      if (code != std::errc()) error("number out of range");
      pos_ = static_cast<size_t>(end - text_.data());
      return push(Op::kPush, value);
    }
    name();
  }

  void name() {
    const size_t start = pos_;
    while (pos_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[pos_])) ||
                                   text_[pos_] == '_' || text_[pos_] == '.')) {
      ++pos_;
    }
    const std::string_view word = text_.substr(start, pos_ - start);
    static constexpr std::pair<std::string_view, Op> kFunctions[] = {
        {"ceil_div", Op::kCeilDiv}, {"div", Op::kDiv}, {"min", Op::kMin}, {"max", Op::kMax}};
    for (const auto& [function, op] : kFunctions) {
      if (word != function) continue;
      expect('(');
      sum();
      expect(',');
      sum();
      expect(')');
      return binary(op);
    }
    const auto it = std::find(kSymbolNames.begin(), kSymbolNames.end(), word);
    if (it == kSymbolNames.end()) error(fmt::format("unknown name '{}'", word));
    push(Op::kSymbol, it - kSymbolNames.begin());
  }

  std::string_view text_;
  std::vector<SizeExpr::Step>& steps_;
  size_t pos_ = 0;
  int depth_ = 0;
  int nesting_ = 0;
};

SizeExpr::SizeExpr(std::string_view text) : text_(text) {
  SizeExprParser(text_, steps_).parse();
}

int64_t SizeExpr::apply(Op op, int64_t a, int64_t b, const std::string& text) {
  bool overflow = false;
  switch (op) {
    case Op::kAdd:
      overflow = __builtin_add_overflow(a, b, &a);
      break;
    case Op::kSub:
      overflow = __builtin_sub_overflow(a, b, &a);
      break;
    case Op::kMul:
      overflow = __builtin_mul_overflow(a, b, &a);
      break;
    case Op::kCeilDiv:
    case Op::kDiv:
      if (b <= 0) fail(ErrorKind::kArgument, "size expression '{}' divides by {}", text, b);
      a = op == Op::kDiv ? a / b : a / b + (a % b > 0);
      break;
    case Op::kMin:
      a = std::min(a, b);
      break;
    case Op::kMax:
      a = std::max(a, b);
      break;
    case Op::kPush:
    case Op::kSymbol:
      break;
  }
  if (overflow) {
    fail(ErrorKind::kArgument, "the sizes of this problem overflow 64 bits in '{}'", text);
  }
  return a;
}

int64_t SizeExpr::evaluate(SymbolValues values) const {
  std::array<int64_t, kMaxDepth> stack;
  int top = 0;
  for (const Step& step : steps_) {
    if (step.op == Op::kPush || step.op == Op::kSymbol) {
      stack[top++] = step.op == Op::kPush ? step.value : values[step.value];
      continue;
    }
    const int64_t b = stack[--top];
    stack[top - 1] = apply(step.op, stack[top - 1], b, text_);
  }
  return stack[0];
}

}  // namespace sagejit
