#include "tests/support/catch.h"
#include "tests/unit/cli/runner.h"

namespace sagejit::cli_test {
namespace {

TEST_CASE("help is complete and goes to standard output") {
  const char* const commands[] = {"",         "check",     "explain", "compile", "run",
                                  "accuracy", "calibrate", "bench",   "doctor"};
  for (const std::string command : commands) {
    const Outcome outcome = sagejit(command + " --help");
    CHECK(outcome.exit_code == 0);
    CHECK(outcome.err.empty());
    check_golden(command.empty() ? "help.txt" : "help_" + command + ".txt", outcome.out);
  }
}

TEST_CASE("the version is one line") {
  const Outcome outcome = sagejit("--version");
  CHECK(outcome.exit_code == 0);
  CHECK_THAT(outcome.out, Catch::StartsWith("sagejit 0.") && Catch::EndsWith("\n"));
}

TEST_CASE("bad command lines are user errors that point to the help") {
  struct Case {
    std::string arguments, message;
  };
  const Case cases[] = {
      {"", "A command is required"},
      {"frobnicate", "The following argument was not expected: frobnicate"},
      {"check", "FILE is required"},
      {"explain x.attn", "--target is required"},
      {"calibrate --fast a --careful b", "--input is required"},
      {"calibrate --fast a --careful b --input c --threshold 2",
       "--threshold: Value 2 not in range"},
      {"compile x.attn", "--target is required"},
      {"run x.attn --repeat 0", "--repeat: Value 0 not in range 1 to 100000"},
      {"run x.attn --input a --shape b=1", "--input excludes --shape"},
      {"run x.attn --layout nhwc", "--layout: "},
      {"bench x.attn --rounds 0", "--rounds: Value 0 not in range 1 to 1000"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.arguments);
    const Outcome outcome = sagejit(c.arguments);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.out.empty());
    CHECK_THAT(outcome.err,
               Catch::StartsWith("sagejit: error: ") && Catch::Contains(c.message) &&
                   Catch::EndsWith("Run 'sagejit --help' or 'sagejit COMMAND --help'.\n"));
  }
}

}  // namespace
}  // namespace sagejit::cli_test
