// ptxas of a CUDA toolkit, run as a program of its own for each kernel.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "compiler/backend/assemble/assembler.h"

namespace sagejit {

struct Ptxas {
  std::string program;  // a path
  std::string version;  // "13.0.88"
  // Of a private folder for each run, removed after it; what an interrupted process left is removed
  // by the next one an hour later.
  std::string temporary_dir = "/tmp";
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
};

// What `program --version` says, "13.0.88"; "" with the reason in `why_not` if that is no ptxas of
// CUDA 12 or newer.
std::string ptxas_version(const std::string& program, std::string& why_not);

// Its assemble() throws Error{kIo} if it cannot write to the temporary folder.
std::shared_ptr<const Assembler> make_ptxas_assembler(Ptxas ptxas);

}  // namespace sagejit
