// Recursive-descent parser state shared by the module-level and the body-level half.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/device/emulator/parse/ast.h"
#include "runtime/device/emulator/parse/lexer.h"

namespace sagejit::emulator {

class TokenStream {
 public:
  explicit TokenStream(std::string_view text) : source_(text), tokens_(lex(text)) {}

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(pos_ + ahead, tokens_.size() - 1)];
  }
  const Token& take() {
    const Token& t = peek();
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return t;
  }
  bool accept(std::string_view text) {
    if (!peek().is(text)) return false;
    take();
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text)) fail(fmt::format("expected '{}' before '{}'", text, peek().text));
  }
  std::string_view expect_word(std::string_view what) {
    if (peek().kind != TokenKind::kWord) {
      fail(fmt::format("expected {} before '{}'", what, peek().text));
    }
    return take().text;
  }
  uint64_t expect_integer(std::string_view what) {
    if (peek().kind != TokenKind::kInteger) {
      fail(fmt::format("expected {} before '{}'", what, peek().text));
    }
    return take().value;
  }
  bool at_end() const { return peek().kind == TokenKind::kEnd; }
  [[noreturn]] void fail(std::string_view message) const { source_.fail(peek().line, message); }
  const Source& source() const { return source_; }

 private:
  Source source_;
  std::vector<Token> tokens_;
  size_t pos_ = 0;
};

// ".align 16 .b8 name[4][2] = {...}" after the state space. Leaves the terminator.
Variable parse_variable(TokenStream& ts, Space space);

// Parses "{ ... }" of an entry into `kernel`; module variables are visible in it.
class BodyParser {
 public:
  BodyParser(TokenStream& ts, const AstModule& module, AstKernel& kernel);
  void parse();

 private:
  struct Named {
    RefKind kind;
    uint32_t index;
  };
  using Scope = std::unordered_map<std::string, Named>;

  void statement();
  void directive();
  void declare_registers();
  void declare_variable(Space space);
  void branch_targets(std::string_view name);
  void instruction();
  AstOperand operand();
  AstOperand constant_operand();
  AstOperand name_operand();
  AstOperand memory_operand();
  AstOperand vector_operand();
  int64_t signed_offset();
  void resolve(AstOperand& op);
  void add_register(const std::string& name, Type type);

  TokenStream& ts_;
  AstKernel& kernel_;
  std::vector<Scope> scopes_;        // innermost last
  std::vector<uint32_t> scope_ids_;  // parallel to scopes_
  std::unordered_map<std::string, uint32_t> module_names_;
};

}  // namespace sagejit::emulator
