// Tokens of the variant language.
#pragma once

#include <string_view>

#include "compiler/support/diagnostic.h"

namespace sagejit::dsl {

enum class TokenKind {
  kWord,    // a letter or `_`, then letters, digits and `_`
  kNumber,  // 64, 0.5, 1e-3; no sign
  kString,  // "..." with \" and \\; the name of a variant alone
  kPunct,   // one of the marks in lexer.cc
  kNewline,
  kBad,  // diagnosed by the lexer; what holds it is dropped without a second message
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string_view text;  // as written, in the source file
  Span span;
  int line = 1;

  bool is(std::string_view mark) const {
    return (kind == TokenKind::kWord || kind == TokenKind::kPunct) && text == mark;
  }
};

// How a message names a token: "`=`", "the end of the line", "the end of the file".
std::string describe(const Token& token);

}  // namespace sagejit::dsl
