// The syntax tree of a variant file: names, keys and the tokens of their values, each with its
// place. What a key's value means is the business of sema (compiler/sema/keys.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compiler/dsl/token.h"
#include "compiler/support/diagnostic.h"

namespace sagejit::dsl {

// `int8 per block(128)`: at least one token, parentheses balanced, no newline among them.
struct Value {
  std::vector<Token> tokens;

  Span span() const { return join(tokens.front().span, tokens.back().span); }
};

// `key = value`, or `key in {value, value}`, which makes one instance of the variant per value.
struct Entry {
  Token key;
  bool is_sweep = false;
  std::vector<Value>
      values;  // one, or at least one for a sweep; none if it is broken, and diagnosed
};

// A name as it is written, without the quotes it may have.
struct Name {
  std::string text;
  Span span;
  int line = 1;
};

// `abstract name : base { entries }`
struct VariantNode {
  bool is_abstract = false;  // to inherit from, and not itself a variant of the file
  bool is_broken = false;    // diagnosed: it may lack what its author wrote
  Name name;
  std::optional<Name> base;
  std::vector<Entry> entries;
};

// `text` as the name of a variant: itself where it is a word, else quoted. Control characters
// become `?`.
std::string quote_name(std::string_view text);

}  // namespace sagejit::dsl
