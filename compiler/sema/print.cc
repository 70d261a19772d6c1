#include "compiler/sema/print.h"

#include <fmt/format.h>

#include "compiler/dsl/ast.h"
#include "compiler/sema/keys.h"

namespace sagejit {

std::string print_variant(const Variant& variant) {
  std::string text = dsl::quote_name(variant.name) + " {\n";
  for (const Key& key : all_keys()) {
    text += fmt::format("  {} = {}\n", key.name, key.print(variant));
  }
  return text + "}\n";
}

std::string canonical_key_text(const Variant& variant) {
  std::string text;
  for (const Key& key : all_keys()) {
    text += fmt::format("{} = {}\n", key.name, key.print(variant));
  }
  return text;
}

}  // namespace sagejit
