// An assembler turns PTX into machine code and says what that code costs.
//
// All of them are NVIDIA's ptxas in some guise: in NVRTC, as a program, in the driver. Their
// reports are read by the same code and judged the same (report.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/artifact.h"
#include "compiler/target/target.h"

namespace sagejit {

struct MachineCode {
  std::vector<uint8_t> cubin;              // an ELF; empty where the driver is to load the PTX
  std::vector<KernelResources> resources;  // of every entry
  std::string log;                         // the assembler's words, its warnings among them
};

// Immutable; safe to use from several threads at once.
class Assembler {
 public:
  virtual ~Assembler() = default;

  // Name and exact version, "ptxas 13.0.88". With the flags of a compilation for `target` it takes
  // part in cache keys.
  virtual std::string name() const = 0;
  virtual std::vector<std::string> flags(const Target& target) const = 0;

  // The newest PTX ISA version that it reads, 84: 8.4 (ptx_version.h).
  virtual int ptx_version() const = 0;

  // `ptx`: one module for that target. Throws Error{kToolchain} with the log if the assembler
  // refuses it or fails. Whether what it returns makes sense, check_machine_code() (report.h) says.
  virtual MachineCode assemble(std::string_view ptx, const Target& target) const = 0;
};

}  // namespace sagejit
