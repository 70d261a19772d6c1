// How commands compile: the cache and NVRTC options, and a compiler that keeps the time.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "compiler/compile.h"
#include "runtime/context/context.h"

namespace sagejit::cli {

struct BuildOptions {
  std::string schedule;   // "": the default
  std::string cache_dir;  // "": as the environment says
  std::string nvrtc;
  bool no_cache = false;

  void add_to(CLI::App& command);
  void add_cache_to(CLI::App& command);  // all but --schedule
  // Pairs that are missing are the default schedule's. Throws Error{kArgument}.
  std::optional<Schedule> parsed_schedule(const Variant& variant, const Target& target) const;
};

// Milliseconds; stages that were not needed are 0.
struct BuildTimes {
  double load_toolchain_ms = 0;  // finding and loading NVRTC
  double key_ms = 0;             // the cache key
  CompileTimes compile;
};

// A context whose compiler adds up its times in `times`, which must outlive it. Warnings go to
// stderr.
std::unique_ptr<Context> make_context(const BuildOptions& options, BuildTimes& times);

}  // namespace sagejit::cli
