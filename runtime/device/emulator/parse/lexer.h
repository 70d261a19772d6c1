// PTX text to tokens. Tokens point into the text, which must outlive them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace sagejit::emulator {

enum class TokenKind : uint8_t { kWord, kInteger, kFloat32, kFloat64, kString, kPunct, kEnd };

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string_view text;
  uint32_t line = 0;   // 1-based
  uint64_t value = 0;  // integer value, or the bits of the float

  bool is(std::string_view s) const { return text == s && kind != TokenKind::kString; }
};

// A word is an identifier or opcode with its dotted modifiers ("ld.global.L2::128B.u32"); one that
// begins with '.' (a directive or a type) ends at the next dot. Ends with one kEnd token.
std::vector<Token> lex(std::string_view text);

// Throws kParse or kUnsupported at a line of the text.
class Source {
 public:
  explicit Source(std::string_view text) : text_(text) {}
  std::string_view line_text(uint32_t line) const;  // trimmed
  [[noreturn]] void fail(uint32_t line, std::string_view message) const;
  [[noreturn]] void unsupported(uint32_t line, std::string_view message) const;

 private:
  std::string_view text_;
};

}  // namespace sagejit::emulator
