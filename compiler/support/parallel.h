// Independent items of work on several threads.
#pragma once

#include <cstddef>
#include <functional>

namespace sagejit {

// Calls work(i) once for each i below `count`, on the caller's thread and on as many more as there
// are items and processors for. Returns when all calls have; then throws what the item of the least
// index threw, if any did. The other items are run in any case.
void parallel_for(size_t count, const std::function<void(size_t)>& work);

}  // namespace sagejit
