// What a context compiles with: the compiler proper, or a stand-in of a test.
#pragma once

#include <memory>
#include <string>

#include "compiler/artifact.h"
#include "compiler/compile.h"
#include "runtime/cache/entry.h"
#include "runtime/toolchain/search.h"

namespace sagejit {

// Safe to use from several threads at once.
class Compiler {
 public:
  virtual ~Compiler() = default;
  // What the artifact is cached under; with an empty `toolchain` where there is none. Throws
  // Error{kArgument} for a request without a target.
  virtual CacheKey key(const CompileRequest& request) = 0;
  // Throws as compiler/compile.h and LazyToolchain::get() do.
  virtual Artifact compile(const CompileRequest& request) = 0;
};

// compiler/compile.h with the NVRTC that the options lead to, loaded on first use.
std::unique_ptr<Compiler> make_nvrtc_compiler(ToolchainOptions options);

}  // namespace sagejit
