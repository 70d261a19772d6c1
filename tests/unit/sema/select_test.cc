#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "tests/support/catch.h"

namespace sagejit {
namespace {

std::vector<Variant> file() {
  return resolve_variants("t",
                          "abstract base { head_dim in {64, 128}; mask in {none, window(3, 4)} }\n"
                          "sage1_b : base { q = int8 per block(128) }\n"
                          "sage1_t : base { q = int8 per token }\n"
                          "plain { head_dim = 72 }\n");
}

std::vector<std::string> select(std::string_view selector) {
  std::vector<std::string> names;
  for (const Variant& v : select_variants(file(), selector)) names.push_back(v.name);
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("an exact name selects one variant") {
  CHECK(select("plain") == Names{"plain"});
  CHECK(select("sage1_b[head_dim=64, mask=none]") == Names{"sage1_b[head_dim=64, mask=none]"});
}

TEST_CASE("a stem and values select instances") {
  CHECK(select("sage1_t").size() == 4);
  CHECK(select("sage1_t[mask=window(3,4)]") == Names{"sage1_t[head_dim=64, mask=window(3, 4)]",
                                                     "sage1_t[head_dim=128, mask=window(3, 4)]"});
  CHECK(select("sage1_b[ mask = none , head_dim=128]") ==
        Names{"sage1_b[head_dim=128, mask=none]"});
}

TEST_CASE("values select by any key, by meaning") {
  CHECK(select("head_dim=72") == Names{"plain"});
  CHECK(select("q=int8 per block, head_dim=64") ==
        Names{"sage1_b[head_dim=64, mask=none]", "sage1_b[head_dim=64, mask=window(3, 4)]"});
  CHECK(select("value_head_dim=head_dim").size() == 9);
  CHECK(select("scale=1/sqrt(head_dim)").size() == 9);
  CHECK(select("").size() == 9);
}

TEST_CASE("a selector that picks nothing lists the candidates") {
  CHECK_THROWS_WITH(select("sage1_c"),
                    "no variant matches `sage1_c`: did you mean `sage1_b`?; the candidates are\n"
                    "  sage1_b[head_dim=64, mask=none]\n"
                    "  sage1_b[head_dim=64, mask=window(3, 4)]\n"
                    "  sage1_b[head_dim=128, mask=none]\n"
                    "  sage1_b[head_dim=128, mask=window(3, 4)]\n"
                    "  sage1_t[head_dim=64, mask=none]\n"
                    "  sage1_t[head_dim=64, mask=window(3, 4)]\n"
                    "  sage1_t[head_dim=128, mask=none]\n"
                    "  sage1_t[head_dim=128, mask=window(3, 4)]\n"
                    "  plain");
  try {
    select("head_dim=96");
    FAIL("selected");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kArgument);
    CHECK(error.message().starts_with("no variant matches `head_dim=96`; the candidates are\n"));
  }
}

TEST_CASE("long lists of candidates are cut") {
  const auto many =
      resolve_variants("t",
                       "a { head_dim in {16, 24, 32, 40, 48, 56}\n"
                       "q in {int8 per token, int8 per head, int8 per tensor, int4} }");
  try {
    select_variants(many, "b");
    FAIL("selected");
  } catch (const Error& error) {
    CHECK(error.message().ends_with("\n  ... and 4 more"));
  }
}

TEST_CASE("wrong selectors are diagnosed") {
  CHECK_THROWS_WITH(select("head_dims=64"),
                    "<select>:1:1: error: `head_dims` is not a key\n"
                    "   1 | head_dims=64\n"
                    "     | ^^^^^^^^^\n"
                    "  note: did you mean `head_dim`?");
  CHECK_THROWS_WITH(select("mask=causal"), Catch::Matchers::StartsWith(
                                               "<select>:1:6: error: `causal` needs an alignment"));
  CHECK_THROWS_WITH(select("sage1_b[head_dim]"),
                    Catch::Matchers::StartsWith("<select>:1:9: error: expected `=` or `in`"));
  CHECK_THROWS_WITH(select("sage1_b[head_dim in {64}]"),
                    "filter `head_dim in {64}` is not of the form key=value, such as head_dim=64");
}

}  // namespace sagejit
