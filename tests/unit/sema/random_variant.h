// Random valid variants over the whole language, supported or not.
#pragma once

#include <random>
#include <string>

#include "compiler/sema/variant.h"

namespace sagejit {

using Rng = std::mt19937;

Variant random_variant(Rng& rng);

// In canonical form; a condition over positions, or a number over `s` and positions.
std::string random_expression(Rng& rng, bool is_condition);

}  // namespace sagejit
