#include "compiler/support/diagnostic.h"

#include "compiler/support/error.h"
#include "compiler/support/suggest.h"
#include "compiler/support/utf8.h"
#include "tests/support/catch.h"

namespace sagejit {
namespace {

Span span_of(const SourceFile& file, std::string_view text) {
  const auto at = static_cast<uint32_t>(file.text.find(text));
  return {&file, at, at + static_cast<uint32_t>(text.size())};
}

}  // namespace

TEST_CASE("a diagnostic shows the place, the line and a caret") {
  const SourceFile file{"sage1.attn", "# one\n  head_dim = 60\n"};
  Diagnostics diagnostics;
  diagnostics.error(span_of(file, "60"), "head_dim 60 is not a multiple of 8",
                    "the nearest that work are 56 and 64");
  CHECK_THROWS_WITH(diagnostics.throw_if_errors(),
                    "sage1.attn:2:14: error: head_dim 60 is not a multiple of 8\n"
                    "   2 |   head_dim = 60\n"
                    "     |              ^^\n"
                    "  note: the nearest that work are 56 and 64");
}

TEST_CASE("carets stand under their characters") {
  const SourceFile file{"t", "\t\xc3\xa9\xc3\xa9 x\x01y\xff z"};
  CHECK(render({Severity::kError, span_of(file, "x"), "m", {}}) ==
        "t:1:5: error: m\n"
        "   1 | \t\xc3\xa9\xc3\xa9 x?y? z\n"
        "     | \t   ^");
  CHECK(render({Severity::kWarning, span_of(file, "z"), "m", {}}) ==
        "t:1:10: warning: m\n"
        "   1 | \t\xc3\xa9\xc3\xa9 x?y? z\n"
        "     | \t        ^");
}

TEST_CASE("spans end with their line, and may lie at the end of the text") {
  const SourceFile file{"t", "ab\ncd"};
  CHECK(render({Severity::kError, {&file, 1, 5}, "m", {}}) ==
        "t:1:2: error: m\n   1 | ab\n     |  ^");
  CHECK(render({Severity::kError, {&file, 5, 5}, "m", {}}) ==
        "t:2:3: error: m\n   2 | cd\n     |   ^");
  const SourceFile empty{"t", ""};
  CHECK(render({Severity::kError, {&empty, 0, 0}, "m", {}}) == "t:1:1: error: m\n   1 |\n     | ^");
}

TEST_CASE("long lines are cut around the caret") {
  const SourceFile file{"t", std::string(500, 'a') + "X" + std::string(500, 'b')};
  CHECK(render({Severity::kError, span_of(file, "X"), "m", {}}) ==
        "t:1:501: error: m\n   1 | ..." + std::string(60, 'a') + "X" + std::string(59, 'b') +
            "...\n     |    " + std::string(60, ' ') + "^");
}

TEST_CASE("diagnostics come in the order of the text, each once, errors apart from warnings") {
  const SourceFile file{"t", "a b c"};
  Diagnostics diagnostics;
  CHECK_NOTHROW(diagnostics.throw_if_errors());
  diagnostics.error(span_of(file, "c"), "third");
  diagnostics.warning(span_of(file, "b"), "second");
  diagnostics.error(span_of(file, "a"), "first");
  diagnostics.error(span_of(file, "a"), "first");
  CHECK(diagnostics.num_errors() == 2);
  CHECK_THROWS_WITH(diagnostics.throw_if_errors(),
                    "t:1:1: error: first\n   1 | a b c\n     | ^\n"
                    "t:1:5: error: third\n   1 | a b c\n     |     ^");
  CHECK(diagnostics.warnings() ==
        std::vector<std::string>{"t:1:3: warning: second\n   1 | a b c\n     |   ^"});
}

TEST_CASE("suggestions are near or absent") {
  constexpr std::string_view kWords[] = {"head_dim", "smooth_k", "mask", "q"};
  CHECK(nearest_word("head_dm", kWords) == "head_dim");
  CHECK(nearest_word("HEAD_DIM", kWords) == "head_dim");
  CHECK(nearest_word("maks", kWords) == "mask");
  CHECK(nearest_word("smoothk", kWords) == "smooth_k");
  CHECK(nearest_word("flavour", kWords) == "");
  CHECK(nearest_word("x", kWords) == "");
  CHECK(nearest_word(std::string(100000, 'x'), kWords) == "");
  CHECK(did_you_mean("maks", kWords) == "did you mean `mask`?");
  CHECK(list_words(kWords) == "head_dim, smooth_k, mask or q");
}

TEST_CASE("UTF-8 is recognized as RFC 3629 has it") {
  CHECK(utf8_length("a") == 1);
  CHECK(utf8_length("\xc3\xa9") == 2);
  CHECK(utf8_length("\xe2\x88\x92") == 3);
  CHECK(utf8_length("\xf0\x9f\x98\x80") == 4);
  for (const char* bad : {"\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff",
                          "\xe2\x88"
                          "a"}) {
    CHECK(utf8_length(bad) == 0);
  }
}

}  // namespace sagejit
