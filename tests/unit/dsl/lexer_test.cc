#include "compiler/dsl/lexer.h"

#include "compiler/support/error.h"
#include "tests/support/catch.h"

namespace sagejit::dsl {
namespace {

// Kinds as letters: w word, n number, s string, newline as /, marks as themselves, ? bad, $ end.
std::string shape(const std::vector<Token>& tokens) {
  std::string text;
  for (const Token& token : tokens) {
    switch (token.kind) {
      case TokenKind::kWord:
        text += 'w';
        break;
      case TokenKind::kNumber:
        text += 'n';
        break;
      case TokenKind::kString:
        text += 's';
        break;
      case TokenKind::kPunct:
        text += token.text;
        break;
      case TokenKind::kNewline:
        text += '/';
        break;
      case TokenKind::kBad:
        text += '?';
        break;
      case TokenKind::kEnd:
        text += '$';
        break;
    }
  }
  return text;
}

std::string shape_of(std::string text, size_t num_errors = 0) {
  const SourceFile file{"t", std::move(text)};
  Diagnostics diagnostics;
  const std::string result = shape(lex(file, diagnostics));
  CHECK(diagnostics.num_errors() == num_errors);
  return result;
}

}  // namespace

TEST_CASE("tokens") {
  CHECK(shape_of("") == "$");
  CHECK(shape_of("head_dim = 64 # words\nq_2") == "w=n/w$");
  CHECK(shape_of("a<=b>=c==d!=e<f>g//h") == "w<=w>=w==w!=w<w>w//w$");
  CHECK(shape_of("1 .5 2.25 1e5 1E-3 7.e2 3.") == "nnnnnnn$");
  CHECK(shape_of("\"a \\\" b\" \"\\\\\"") == "ss$");
  CHECK(shape_of("\xef\xbb\xbfx") == "w$");
  CHECK(shape_of("a\r\nb") == "w/w$");
}

TEST_CASE("what is no token is diagnosed once and marked") {
  CHECK(shape_of("a @@@ b", 1) == "w???w$");
  CHECK(shape_of("64k", 1) == "?$");
  CHECK(shape_of("1.2.3", 1) == "?$");
  CHECK(shape_of("\"abc { x", 1) == "s{w$");
  CHECK(shape_of("a\xff"
                 "b",
                 1) == "w?w$");
}

TEST_CASE("tokens know their place") {
  const SourceFile file{"t", "ab\n  cd"};
  Diagnostics diagnostics;
  const std::vector<Token> tokens = lex(file, diagnostics);
  REQUIRE(tokens.size() == 4);
  CHECK(tokens[2].line == 2);
  CHECK(tokens[2].span.begin == 5);
  CHECK(tokens[2].span.end == 7);
  CHECK(tokens[3].span.begin == 7);
}

}  // namespace sagejit::dsl
