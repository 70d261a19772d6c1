// What a variant computes, as formulas with its own constants: specs/numerics.md, filled in. For
// people.
//
// Names as there: Q, K, V as given, a hat for codes, i query rows, j keys; log2 units unless it
// says so. Pure and thread-safe; any valid variant, supported or not.
#pragma once

#include <string>
#include <vector>

#include "compiler/sema/variant.h"
#include "compiler/target/target.h"

namespace sagejit {

struct Formula {
  std::string subject;             // "smoothing", "codes of Q", ...
  std::vector<std::string> lines;  // at least one
};

// In the order of computation. The target matters where its hardware decides about bits.
std::vector<Formula> formulas_of(const Variant& variant, const Target& target);

}  // namespace sagejit
