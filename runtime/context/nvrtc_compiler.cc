#include "runtime/context/compiler.h"

namespace sagejit {
namespace {

class NvrtcCompiler final : public Compiler {
 public:
  explicit NvrtcCompiler(ToolchainOptions options) : toolchain_(std::move(options)) {}

  CacheKey key(const CompileRequest& request) override {
    const Toolchain* toolchain = toolchain_.get_if_any();
    return {request_key_text(request), toolchain ? toolchain_key_text(request, *toolchain) : ""};
  }
  Artifact compile(const CompileRequest& request) override {
    return sagejit::compile(request, toolchain_.get());
  }

 private:
  LazyToolchain toolchain_;
};

}  // namespace

std::unique_ptr<Compiler> make_nvrtc_compiler(ToolchainOptions options) {
  return std::make_unique<NvrtcCompiler>(std::move(options));
}

}  // namespace sagejit
