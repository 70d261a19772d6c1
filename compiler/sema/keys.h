// The keys of the language: how the value of each is read, printed and defaulted. One row per key.
#pragma once

#include <bitset>
#include <span>
#include <string>
#include <string_view>

#include "compiler/dsl/value_reader.h"
#include "compiler/sema/variant.h"

namespace sagejit {

inline constexpr size_t kMaxKeys = 32;
using KeySet = std::bitset<kMaxKeys>;  // by place in all_keys()

struct Key {
  std::string_view name;
  std::string_view values;     // what can be written, for messages and the language's description
  std::string_view otherwise;  // the default, in words
  // Reads one value into its fields; throws dsl::ValueRejected once it has diagnosed an error.
  // Checks form only: ranges and combinations are contradictions.cc's.
  void (*read)(dsl::ValueReader&, Variant&);
  std::string (*print)(const Variant&);
  // Fills the fields from those of earlier keys and of the keys in `given`; called where the key is
  // not given.
  void (*set_default)(Variant&, const KeySet& given);
};

// In the order of the canonical text, which is also the order in which defaults are filled.
std::span<const Key> all_keys();

// The key of that name, or null.
const Key* find_key(std::string_view name);
size_t place_of(const Key& key);

// Every name, for suggestions.
std::span<const std::string_view> key_names();

// Fills what `given` lacks, and what given values refer to (value_head_dim = head_dim).
void fill_defaults(Variant& variant, const KeySet& given);

}  // namespace sagejit
