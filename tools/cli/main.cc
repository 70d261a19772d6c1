// sagejit, the command line.
#include <cstdio>

#include "tools/cli/commands.h"

namespace sagejit::cli {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  sagejit check specs/variants/*.attn\n"
    "  sagejit run specs/variants/sage1_b.attn --device emulator --shape b=1,hq=2,m=100\n"
    "  sagejit compile specs/variants/sage1_b.attn --target sm_80 --emit ptx -o kernel.ptx\n"
    "\n"
    "Exit codes: 0 success, 1 user error, 2 unsupported, 3 environment, 4 internal error,\n"
    "5 the output of `run` misses an accuracy bar.";

int run_command_line(int argc, char** argv) {
  CLI::App app("sagejit: quantized attention kernels, compiled from a one-page description",
               "sagejit");
  app.set_version_flag("--version", "sagejit " SAGEJIT_RELEASE);
  app.require_subcommand(0, 1);
  app.get_formatter()->column_width(34);
  app.footer(kFooter);
  ExitCode result = kSuccess;
  add_check(app, result);
  add_explain(app, result);
  add_compile(app, result);
  add_run(app, result);
  add_accuracy(app, result);
  add_calibrate(app, result);
  add_bench(app, result);
  add_doctor(app, result);
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) throw CLI::RequiredError("A command");
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    fmt::print(stderr, "sagejit: error: {}\nRun 'sagejit --help' or 'sagejit COMMAND --help'.\n",
               error.what());
    return kUserError;
  } catch (...) {
    return report_current_exception();
  }
  // A full disk or a closed pipe must not look like success.
  if (std::fflush(stdout) != 0) {
    return report_error(Error(ErrorKind::kIo, "cannot write to standard output"));
  }
  return result;
}

}  // namespace
}  // namespace sagejit::cli

int main(int argc, char** argv) {
  try {
    return sagejit::cli::run_command_line(argc, argv);
  } catch (...) {  // reporting the failure failed
    std::fputs("sagejit: error: out of memory or of places to write to\n", stderr);
    return sagejit::cli::kInternal;
  }
}
