// ptxas for the tests that need a real assembler: of an installed CUDA toolkit, else of the PATH.
#pragma once

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "tests/support/catch.h"

namespace sagejit {

// The command; empty, and a warning in the test's output, where there is none.
inline std::string find_ptxas() {
  for (const char* command : {"/usr/local/cuda/bin/ptxas", "ptxas"}) {
    if (std::system(fmt::format("{} --version > /dev/null 2>&1", command).c_str()) == 0) {
      return command;
    }
  }
  WARN(
      "skipped: ptxas is neither in /usr/local/cuda/bin nor in the PATH; it is part of a CUDA "
      "toolkit");
  return "";
}

struct Assembly {
  bool succeeded = false;
  std::string log;
};

inline Assembly assemble(const std::string& ptxas, std::string_view text, std::string_view target) {
  std::string folder = (std::filesystem::temp_directory_path() / "sagejit-ptxas-XXXXXX").string();
  REQUIRE(mkdtemp(folder.data()));
  const std::filesystem::path path = folder;
  std::ofstream(path / "kernel.ptx") << text;
  const std::string command =
      fmt::format("{} -v -arch={} {}/kernel.ptx -o {}/kernel.cubin > {}/log 2>&1", ptxas, target,
                  folder, folder, folder);
  Assembly result{std::system(command.c_str()) == 0, {}};
  std::ostringstream log;
  log << std::ifstream(path / "log").rdbuf();
  result.log = log.str();
  std::filesystem::remove_all(path);
  return result;
}

}  // namespace sagejit
