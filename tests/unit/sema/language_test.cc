// specs/language.md is true: its examples resolve, its errors are the ones shown, its table is the
// code's.
#include <fmt/format.h>

#include <fstream>
#include <sstream>

#include "compiler/sema/keys.h"
#include "compiler/sema/print.h"
#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "tests/support/catch.h"

namespace sagejit {
namespace {

struct Block {
  std::string language;
  std::string text;
};

std::string language_page() {
  std::ifstream in(SAGEJIT_TEST_SPECS_DIR "/language.md", std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<Block> blocks_of(const std::string& page) {
  std::vector<Block> blocks;
  std::istringstream lines(page);
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("```")) {
      inside = !inside;
      if (inside) blocks.push_back({line.substr(3), ""});
    } else if (inside) {
      blocks.back().text += line + "\n";
    }
  }
  return blocks;
}

}  // namespace

TEST_CASE("every example of the language page resolves") {
  int num_examples = 0;
  for (const Block& block : blocks_of(language_page())) {
    if (block.language != "attn") continue;
    ++num_examples;
    INFO(block.text);
    CHECK_NOTHROW(resolve_variants("language.md", block.text));
  }
  CHECK(num_examples >= 5);
}

TEST_CASE("every wrong example is followed by the error it gives") {
  const std::vector<Block> blocks = blocks_of(language_page());
  int num_examples = 0;
  for (size_t i = 0; i + 1 < blocks.size(); ++i) {
    if (blocks[i].language != "attn-wrong") continue;
    ++num_examples;
    INFO(blocks[i].text);
    CHECK_THROWS_WITH(resolve_variants("my.attn", blocks[i].text),
                      blocks[i + 1].text.substr(0, blocks[i + 1].text.size() - 1));
  }
  CHECK(num_examples >= 2);
}

TEST_CASE("a canonical example is the canonical text of the example before it") {
  const std::vector<Block> blocks = blocks_of(language_page());
  int num_examples = 0;
  for (size_t i = 1; i < blocks.size(); ++i) {
    if (blocks[i].language != "attn-canonical") continue;
    ++num_examples;
    CHECK(print_variant(resolve_variants("x", blocks[i - 1].text).at(0)) == blocks[i].text);
  }
  CHECK(num_examples == 1);
}

TEST_CASE("the table of keys has the values and defaults of the code") {
  const std::string page = language_page();
  for (const Key& key : all_keys()) {
    const std::string row =
        fmt::format("\n| `{}` | {} | {} | ", key.name, key.values, key.otherwise);
    INFO(row);
    CHECK(page.find(row) != std::string::npos);
  }
}

}  // namespace sagejit
