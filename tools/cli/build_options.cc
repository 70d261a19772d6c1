#include "tools/cli/build_options.h"

#include <fmt/format.h>

#include <cstdio>

#include "runtime/toolchain/search.h"
#include "tools/cli/stopwatch.h"

namespace sagejit::cli {
namespace {

class TimedCompiler final : public Compiler {
 public:
  TimedCompiler(ToolchainOptions options, BuildTimes& times)
      : toolchain_(std::move(options)), times_(times) {}

  CacheKey key(const CompileRequest& request) override {
    Stopwatch watch;
    const Toolchain* toolchain = toolchain_.get_if_any();
    times_.load_toolchain_ms += watch.elapsed_ms();
    watch = Stopwatch();
    CacheKey key = {request_key_text(request),
                    toolchain ? toolchain_key_text(request, *toolchain) : ""};
    times_.key_ms += watch.elapsed_ms();
    return key;
  }

  Artifact compile(const CompileRequest& request) override {
    const Stopwatch watch;
    Toolchain& toolchain = toolchain_.get();
    times_.load_toolchain_ms += watch.elapsed_ms();
    CompileTimes times;
    Artifact artifact = sagejit::compile(request, toolchain, &times);
    times_.compile.generate_ms += times.generate_ms;
    times_.compile.print_ms += times.print_ms;
    times_.compile.toolchain_ms += times.toolchain_ms;
    times_.compile.kernels.insert(times_.compile.kernels.end(), times.kernels.begin(),
                                  times.kernels.end());
    return artifact;
  }

 private:
  LazyToolchain toolchain_;
  BuildTimes& times_;
};

}  // namespace

void BuildOptions::add_to(CLI::App& command) {
  command
      .add_option("--schedule", schedule,
                  "How to compute it, e.g. 'block_m=128 block_n=64'; see `report`")
      ->type_name("LINE");
  add_cache_to(command);
}

void BuildOptions::add_cache_to(CLI::App& command) {
  command.add_option("--cache-dir", cache_dir, "Kernel cache to use")->type_name("DIR");
  command.add_flag("--no-cache", no_cache, "Compile afresh and store nothing");
  command.add_option("--nvrtc", nvrtc, "NVRTC library to use")->type_name("PATH");
}

std::optional<Schedule> BuildOptions::parsed_schedule(const Variant& variant,
                                                      const Target& target) const {
  if (schedule.empty()) return std::nullopt;
  return parse_schedule(schedule, default_schedule(variant, target));
}

std::unique_ptr<Context> make_context(const BuildOptions& options, BuildTimes& times) {
  const Environment environment = Environment::read();
  ContextOptions context;
  context.disk_cache = !options.no_cache;
  context.cache_dir = options.cache_dir;
  context.nvrtc = options.nvrtc;
  context.log = Log([](LogLevel level, const std::string& message) {
    if (level == LogLevel::kWarning) fmt::print(stderr, "sagejit: warning: {}\n", message);
  });
  auto compiler =
      std::make_unique<TimedCompiler>(ToolchainOptions::from(environment, options.nvrtc), times);
  return std::make_unique<Context>(context, environment, std::move(compiler));
}

}  // namespace sagejit::cli
