// What a context compiles with: the compiler proper, or a stand-in of a test.
#pragma once

#include <memory>
#include <string>

#include "compiler/artifact.h"
#include "compiler/compile.h"
#include "runtime/cache/entry.h"
#include "runtime/toolchain/lazy_toolchain.h"

namespace sagejit {

// Safe to use from several threads at once.
class Compiler {
 public:
  virtual ~Compiler() = default;
  // What the artifact is cached under; with an empty `toolchain` where there is none. Throws
  // Error{kArgument} for a request without a target.
  virtual CacheKey key(const CompileRequest& request) = 0;
  // Whether what any other toolchain has made is preferred to compiling: this one is merely what
  // is left where none was asked for and none was installed. False where there is none.
  virtual bool is_last_resort(const CompileRequest& request) = 0;
  // Throws as compiler/compile.h and LazyToolchain::get() do.
  virtual Artifact compile(const CompileRequest& request) = 0;
};

// What compiling took, added up.
struct BuildTimes {
  double load_toolchain_ms = 0;  // finding and loading its tools
  double key_ms = 0;             // the cache key
  CompileTimes compile;
};

// compiler/compile.h with the toolchain that the options lead to, found on first use. `times`, if
// given, outlives it, and lets one thread use it at a time.
std::unique_ptr<Compiler> make_jit_compiler(ToolchainOptions options, BuildTimes* times = nullptr);

}  // namespace sagejit
