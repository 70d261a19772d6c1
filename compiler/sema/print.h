// The canonical text of a variant: every field that computes, one line each, in a fixed order.
#pragma once

#include <string>

#include "compiler/sema/variant.h"

namespace sagejit {

// `name {`, the lines of canonical_key_text indented by two blanks, `}`. Resolving it gives the
// variant back, supported or not, provided that it is valid (compiler/sema/check.h). A name that is
// not a word is quoted.
std::string print_variant(const Variant& variant);

// Lines `key = value`, each with its newline; equal for two valid variants iff they compute the
// same. Basis of cache keys: it does not depend on the name, and doubles are printed so that they
// round-trip.
std::string canonical_key_text(const Variant& variant);

}  // namespace sagejit
