// How commands compile: the options of cache and toolchain, and where the time went.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/compile.h"
#include "runtime/context/context.h"

namespace sagejit::cli {

struct BuildOptions {
  std::string schedule;   // "": the default
  std::string cache_dir;  // "": as the environment says
  bool no_cache = false;
  ToolchainChoice toolchain;

  void add_to(CLI::App& command);
  static void add_schedule_to(CLI::App& command, std::string& schedule);
  void add_cache_to(CLI::App& command);      // all but --schedule
  void add_toolchain_to(CLI::App& command);  // back end, assembler and where they are
  // Pairs that are missing are the default schedule's. Throws Error{kArgument}.
  std::optional<Schedule> parsed_schedule(const Variant& variant, const Target& target) const;
};

// A stage of building a kernel, in milliseconds; 0 if it was not needed.
struct BuildStage {
  std::string_view key;  // in JSON
  std::string title;
  double ms = 0;
};

// In order; kernels that were compiled side by side follow their stage, without a key.
std::vector<BuildStage> stages_of(const BuildTimes& times);

std::string stage_table(const std::vector<BuildStage>& stages);

// A context whose compiler adds up its times in `times`, which must outlive it. Warnings go to
// stderr.
std::unique_ptr<Context> make_context(const BuildOptions& options, BuildTimes& times);

}  // namespace sagejit::cli
