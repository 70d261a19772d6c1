// Which toolchain the suites compile with: SAGEJIT_TEST_BACKEND and SAGEJIT_TEST_ASSEMBLER, by the
// names of the command line; unset: what is taken where nothing is asked for.
#pragma once

#include <cstdlib>

#include "runtime/toolchain/lazy_toolchain.h"

namespace sagejit::test {

inline ToolchainOptions toolchain_options() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  return ToolchainOptions::from(
      Environment::read(),
      {.backend = backend_named(variable("SAGEJIT_TEST_BACKEND"), "SAGEJIT_TEST_BACKEND"),
       .assembler = assembler_named(variable("SAGEJIT_TEST_ASSEMBLER"), "SAGEJIT_TEST_ASSEMBLER")});
}

}  // namespace sagejit::test
