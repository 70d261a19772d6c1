// NVRTC of this machine, for the tests that need a real compiler.
#pragma once

#include <memory>

#include "compiler/backend/cuda/nvrtc.h"
#include "runtime/toolchain/search.h"
#include "tests/support/catch.h"

namespace sagejit {

// Null, and a warning in the test's output, where there is none.
inline std::unique_ptr<Nvrtc> find_nvrtc() {
  const SearchResult search = search_nvrtc(SearchOptions::from(Environment::read()));
  if (!search.file.empty()) return Nvrtc::load(search.file);
  WARN("skipped: " << nvrtc_failure(search));
  return nullptr;
}

}  // namespace sagejit
