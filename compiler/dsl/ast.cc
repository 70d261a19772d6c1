#include "compiler/dsl/ast.h"

#include <algorithm>

namespace sagejit::dsl {
namespace {

bool is_word(std::string_view text) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  return !text.empty() && is_letter(text[0]) && text != "abstract" &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return is_letter(c) || (c >= '0' && c <= '9'); });
}

}  // namespace

std::string quote_name(std::string_view text) {
  if (is_word(text)) return std::string(text);
  std::string quoted = "\"";
  for (char c : text.empty() ? std::string_view("unnamed") : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    const auto byte = static_cast<unsigned char>(c);
    quoted += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return quoted + "\"";
}

}  // namespace sagejit::dsl
