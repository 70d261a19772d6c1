// A back end turns a kernel of the IR into PTX.
//
// All back ends give the same meaning, and bit-identical results on the same device: operations are
// rounded as the IR says, nothing is contracted, nothing approximated that the IR does not.
#pragma once

#include <string>
#include <vector>

#include "compiler/ir/ir.h"
#include "compiler/target/target.h"

namespace sagejit {

// Immutable; safe to use from several threads at once.
class Backend {
 public:
  virtual ~Backend() = default;

  // Name and, where it is not this compiler's own, exact version: "cuda nvrtc 13.0". With the flags
  // of a compilation for `target` it takes part in cache keys.
  virtual std::string name() const = 0;
  virtual std::vector<std::string> flags(const Target& target) const = 0;

  // One module with the kernel as its only entry. Throws Error{kToolchain} with the tool's log if
  // it refuses, Error{kInternal} for a kernel that cannot be printed.
  virtual std::string to_ptx(const ir::Function& kernel, const Target& target) const = 0;
};

}  // namespace sagejit
