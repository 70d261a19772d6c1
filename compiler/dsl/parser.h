// Variant files to syntax trees.
//
//   file    = { variant } .
//   variant = [ "abstract" ] name [ ":" name ] "{" { entry ( newline | ";" ) } "}" .
//   entry   = word ( "=" value | "in" "{" value { "," value } [ "," ] "}" ) .
//   value   = token { token } .      up to the end of the line, ";" or "}" outside of parentheses
//
// After an error the parser goes on with the next entry or variant, so that one run finds them all.
// It does not recurse: no input can exhaust the stack.
#pragma once

#include <optional>
#include <vector>

#include "compiler/dsl/ast.h"
#include "compiler/support/diagnostic.h"

namespace sagejit::dsl {

inline constexpr size_t kMaxFileBytes = 1 << 20;

// The variants of the file that could be read; errors are in `diagnostics`.
std::vector<VariantNode> parse_file(const SourceFile& file, Diagnostics& diagnostics);

// A file that holds one entry and nothing else, such as the text of an override.
std::optional<Entry> parse_single_entry(const SourceFile& file, Diagnostics& diagnostics);

}  // namespace sagejit::dsl
