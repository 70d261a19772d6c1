// Toolchain: a back end and, where machine code is wanted, an assembler behind it.
#pragma once

#include <memory>
#include <string>

#include "compiler/backend/assemble/assembler.h"
#include "compiler/backend/backend.h"
#include "compiler/backend/cuda/nvrtc.h"

namespace sagejit {

// The code of one kernel and the milliseconds that its stages took.
struct KernelCode {
  std::string ptx;
  MachineCode machine_code;  // empty where PTX alone was asked for
  double backend_ms = 0;
  double assemble_ms = 0;
};

// Immutable; safe to use from several threads at once.
class Toolchain {
 public:
  virtual ~Toolchain() = default;

  // Backend::name() and Assembler::name(); "" for the latter if it makes PTX alone.
  virtual std::string backend() const = 0;
  virtual std::string assembler() const = 0;

  // Names and flags of all that takes part in a compilation, a line each.
  virtual std::string key_text(const Target& target, bool assemble) const = 0;

  // Throws as Backend::to_ptx and Assembler::assemble do, and Error{kArgument} if machine code is
  // asked of a toolchain without an assembler.
  virtual KernelCode compile(const ir::Function& kernel, const Target& target,
                             bool assemble) const = 0;
};

// One after the other. `assembler` may be null.
std::unique_ptr<Toolchain> make_toolchain(std::shared_ptr<const Backend> backend,
                                          std::shared_ptr<const Assembler> assembler);

// CUDA C++ to PTX and machine code by one call of NVRTC: the kernel's front end and its assembler
// run once, where by way of PTX a second front end would carry it to the assembler.
std::unique_ptr<Toolchain> make_nvrtc_toolchain(std::shared_ptr<const Nvrtc> nvrtc);

}  // namespace sagejit
