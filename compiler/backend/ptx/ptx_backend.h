// The shortest way: PTX printed by this compiler itself (print_ptx.h); nobody's library is needed.
#pragma once

#include <memory>

#include "compiler/backend/backend.h"

namespace sagejit {

std::shared_ptr<const Backend> make_ptx_backend();

}  // namespace sagejit
