// Problems drawn at random from everything the generators make: a variant, a shape, an input, a
// layout.
#pragma once

#include <cstdint>
#include <string>

#include "tests/emulated/table.h"

namespace sagejit::test {

// The same on every platform: it draws from a std::mt19937_64 by remainders alone.
Case random_case(uint64_t seed);
// With 8-bit P and V.
Case random_eight_bit_case(uint64_t seed);
// With fp4 Q and K.
Case random_fp4_case(uint64_t seed);
// With a schedule of the wgmma kernel, and what only that one has.
Case random_wgmma_case(uint64_t seed);

}  // namespace sagejit::test
