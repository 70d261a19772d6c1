#include "compiler/dsl/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "compiler/dsl/lexer.h"

namespace sagejit::dsl {
namespace {

std::string unquote(std::string_view text) {
  text.remove_prefix(1);
  if (!text.empty() && text.back() == '"') text.remove_suffix(1);
  std::string name;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) ++i;
    name += text[i];
  }
  return name;
}

class Parser {
 public:
  Parser(const SourceFile& file, Diagnostics& diagnostics)
      : tokens_(lex(file, diagnostics)), diagnostics_(diagnostics) {}

  std::vector<VariantNode> file() {
    std::vector<VariantNode> variants;
    bool in_step =
        true;  // false while skipping what is not a variant, which needs one message only
    for (skip_newlines(); !at_end(); skip_newlines()) {
      if (starts_variant()) {
        variants.push_back(variant());
        in_step = true;
        continue;
      }
      if (in_step && peek().kind != TokenKind::kBad) expected_variant();
      in_step = false;
      skip_line();
    }
    return variants;
  }

  std::optional<Entry> single_entry() {
    skip_newlines();
    if (at_end()) return std::nullopt;
    std::optional<Entry> result = entry();
    skip_newlines();
    if (result && !result->values.empty() && !at_end()) {
      diagnostics_.error(peek().span, fmt::format("unexpected {}", describe(peek())),
                         "one entry `key = value` is meant to stand here");
      return std::nullopt;
    }
    return result;
  }

 private:
  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  bool at_end() const { return peek().kind == TokenKind::kEnd; }
  bool is_name(const Token& token) const {
    return token.kind == TokenKind::kWord || token.kind == TokenKind::kString;
  }
  Token take() {
    const Token token = peek();
    if (!at_end()) ++at_;
    return token;
  }
  bool accept(std::string_view mark) {
    if (!peek().is(mark)) return false;
    ++at_;
    return true;
  }
  void skip_newlines() {
    while (peek().kind == TokenKind::kNewline) ++at_;
  }
  void skip_line() {
    while (!at_end() && take().kind != TokenKind::kNewline) {
    }
  }
  // To the end of the entry that went wrong.
  void skip_entry() {
    while (!at_end() && peek().kind != TokenKind::kNewline && !peek().is(";") && !peek().is("}")) {
      ++at_;
    }
  }

  // [abstract] name [: name] {    The parts after the name may be missing or wrong at the top
  // level.
  bool starts_variant() const {
    return is_name(peek()) && !peek(1).is("=") && !(peek(1).is("in") && peek(2).is("{"));
  }
  // The same where an entry is expected: sure enough to say that the block before it was not
  // closed.
  bool surely_starts_variant() const {
    const size_t name = peek().is("abstract") && is_name(peek(1)) ? 1 : 0;
    if (!is_name(peek(name))) return false;
    return peek(name + 1).is("{") ||
           (peek(name + 1).is(":") && is_name(peek(name + 2)) && peek(name + 3).is("{"));
  }

  void expected_variant() {
    const Token& token = peek();
    if (is_name(token)) {
      diagnostics_.error(token.span, fmt::format("`{}` stands outside of a variant", token.text),
                         "entries belong between the braces of one: name { head_dim = 64 }");
    } else if (token.is("}")) {
      diagnostics_.error(token.span, "this `}` closes nothing", "no variant is open here");
    } else {
      diagnostics_.error(token.span, fmt::format("expected a variant, found {}", describe(token)),
                         "a variant is written name { key = value }");
    }
  }

  Name name() {
    const Token token = take();
    if (token.kind == TokenKind::kWord) return {std::string(token.text), token.span, token.line};
    Name result{unquote(token.text), token.span, token.line};
    if (result.text.empty()) diagnostics_.error(token.span, "the name of a variant is empty");
    return result;
  }

  VariantNode variant() {
    VariantNode node;
    if (peek().is("abstract") && is_name(peek(1))) {
      node.is_abstract = true;
      take();
    }
    node.name = name();
    if (accept(":")) {
      if (is_name(peek())) {
        node.base = name();
      } else {
        diagnostics_.error(peek().span,
                           fmt::format("expected the name of a base, found {}", describe(peek())),
                           fmt::format("to inherit, write {} : base {{ ... }}", node.name.text));
      }
    }
    skip_newlines();
    if (!peek().is("{")) {
      diagnostics_.error(peek().span,
                         fmt::format("expected `{{` to open variant `{}`, found {}", node.name.text,
                                     describe(peek())),
                         "a variant is written name { key = value }");
      node.is_broken = true;
      if (!(peek().kind == TokenKind::kWord && (peek(1).is("=") || peek(1).is("in")))) {
        skip_line();
        return node;
      }
    }
    entries(node, accept("{") ? tokens_[at_ - 1] : peek());
    return node;
  }

  void entries(VariantNode& node, const Token& open) {
    for (;;) {
      while (peek().kind == TokenKind::kNewline || peek().is(";")) ++at_;
      if (accept("}")) return;
      if (at_end()) {
        diagnostics_.error(open.span, "this `{` is never closed",
                           fmt::format("variant `{}` needs a `}}` at its end", node.name.text));
        node.is_broken = true;
        return;
      }
      if (surely_starts_variant()) {
        diagnostics_.error(
            peek().span, fmt::format("`}}` is missing before variant `{}`", peek().text),
            fmt::format("variant `{}`, opened on line {}, is not closed, and variants do not nest",
                        node.name.text, open.line));
        node.is_broken = true;
        return;
      }
      std::optional<Entry> parsed = entry();
      if (!parsed || parsed->values.empty()) skip_entry();
      if (!parsed) node.is_broken = true;
      if (parsed) node.entries.push_back(std::move(*parsed));
    }
  }

  // Nothing where not even a key could be read; without values where only they are wrong.
  std::optional<Entry> entry() {
    Entry result;
    result.key = peek();
    if (peek().kind == TokenKind::kBad) return std::nullopt;
    if (peek().kind != TokenKind::kWord) {
      diagnostics_.error(
          peek().span, fmt::format("expected a key, found {}", describe(peek())),
          peek().is("//") ? "comments start with `#`" : "entries are written key = value");
      ++at_;
      return std::nullopt;
    }
    take();
    if (accept("="))
      return peek().is("{") ? set_after_equals(std::move(result)) : single_value(std::move(result));
    if (accept("in")) return sweep(std::move(result));
    diagnostics_.error(
        peek().span,
        fmt::format("expected `=` or `in` after `{}`, found {}", result.key.text, describe(peek())),
        fmt::format("write {0} = value, or {0} in {{value, value}}", result.key.text));
    return result;
  }

  static Entry broken(Entry entry) {
    entry.values.clear();
    return entry;
  }

  Entry single_value(Entry result) {
    auto parsed = value(result.key);
    if (!parsed) return broken(std::move(result));
    result.values.push_back(std::move(*parsed));
    if (peek().is(",")) {
      diagnostics_.error(
          peek().span, fmt::format("`{}` takes one value here", result.key.text),
          fmt::format("a sweep over several is written {} in {{value, value}}", result.key.text));
      skip_entry();
    }
    return result;
  }

  Entry set_after_equals(Entry result) {
    diagnostics_.error(
        peek().span, fmt::format("`{}` takes one value after `=`", result.key.text),
        fmt::format("a sweep over several is written {} in {{value, value}}", result.key.text));
    return sweep(std::move(result));
  }

  Entry sweep(Entry result) {
    result.is_sweep = true;
    if (!peek().is("{")) {
      diagnostics_.error(
          peek().span,
          fmt::format("expected `{{` after `{} in`, found {}", result.key.text, describe(peek())),
          fmt::format("write {0} in {{value, value}}, or {0} = value for one", result.key.text));
      return broken(std::move(result));
    }
    const Token open = take();
    for (skip_newlines(); !peek().is("}"); skip_newlines()) {
      if (at_end() || peek().is(";") || (peek().kind == TokenKind::kWord && peek(1).is("="))) {
        diagnostics_.error(open.span, "this `{` is never closed",
                           fmt::format("the values of `{}` end with a `}}`", result.key.text));
        return broken(std::move(result));
      }
      auto parsed = value(result.key);
      if (!parsed) return broken(std::move(result));
      result.values.push_back(std::move(*parsed));
      skip_newlines();
      if (!accept(",") && !peek().is("}")) {
        diagnostics_.error(peek().span,
                           fmt::format("expected `,` or `}}` among the values of `{}`, found {}",
                                       result.key.text, describe(peek())));
        return broken(std::move(result));
      }
    }
    take();
    if (result.values.empty()) {
      diagnostics_.error(join(open.span, tokens_[at_ - 1].span),
                         fmt::format("`{}` sweeps over no value", result.key.text),
                         "a variant without instances computes nothing");
      return broken(std::move(result));
    }
    return result;
  }

  // Tokens up to what ends a value; parentheses may span lines.
  std::optional<Value> value(const Token& key) {
    Value result;
    std::vector<Token> open;  // parentheses
    size_t line_end = 0;      // where to go on if one is not closed
    for (;; ++at_) {
      const Token& token = peek();
      const bool newline = token.kind == TokenKind::kNewline;
      if (!open.empty()) {
        if (newline) {
          if (line_end == 0) line_end = at_;
          continue;
        }
        if (at_end() || token.is("=") || token.is("{") || token.is("}") || token.is(";")) {
          diagnostics_.error(open.back().span, "this `(` is never closed");
          if (line_end != 0) at_ = line_end;
          return std::nullopt;
        }
      } else if (at_end() || newline || token.is(";") || token.is("}") || token.is(",")) {
        break;
      } else if (token.is(")")) {
        diagnostics_.error(token.span, "this `)` closes nothing");
        return std::nullopt;
      }
      if (token.kind == TokenKind::kBad) return std::nullopt;
      if (token.is("(")) open.push_back(token);
      if (token.is(")")) open.pop_back();
      if (token.is("{") || token.is("=")) {
        diagnostics_.error(
            token.span, fmt::format("unexpected `{}` in the value of `{}`", token.text, key.text),
            token.is("=") ? "entries are separated by a new line or `;`" : "");
        return std::nullopt;
      }
      result.tokens.push_back(token);
    }
    if (!result.tokens.empty()) return result;
    diagnostics_.error(peek().span, fmt::format("`{}` has no value", key.text));
    return std::nullopt;
  }

  std::vector<Token> tokens_;
  Diagnostics& diagnostics_;
  size_t at_ = 0;
};

bool fits(const SourceFile& file, Diagnostics& diagnostics) {
  if (file.text.size() <= kMaxFileBytes) return true;
  diagnostics.error(
      {&file, 0, 1},
      fmt::format("the file has {} bytes, more than the {} that a variant file may have",
                  file.text.size(), kMaxFileBytes),
      "is this a variant file?");
  return false;
}

}  // namespace

std::vector<VariantNode> parse_file(const SourceFile& file, Diagnostics& diagnostics) {
  if (!fits(file, diagnostics)) return {};
  return Parser(file, diagnostics).file();
}

std::optional<Entry> parse_single_entry(const SourceFile& file, Diagnostics& diagnostics) {
  if (!fits(file, diagnostics)) return std::nullopt;
  return Parser(file, diagnostics).single_entry();
}

}  // namespace sagejit::dsl
