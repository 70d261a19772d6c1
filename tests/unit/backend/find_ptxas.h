// The ptxas of this machine, for the tests that need a real assembler.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "compiler/support/error.h"
#include "runtime/toolchain/ptxas.h"
#include "runtime/toolchain/search.h"
#include "tests/support/catch.h"

namespace sagejit {

// Null, and a warning in the test's output, where there is none.
inline std::shared_ptr<const Assembler> find_ptxas(std::string temporary_dir = "/tmp") {
  SearchResult search = search_ptxas(SearchOptions::from(Environment::read()));
  if (search.file.empty()) {
    WARN("skipped: " << ptxas_failure(search));
    return nullptr;
  }
  return make_ptxas_assembler({.program = std::move(search.file),
                               .version = std::move(search.version),
                               .temporary_dir = std::move(temporary_dir)});
}

// What an assembler says of a kernel; no machine code where it refuses.
inline MachineCode verdict(const Assembler& assembler, std::string_view ptx, const Target& target) {
  try {
    return assembler.assemble(ptx, target);
  } catch (const Error& error) {
    return {{}, {}, error.log()};
  }
}

}  // namespace sagejit
