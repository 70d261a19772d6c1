// The back end that takes LLVM, and no compiler of NVIDIA's: kernel IR as LLVM IR (lower.h), which
// LLVM's NVPTX turns into PTX (emit_ptx.h). LLVM itself is in a shared object of its own,
// libsagejit_llvm.so, loaded on request; where it is found is the host program's business.
#pragma once

#include <memory>
#include <string>

#include "compiler/backend/backend.h"

namespace sagejit {

// A loaded libsagejit_llvm.so. Safe to use from several threads at once.
class LlvmPlugin {
 public:
  // Opens the library (a path, or a bare name the loader resolves). Throws Error{kToolchain} if it
  // cannot be opened, is something else, or belongs to another build of sagejit.
  static std::unique_ptr<LlvmPlugin> load(const std::string& library);
  ~LlvmPlugin();

  // "llvm 19.1.7": takes part in cache keys.
  const std::string& version() const;

  // Throws as Backend::to_ptx does, and Error{kUnsupported} for a target that this LLVM does not
  // know.
  std::string to_ptx(const ir::Function& kernel, const Target& target) const;

 private:
  struct Library;
  explicit LlvmPlugin(std::unique_ptr<Library> library);
  std::unique_ptr<Library> library_;
};

std::shared_ptr<const Backend> make_llvm_backend(std::shared_ptr<const LlvmPlugin> plugin);

}  // namespace sagejit
