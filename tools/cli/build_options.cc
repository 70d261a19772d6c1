#include "tools/cli/build_options.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <map>

#include "tools/cli/one_of.h"
#include "tools/cli/table.h"

namespace sagejit::cli {
namespace {

// Spelled as on the command line.
template <typename Choice, size_t kCount>
std::map<std::string, Choice> choices(const std::array<std::string_view, kCount>& names) {
  std::map<std::string, Choice> result;
  for (size_t i = 0; i < kCount; ++i) result[std::string(names[i])] = static_cast<Choice>(i);
  return result;
}

}  // namespace

void BuildOptions::add_schedule_to(CLI::App& command, std::string& schedule) {
  command
      .add_option("--schedule", schedule,
                  "How to compute it, e.g. 'block_m=128 block_n=64'; see `compile --emit report`")
      ->type_name("LINE");
}

void BuildOptions::add_to(CLI::App& command) {
  add_schedule_to(command, schedule);
  add_cache_to(command);
}

void BuildOptions::add_cache_to(CLI::App& command) {
  command.add_option("--cache-dir", cache_dir, "Kernel cache to use")->type_name("DIR");
  command.add_flag("--no-cache", no_cache, "Compile afresh and store nothing");
  add_toolchain_to(command);
}

void BuildOptions::add_toolchain_to(CLI::App& command) {
  command
      .add_option(
          "--backend", toolchain.backend,
          "What makes PTX: ptx (built in), llvm, cuda (CUDA C++ and NVRTC) or auto (default)")
      ->transform(one_of(choices<BackendChoice>(kBackendNames)))
      ->type_name("NAME");
  command
      .add_option("--assembler", toolchain.assembler,
                  "What makes machine code of it: ptxas, nvrtc, driver or auto (default)")
      ->transform(one_of(choices<AssemblerChoice>(kAssemblerNames)))
      ->type_name("NAME");
  command.add_option("--nvrtc", toolchain.nvrtc, "NVRTC library to use")->type_name("PATH");
  command.add_option("--ptxas", toolchain.ptxas, "ptxas to use")->type_name("PATH");
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
  context.toolchain = options.toolchain;
  context.log = Log([](LogLevel level, const std::string& message) {
    if (level == LogLevel::kWarning) fmt::print(stderr, "sagejit: warning: {}\n", message);
  });
  return std::make_unique<Context>(
      context, environment,
      make_jit_compiler(ToolchainOptions::from(environment, options.toolchain), &times));
}

std::vector<BuildStage> stages_of(const BuildTimes& times) {
  std::vector<BuildStage> stages = {{"load_toolchain", "find toolchain", times.load_toolchain_ms},
                                    {"key", "cache key", times.key_ms},
                                    {"generate", "generate", times.compile.generate_ms},
                                    {"toolchain", "PTX, assemble", times.compile.toolchain_ms}};
  for (const KernelTime& kernel : times.compile.kernels) {
    stages.push_back({"", fmt::format("  {}: PTX", kernel.kernel), kernel.backend_ms});
    if (kernel.assemble_ms == 0) continue;
    stages.push_back({"", fmt::format("  {}: assemble", kernel.kernel), kernel.assemble_ms});
  }
  return stages;
}

std::string stage_table(const std::vector<BuildStage>& stages) {
  Table table({"stage", ">ms"});
  for (const BuildStage& stage : stages) {
    table.add({stage.title, fmt::format("{:.3f}", stage.ms)});
  }
  return table.text("  ");
}

}  // namespace sagejit::cli
