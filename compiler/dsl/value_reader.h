// Reads the tokens of one value from left to right.
//
// Reading stops at the first error of a value: fail() diagnoses and throws ValueRejected, which the
// caller catches to go on with the next value.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "compiler/dsl/ast.h"
#include "compiler/support/diagnostic.h"

namespace sagejit::dsl {

// Thrown once the diagnostic is recorded; never leaves compiler/sema and compiler/dsl.
struct ValueRejected {};

class ValueReader {
 public:
  // `value` and `diagnostics` must outlive the reader.
  ValueReader(const Value& value, Diagnostics& diagnostics);

  const Token& peek(size_t ahead = 0) const;  // kEnd, just behind the value, once all is read
  Token take();
  bool at_end() const { return peek().kind == TokenKind::kEnd; }
  Span whole() const { return value_.span(); }

  // Takes the next token if it is that word or mark.
  bool accept(std::string_view mark);
  void expect(std::string_view mark, std::string_view note);
  void expect_end(std::string_view note);

  // A whole number, without sign and not above 2^31 - 1. `what` names it in messages: "the page
  // size".
  int integer(std::string_view what, std::string_view note_if_negative = "");
  // A finite number with an optional sign; -0 is read as 0.
  double number(std::string_view what);
  // The literal of a number token; diagnoses what no finite double can hold.
  double parse_number(const Token& token);
  int parse_integer(const Token& token, std::string_view what);

  [[noreturn]] void fail(Span span, std::string message, std::string note = "");
  // "expected WHAT, found TOKEN" at the next token.
  [[noreturn]] void fail_expected(std::string_view what, std::string note = "");

 private:
  const Value& value_;
  Diagnostics& diagnostics_;
  Token end_;
  size_t at_ = 0;
};

}  // namespace sagejit::dsl
