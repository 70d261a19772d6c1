#include "compiler/support/stopwatch.h"
#include "runtime/context/compiler.h"

namespace sagejit {
namespace {

class JitCompiler final : public Compiler {
 public:
  JitCompiler(ToolchainOptions options, BuildTimes* times)
      : toolchain_(std::move(options)), times_(times) {}

  CacheKey key(const CompileRequest& request) override {
    Stopwatch watch;
    const Toolchain* toolchain = toolchain_.get_if_any(request.assemble, request.target);
    record(&BuildTimes::load_toolchain_ms, watch);
    CacheKey key = {request_key_text(request),
                    toolchain ? toolchain_key_text(request, *toolchain) : ""};
    record(&BuildTimes::key_ms, watch);
    return key;
  }

  bool is_last_resort(const CompileRequest& request) override {
    return toolchain_.get_if_any(request.assemble, request.target) &&
           toolchain_.is_last_resort(request.assemble, request.target);
  }

  Artifact compile(const CompileRequest& request) override {
    Stopwatch watch;
    const Toolchain& toolchain = toolchain_.get(request.assemble, request.target);
    record(&BuildTimes::load_toolchain_ms, watch);
    if (!times_) return sagejit::compile(request, toolchain);
    CompileTimes times;
    Artifact artifact = sagejit::compile(request, toolchain, &times);
    CompileTimes& sum = times_->compile;
    sum.generate_ms += times.generate_ms;
    sum.toolchain_ms += times.toolchain_ms;
    sum.kernels.insert(sum.kernels.end(), times.kernels.begin(), times.kernels.end());
    return artifact;
  }

 private:
  void record(double BuildTimes::*stage, Stopwatch& watch) {
    const double ms = watch.lap_ms();
    if (times_) times_->*stage += ms;
  }

  LazyToolchain toolchain_;
  BuildTimes* const times_;
};

}  // namespace

std::unique_ptr<Compiler> make_jit_compiler(ToolchainOptions options, BuildTimes* times) {
  return std::make_unique<JitCompiler>(std::move(options), times);
}

}  // namespace sagejit
