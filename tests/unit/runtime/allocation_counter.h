// Counts calls of operator new in this thread.
#pragma once

#include <cstddef>

namespace sagejit::testing {

size_t num_allocations() noexcept;

}  // namespace sagejit::testing
