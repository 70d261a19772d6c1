#include "compiler/dsl/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "compiler/support/utf8.h"

namespace sagejit::dsl {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// Longest first. The C spellings of logic are tokens so that the parser can name the right word.
constexpr std::string_view kMarks[] = {"//", "<=", ">=", "==", "!=", "&&", "||", "{", "}",
                                       "(",  ")",  "[",  "]",  ",",  ";",  ":",  "=", "+",
                                       "-",  "*",  "/",  "%",  "<",  ">",  "!"};

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  Lexer(const SourceFile& file, Diagnostics& diagnostics)
      : file_(file), text_(file.text), diagnostics_(diagnostics) {}

  std::vector<Token> run() {
    if (text_.starts_with(kByteOrderMark)) at_ = kByteOrderMark.size();
    check_utf8();
    while (at_ < text_.size()) next();
    emit(TokenKind::kEnd, at_);
    return std::move(tokens_);
  }

 private:
  char peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  Span span(size_t begin, size_t end) const {
    return {&file_, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)};
  }

  void emit(TokenKind kind, size_t begin) {
    tokens_.push_back({kind, text_.substr(begin, at_ - begin), span(begin, at_), line_});
    line_ += kind == TokenKind::kNewline;
  }

  // Only the first bad byte is worth a message: the file is not text, or has another encoding.
  void check_utf8() {
    for (size_t at = at_; at < text_.size();) {
      const int length = utf8_length(text_.substr(at));
      if (length == 0) {
        diagnostics_.error(
            span(at, at + 1),
            fmt::format("byte 0x{:02x} is not UTF-8", static_cast<unsigned char>(text_[at])),
            "variant files are UTF-8 text: save the file in that encoding");
        return;
      }
      at += length;
    }
  }

  void next() {
    const size_t begin = at_;
    const char c = peek();
    if (c == ' ' || c == '\t' || c == '\r') {
      ++at_;
    } else if (c == '\n') {
      ++at_;
      emit(TokenKind::kNewline, begin);
    } else if (c == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (is_letter(c)) {
      while (is_letter(peek()) || is_digit(peek())) ++at_;
      emit(TokenKind::kWord, begin);
    } else if (is_digit(c) || (c == '.' && is_digit(peek(1)))) {
      number();
    } else if (c == '"') {
      string();
    } else {
      mark();
    }
  }

  void digits() {
    while (is_digit(peek())) ++at_;
  }

  void number() {
    const size_t begin = at_;
    digits();
    if (peek() == '.') {
      ++at_;
      digits();
    }
    const size_t sign = peek(1) == '+' || peek(1) == '-' ? 1 : 0;
    if ((peek() == 'e' || peek() == 'E') && is_digit(peek(1 + sign))) {
      at_ += 1 + sign;
      digits();
    }
    if (is_letter(peek()) || peek() == '.') {
      while (is_letter(peek()) || is_digit(peek()) || peek() == '.') ++at_;
      diagnostics_.error(span(begin, at_),
                         fmt::format("`{}` is not a number", text_.substr(begin, at_ - begin)),
                         "numbers are written 64, 0.5 or 1e-3, without a unit");
      emit(TokenKind::kBad, begin);
      return;
    }
    emit(TokenKind::kNumber, begin);
  }

  void string() {
    const size_t begin = at_++;
    while (at_ < text_.size() && peek() != '"' && peek() != '\n') {
      at_ += peek() == '\\' && (peek(1) == '"' || peek(1) == '\\') ? 2 : 1;
    }
    if (peek() == '"') {
      ++at_;
    } else {
      diagnostics_.error(span(begin, begin + 1), "this `\"` is never closed",
                         "a quoted name ends on the line it starts on");
      at_ = begin + 1;  // the name most likely meant ends with its first word
      while (is_letter(peek()) || is_digit(peek())) ++at_;
    }
    emit(TokenKind::kString, begin);
  }

  void mark() {
    const auto rest = text_.substr(at_);
    for (std::string_view mark : kMarks) {
      if (rest.starts_with(mark)) {
        const size_t begin = at_;
        at_ += mark.size();
        emit(TokenKind::kPunct, begin);
        return;
      }
    }
    unexpected();
  }

  // A run of characters that start no token makes one message.
  void unexpected() {
    const size_t begin = at_;
    const int length = utf8_length(text_.substr(at_));
    at_ += std::max(length, 1);
    const bool run_goes_on = begin == unexpected_end_;
    unexpected_end_ = at_;
    emit(TokenKind::kBad, begin);
    if (length == 0 || run_goes_on) return;  // check_utf8 has spoken
    const auto byte = static_cast<unsigned char>(text_[begin]);
    diagnostics_.error(span(begin, at_),
                       byte < 0x20 || byte == 0x7f
                           ? fmt::format("unexpected control character 0x{:02x}", byte)
                           : fmt::format("unexpected character `{}`", text_.substr(begin, length)),
                       length > 1 ? "outside of comments the language is ASCII" : "");
  }

  const SourceFile& file_;
  std::string_view text_;
  Diagnostics& diagnostics_;
  size_t at_ = 0;
  int line_ = 1;
  size_t unexpected_end_ = std::string::npos;
  std::vector<Token> tokens_;
};

}  // namespace

std::string describe(const Token& token) {
  if (token.kind == TokenKind::kEnd) return "the end of the file";
  if (token.kind == TokenKind::kNewline) return "the end of the line";
  return fmt::format("`{}`", token.text);
}

std::vector<Token> lex(const SourceFile& file, Diagnostics& diagnostics) {
  return Lexer(file, diagnostics).run();
}

}  // namespace sagejit::dsl
