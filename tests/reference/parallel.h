// Runs independent work items on all cores.
#pragma once

#include <cstdint>
#include <functional>

namespace sagejit::reference {

// Calls work(i) once for each i in [0, count), from several threads at once and in no set order.
// Returns when all are done; the first exception of any item is thrown again here.
void parallel_for(int64_t count, const std::function<void(int64_t)>& work);

}  // namespace sagejit::reference
