// What a context compiles with: the compiler proper, or a stand-in of a test.
#pragma once

#include <memory>
#include <string>

#include "compiler/artifact.h"
#include "compiler/compile.h"
#include "runtime/toolchain/search.h"

namespace sagejit {

// Safe to use from several threads at once.
class Compiler {
 public:
  virtual ~Compiler() = default;
  // The text that determines the artifact; throws as cache_key_text() and LazyToolchain::get() do.
  virtual std::string key_text(const CompileRequest& request) = 0;
  virtual Artifact compile(const CompileRequest& request) = 0;
};

// compiler/compile.h with the NVRTC that the options lead to, loaded on first use.
std::unique_ptr<Compiler> make_nvrtc_compiler(ToolchainOptions options);

}  // namespace sagejit
