// The subcommands: each registers its options with the parser and leaves its exit code behind.
#pragma once

#include <CLI/CLI.hpp>

#include "tools/cli/exit_code.h"

namespace sagejit::cli {

void add_check(CLI::App& app, ExitCode& result);
void add_explain(CLI::App& app, ExitCode& result);
void add_compile(CLI::App& app, ExitCode& result);
void add_run(CLI::App& app, ExitCode& result);
void add_accuracy(CLI::App& app, ExitCode& result);
void add_calibrate(CLI::App& app, ExitCode& result);
void add_bench(CLI::App& app, ExitCode& result);
void add_doctor(CLI::App& app, ExitCode& result);

}  // namespace sagejit::cli
