#include "tests/support/catch.h"
#include "tests/unit/cli/runner.h"

namespace sagejit::cli_test {
namespace {

constexpr const char* kGood =
    "tiny {\n"
    "  head_dim in {64, 128}\n"
    "  q = int8 per block(128)\n"
    "  k = int8 per block(64)\n"
    "  smooth_k = mean\n"
    "  p = f16\n"
    "  v = f16\n"
    "}\n";

TEST_CASE("check lists what a file holds") {
  const std::string file = file_with("good.attn", kGood);
  const Outcome outcome = sagejit("check --list " + file);
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.out == file + ": 2 variants, valid\n  tiny[head_dim=64]\n  tiny[head_dim=128]\n");
  CHECK(outcome.err.empty());
}

TEST_CASE("every variant that ships is valid") {
  const Outcome outcome = sagejit("check " + variant_file("*.attn").insert(0, "$(ls ") + ")");
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.err.empty());
}

TEST_CASE("--print gives text that check reads back") {
  const std::string file = file_with("good.attn", kGood);
  const Outcome printed = sagejit("check --print " + file);
  REQUIRE(printed.exit_code == 0);
  const Outcome again = sagejit("check --print " + file_with("printed.attn", printed.out));
  CHECK(again.exit_code == 0);
  CHECK(again.out == printed.out);
}

TEST_CASE("standard input is read as -") {
  const std::string file = file_with("good.attn", kGood);
  CHECK(sagejit("check - <" + file).out == "<stdin>: 2 variants, valid\n");
}

TEST_CASE("a bad text is shown with its place, and other files are still checked") {
  const std::string good = file_with("good.attn", kGood);
  const std::string bad = file_with("bad.attn", "tiny {\n  head_dim = 60\n}\n");
  const Outcome outcome = sagejit("check " + bad + " " + good);
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::StartsWith(bad + ":2:14: error: ") &&
                              Catch::EndsWith("sagejit: error: the variant text cannot be used\n"));
  CHECK(outcome.out == good + ": 2 variants, valid\n");
}

TEST_CASE("an unsupported variant is exit code 2, with what would work") {
  const Outcome outcome = sagejit(
      "check --target sm_80 --set q=e4m3 --set k=e4m3 --set qk_accumulator=f32 --set head_dim=64 " +
      file_with("good.attn", kGood));
  CHECK(outcome.exit_code == 2);
  CHECK_THAT(outcome.err,
             Catch::StartsWith("sagejit: error: ") && Catch::Contains("q must be int8 or int4"));
  CHECK_THAT(outcome.out, Catch::EndsWith(": 1 variant, 0 supported on sm_80\n"));
}

TEST_CASE("e4m3 products in one level of f32 are warned about where the target is known") {
  const std::string sweep = file_with("eight.attn",
                                      "eight {\n  head_dim in {64, 128}\n  p = e4m3\n  v = e4m3\n"
                                      "  pv_accumulator in {f32, f32 + f32 every 64}\n}\n");
  Outcome outcome = sagejit("check --target sm_90a " + sweep);
  CHECK(outcome.exit_code == 0);
  CHECK_THAT(
      outcome.err,
      Catch::StartsWith("sagejit: warning: eight[head_dim=64, pv_accumulator=f32] and 1 "
                        "more: ") &&
          Catch::EndsWith("\n  note: write smooth_v = mean, or pv_accumulator = f32 + f32 every 64 "
                          "for a value_head_dim up to 176\n"));
  CHECK(sagejit("check " + sweep).err.empty());
  CHECK(sagejit("check --target sm_90a --set 'pv_accumulator=f32 + f32 every 32' " + sweep)
            .err.empty());
  CHECK(sagejit("check --target sm_90a --set p=f16 --set v=f16 " + sweep).err.empty());
  CHECK(sagejit("check --target sm_90a --set smooth_v=mean " + sweep).err.empty());
}

TEST_CASE("missing files, bad overrides, targets and selectors are user errors or limits") {
  const std::string file = file_with("good.attn", kGood);
  Outcome outcome = sagejit("check /nonexistent.attn");
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err ==
        "sagejit: error: cannot open /nonexistent.attn: No such file or directory\n");
  outcome = sagejit("check /tmp");
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err == "sagejit: error: cannot read /tmp: it is a directory\n");
  CHECK(sagejit("check --set head_dim " + file).exit_code == 1);
  CHECK(sagejit("check --select nothing " + file).exit_code == 1);
  outcome = sagejit("check --target sm_30 " + file);
  CHECK(outcome.exit_code == 2);
  CHECK_THAT(outcome.err, Catch::Contains("sm_80"));
}

TEST_CASE("compile takes the first value of every sweep, and says so") {
  const Outcome outcome =
      sagejit("compile --target sm_80 --emit ir " + file_with("good.attn", kGood));
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.err ==
        "sagejit: note: 2 variants are selected and tiny[head_dim=64] is taken; choose with "
        "--select or "
        "--set, see `sagejit check --list`\n");
}

TEST_CASE("a full disk is not success") {
  const std::string file = file_with("good.attn", kGood);
  const Outcome outcome = sagejit("check " + file + " 2>/dev/null >/dev/full; exit $?");
  CHECK(outcome.exit_code == 1);
}

}  // namespace
}  // namespace sagejit::cli_test
