// Variant files to resolved variants: inheritance, sweeps, overrides and defaults applied,
// contradictions reported.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/sema/variant.h"

namespace sagejit {

// `key = value` on top of every variant of a file, as if each had that entry last; a value in
// braces is a sweep:
// {"head_dim", "{64, 128}"}. Diagnostics name its place as `<set>`.
struct Override {
  std::string key;
  std::string value;
};

// "key=value" to its two parts; throws Error{kArgument} if there is no `=`.
Override parse_override(std::string_view text);

struct Resolved {
  std::vector<Variant> variants;  // in the order of the file; sweeps with their last key fastest
  std::vector<std::string> warnings;  // rendered like errors, with file, line and caret
};

// A sweep makes one variant per combination of its values, named `base[head_dim=64, mask=none]`;
// the first combination comes first. Throws Error{kSpec} with every diagnostic of the text. Pure
// and thread-safe.
Resolved resolve_file(std::string_view file_name, std::string_view text,
                      std::span<const Override> overrides = {});

// The variants alone.
std::vector<Variant> resolve_variants(std::string_view file_name, std::string_view text,
                                      std::span<const Override> overrides = {});

// The variants that `selector` picks, in their order:
//   an exact name               sage1_b[head_dim=64, mask=none]
//   a name and some values      sage1_b[head_dim=64]      sage1_b
//   values, whatever the name   head_dim=64, mask=causal(top_left)
// Values are compared by meaning, for any key of the language; an empty selector picks all. Throws
// Error{kArgument} with the candidates if nothing is picked, Error{kSpec} if a value cannot be
// read.
std::vector<Variant> select_variants(std::vector<Variant> variants, std::string_view selector);

}  // namespace sagejit
