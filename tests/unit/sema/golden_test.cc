// tests/golden/{canonical,diagnostics}: `x.attn` beside what it prints, `x.expected`.
// SAGEJIT_BLESS=1 rewrites the expected files; read the difference before keeping it.
//
// Comments at the top of an input steer it:
//   # set: key=value      an override
//   # target: sm_80       checks what resolves against that target's limits
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "compiler/sema/check.h"
#include "compiler/sema/print.h"
#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "compiler/target/target.h"
#include "tests/support/catch.h"

namespace sagejit {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Directives {
  std::vector<Override> overrides;
  std::string target;
};

Directives read_directives(const std::string& text) {
  Directives directives;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# set: ")) {
      const size_t equals = std::min(line.find('='), line.size());
      directives.overrides.push_back(
          {line.substr(7, equals - 7), equals == line.size() ? "" : line.substr(equals + 1)});
    }
    if (line.starts_with("# target: ")) directives.target = line.substr(10);
  }
  return directives;
}

// What a user sees: warnings and canonical texts, or the error.
std::string run(const fs::path& input) {
  const std::string text = read_file(input);
  const Directives directives = read_directives(text);
  std::string output;
  try {
    const Resolved resolved = resolve_file(input.filename().string(), text, directives.overrides);
    for (const std::string& warning : resolved.warnings) output += warning + "\n";
    for (const Variant& v : resolved.variants) {
      if (!directives.target.empty()) check_supported(v, find_target(directives.target));
      output += print_variant(v);
    }
  } catch (const Error& error) {
    output += error.kind() == ErrorKind::kSpec ? "" : "unsupported: ";
    output += error.message() + "\n";
  }
  return output;
}

size_t compare_folder(const std::string& name) {
  const bool bless = std::getenv("SAGEJIT_BLESS") != nullptr;
  size_t num_inputs = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(SAGEJIT_TEST_GOLDEN_DIR) / name)) {
    if (entry.path().extension() != ".attn") continue;
    ++num_inputs;
    const fs::path expected = fs::path(entry.path()).replace_extension(".expected");
    const std::string output = run(entry.path());
    if (bless) std::ofstream(expected, std::ios::binary) << output;
    INFO(entry.path().string());
    REQUIRE(fs::exists(expected));
    CHECK(output == read_file(expected));
  }
  return num_inputs;
}

}  // namespace

TEST_CASE("wrong variant files are explained") {
  CHECK(compare_folder("diagnostics") >= 30);
}

TEST_CASE("every file of the diagnostics folder is wrong") {
  for (const auto& entry :
       fs::directory_iterator(fs::path(SAGEJIT_TEST_GOLDEN_DIR) / "diagnostics")) {
    if (entry.path().extension() != ".attn") continue;
    INFO(entry.path().string());
    const std::string output = run(entry.path());
    const bool is_error = output.find(": error: ") != std::string::npos;
    CHECK((is_error || output.starts_with("unsupported: ")));
  }
}

TEST_CASE("canonical texts are as expected and resolve to themselves") {
  CHECK(compare_folder("canonical") >= 5);
  for (const auto& entry :
       fs::directory_iterator(fs::path(SAGEJIT_TEST_GOLDEN_DIR) / "canonical")) {
    if (entry.path().extension() != ".attn") continue;
    INFO(entry.path().string());
    const std::string text = read_file(entry.path());
    for (const Variant& v : resolve_variants("x", text, read_directives(text).overrides)) {
      const std::string printed = print_variant(v);
      const std::vector<Variant> again = resolve_variants("printed", printed);
      REQUIRE(again.size() == 1);
      CHECK(again[0] == v);
      CHECK(print_variant(again[0]) == printed);
    }
  }
}

}  // namespace sagejit
