#include "runtime/device/emulator/parse/lexer.h"

#include <fmt/format.h>

#include <bit>
#include <cctype>
#include <cstdlib>
#include <string>

#include "runtime/device/emulator/error.h"

namespace sagejit::emulator {
namespace {

bool is_word_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$' || c == '%';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text), source_(text) {}

  std::vector<Token> run() {
    for (skip_blank(); pos_ < text_.size(); skip_blank()) next();
    tokens_.push_back({TokenKind::kEnd, "end of file", line_, 0});
    return std::move(tokens_);
  }

 private:
  char at(size_t i) const { return i < text_.size() ? text_[i] : '\0'; }

  void skip_blank() {
    while (pos_ < text_.size()) {
      if (at(pos_) == '\n') ++line_;
      if (std::isspace(static_cast<unsigned char>(at(pos_))) != 0 || at(pos_) == '\0') {
        ++pos_;
      } else if (at(pos_) == '/' && at(pos_ + 1) == '/') {
        while (pos_ < text_.size() && at(pos_) != '\n') ++pos_;
      } else if (at(pos_) == '/' && at(pos_ + 1) == '*') {
        skip_block_comment();
      } else {
        return;
      }
    }
  }

  void skip_block_comment() {
    const uint32_t first = line_;
    for (pos_ += 2; !(at(pos_) == '*' && at(pos_ + 1) == '/'); ++pos_) {
      if (pos_ >= text_.size()) source_.fail(first, "this comment is never closed");
      if (at(pos_) == '\n') ++line_;
    }
    pos_ += 2;
  }

  void push(TokenKind kind, size_t end, uint64_t value = 0) {
    tokens_.push_back({kind, text_.substr(pos_, end - pos_), line_, value});
    pos_ = end;
  }

  void next() {
    const char c = at(pos_);
    if (is_digit(c)) return number();
    if (is_word_char(c) || (c == '.' && is_word_char(at(pos_ + 1)))) return word();
    if (c == '"') return string();
    if (std::string_view(",;{}[]()<>+-!@|:=").find(c) == std::string_view::npos) {
      source_.fail(line_, fmt::format("unexpected character '{}'", c));
    }
    push(TokenKind::kPunct, pos_ + 1);
  }

  void word() {
    const bool directive = at(pos_) == '.';
    size_t end = pos_ + 1;
    for (;;) {
      if (is_word_char(at(end))) {
        ++end;
      } else if (!directive && at(end) == '.' && is_word_char(at(end + 1))) {
        ++end;
      } else if (at(end) == ':' && at(end + 1) == ':' && is_word_char(at(end + 2))) {
        end += 2;
      } else {
        break;
      }
    }
    push(TokenKind::kWord, end);
  }

  void string() {
    const size_t close = text_.find('"', pos_ + 1);
    if (close == std::string_view::npos) source_.fail(line_, "this string is never closed");
    push(TokenKind::kString, close + 1);
  }

  void number() {
    const char tag = static_cast<char>(std::tolower(at(pos_ + 1)));
    if (at(pos_) == '0' && (tag == 'f' || tag == 'd')) {
      const size_t digits = tag == 'f' ? 8 : 16;
      const std::string hex(text_.substr(pos_ + 2, digits));
      char* stop = nullptr;
      const uint64_t bits = std::strtoull(hex.c_str(), &stop, 16);
      if (hex.size() != digits || *stop != '\0') source_.fail(line_, "malformed float constant");
      return push(tag == 'f' ? TokenKind::kFloat32 : TokenKind::kFloat64, pos_ + 2 + digits, bits);
    }
    size_t end = pos_;
    while (is_word_char(at(end)) || (at(end) == '.' && is_digit(at(end + 1)))) ++end;
    if (is_digit(at(end - 1)) == false && (at(end) == '+' || at(end) == '-') && tag != 'x' &&
        std::tolower(at(end - 1)) == 'e') {
      for (++end; is_digit(at(end));) ++end;  // exponent sign
    }
    std::string text(text_.substr(pos_, end - pos_));
    if (tag != 'x' && text.find_first_of(".eE") != std::string::npos) {
      char* stop = nullptr;
      const double value = std::strtod(text.c_str(), &stop);
      if (*stop != '\0') source_.fail(line_, fmt::format("malformed number '{}'", text));
      return push(TokenKind::kFloat64, end, std::bit_cast<uint64_t>(value));
    }
    integer(text, end);
  }

  void integer(std::string text, size_t end) {
    if (text.back() == 'U' || text.back() == 'u') text.pop_back();
    const bool binary = text.size() > 2 && (text[1] == 'b' || text[1] == 'B');
    char* stop = nullptr;
    const char* digits = binary ? text.c_str() + 2 : text.c_str();
    const uint64_t value = std::strtoull(digits, &stop, binary ? 2 : 0);
    if (*stop != '\0') source_.fail(line_, fmt::format("malformed number '{}'", text));
    push(TokenKind::kInteger, end, value);
  }

  std::string_view text_;
  Source source_;
  size_t pos_ = 0;
  uint32_t line_ = 1;
  std::vector<Token> tokens_;
};

ErrorInfo located(ErrorKind kind, uint32_t line, std::string_view text, std::string_view message) {
  ErrorInfo e;
  e.kind = kind;
  e.message = message;
  e.line = line;
  e.text = text;
  return e;
}

}  // namespace

std::vector<Token> lex(std::string_view text) {
  return Lexer(text).run();
}

std::string_view Source::line_text(uint32_t line) const {
  size_t begin = 0;
  for (uint32_t i = 1; i < line && begin != std::string_view::npos; ++i) {
    begin = text_.find('\n', begin);
    if (begin != std::string_view::npos) ++begin;
  }
  if (begin == std::string_view::npos) return {};
  std::string_view out = text_.substr(begin, text_.find('\n', begin) - begin);
  while (!out.empty() && std::isspace(static_cast<unsigned char>(out.front())) != 0)
    out.remove_prefix(1);
  while (!out.empty() && std::isspace(static_cast<unsigned char>(out.back())) != 0)
    out.remove_suffix(1);
  return out;
}

void Source::fail(uint32_t line, std::string_view message) const {
  throw Error(located(ErrorKind::kParse, line, line_text(line), message));
}

void Source::unsupported(uint32_t line, std::string_view message) const {
  throw Error(located(ErrorKind::kUnsupported, line, line_text(line), message));
}

}  // namespace sagejit::emulator
