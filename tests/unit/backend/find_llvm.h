// The LLVM back end for the tests, as it was built beside them.
#pragma once

#include <memory>

#include "compiler/backend/llvm/llvm_backend.h"
#include "tests/support/catch.h"

namespace sagejit {

// Null, and a warning in the test's output, where it was not built.
inline std::shared_ptr<const Backend> find_llvm() {
#ifdef SAGEJIT_LLVM_PLUGIN
  return make_llvm_backend(LlvmPlugin::load(SAGEJIT_LLVM_PLUGIN));
#else
  WARN("skipped: the LLVM back end is not built: there is no LLVM 19; run tools/setup.sh");
  return nullptr;
#endif
}

}  // namespace sagejit
