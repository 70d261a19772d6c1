#include "compiler/sema/resolve.h"

#include "compiler/sema/print.h"
#include "compiler/support/error.h"
#include "tests/support/catch.h"

namespace sagejit {
namespace {

std::vector<std::string> names_of(const std::vector<Variant>& variants) {
  std::vector<std::string> names;
  for (const Variant& v : variants) names.push_back(v.name);
  return names;
}

using Names = std::vector<std::string>;

std::string error_of(std::string_view text, std::span<const Override> overrides = {}) {
  try {
    resolve_variants("t.attn", text, overrides);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kSpec);
    return error.message();
  }
  FAIL("resolved");
  return "";
}

}  // namespace

TEST_CASE("the default variant") {
  const Variant v = resolve_variants("t", "x { head_dim = 64 }").at(0);
  Variant expected;
  expected.name = "x";
  expected.head_dim = expected.value_head_dim = 64;
  expected.q = {DType::kS8, Granularity::kBlock, 128};
  expected.k = {DType::kS8, Granularity::kBlock, 64};
  CHECK(v == expected);
}

TEST_CASE("defaults follow what is given") {
  const auto first = [](std::string_view body) {
    return resolve_variants("t", "x { head_dim = 64; " + std::string(body) + " }").at(0);
  };
  CHECK(first("input = bf16").output == DType::kBF16);
  CHECK(first("input = bf16").p == ProbabilityOperand{DType::kBF16, 1.0, false});
  CHECK(first("input = bf16").v.type == DType::kBF16);
  CHECK(first("input = f32").v.type == DType::kF16);
  CHECK(first("input = f32").output == DType::kF32);
  CHECK(first("v = e4m3").p == ProbabilityOperand{DType::kE4M3, 448.0, false});
  CHECK(first("v = e4m3").v.granularity == Granularity::kChannel);
  CHECK(first("p = uint8").v.type == DType::kS8);
  CHECK(first("p = uint8").pv_accumulator == Accumulator{DType::kS32, DType::kF32, 64});
  CHECK(first("k = int4").q.type == DType::kS4);
  CHECK(first("q = e4m3").qk_accumulator == DType::kF32);
  CHECK(first("q = int8 per warp; k = int8 per thread").q.span == 32);
  CHECK(first("q = int8 per warp; k = int8 per thread").k.span == 64);
  CHECK(first("value_head_dim = head_dim").value_head_dim == 64);
  CHECK(first("p = e4m3; v = e4m3 range 448").v.range == 0.0);
}

TEST_CASE("heirs take over what they do not give") {
  const std::vector<Variant> v = resolve_variants("t",
                                                  "c : b { lse = on }\n"  // before its base
                                                  "a { head_dim = 64; mask = causal(top_left) }\n"
                                                  "b : a { mask = none; head_dim = 128 }\n");
  REQUIRE(names_of(v) == Names{"c", "a", "b"});
  CHECK(v[0].lse);
  CHECK(v[0].head_dim == 128);
  CHECK(v[0].value_head_dim == 128);  // the default follows the heir's head_dim
  CHECK(v[0].mask.kind == MaskKind::kNone);
  CHECK(v[1].mask.kind == MaskKind::kCausalTopLeft);
}

TEST_CASE("abstract variants are bases alone") {
  CHECK(names_of(resolve_variants("t", "abstract a { lse = on }\nb : a { head_dim = 64 }")) ==
        Names{"b"});
  CHECK(names_of(resolve_variants("t", "abstract { head_dim = 64 }")) == Names{"abstract"});
}

TEST_CASE("sweeps multiply, the last key fastest, the first values first") {
  CHECK(names_of(resolve_variants(
            "t", "a { head_dim in {64, 32}\n mask in {none, window(1, 2),}\n }")) ==
        Names{"a[head_dim=64, mask=none]", "a[head_dim=64, mask=window(1, 2)]",
              "a[head_dim=32, mask=none]", "a[head_dim=32, mask=window(1, 2)]"});
}

TEST_CASE("heirs replace sweeps in their place") {
  CHECK(names_of(resolve_variants("t",
                                  "abstract a { head_dim in {64, 32}; lse in {on, off} }\n"
                                  "b : a { head_dim = 16 }\n"
                                  "c : a { head_dim in {8, 24}; lse = on }\n",
                                  std::vector<Override>{{"head_dim", "{128, 256}"}})) ==
        Names{"b[head_dim=128, lse=on]", "b[head_dim=128, lse=off]", "b[head_dim=256, lse=on]",
              "b[head_dim=256, lse=off]", "c[head_dim=128]", "c[head_dim=256]"});
}

TEST_CASE("overrides beat every entry and follow defaults") {
  const std::vector<Override> overrides = {parse_override("head_dim=80"),
                                           parse_override(" mask = causal(top_left)")};
  const std::vector<Variant> v =
      resolve_variants("t", "a { head_dim in {64, 128}; mask = none }", overrides);
  REQUIRE(names_of(v) == Names{"a"});
  CHECK(v[0].value_head_dim == 80);
  CHECK(v[0].mask.kind == MaskKind::kCausalTopLeft);
}

TEST_CASE("an override cannot smuggle in other entries") {
  const std::vector<Override> overrides = {{"head_dim", "64\nlse = on"}};
  CHECK(error_of("a { head_dim = 64 }", overrides) ==
        "<set>:2:1: error: unexpected `lse`\n"
        "   2 | lse = on\n"
        "     | ^^^\n"
        "  note: one entry `key = value` is meant to stand here");
}

TEST_CASE("overrides have a form") {
  CHECK_THROWS_WITH(parse_override("head_dim"),
                    "override `head_dim` is not of the form key=value, such as head_dim=64");
  CHECK(error_of("a { head_dim = 64 }", std::vector<Override>{{"lse", "on"}, {"lse", "off"}}) ==
        "<set>:1:1: error: `lse` is given twice\n"
        "   1 | lse=off\n"
        "     | ^^^\n"
        "  note: each key can be overridden once");
}

TEST_CASE("warnings do not stop a file") {
  const Resolved resolved = resolve_file("t", "a { head_dim = 64 }\nb : a { lse = off }");
  CHECK(resolved.variants.size() == 2);
  REQUIRE(resolved.warnings.size() == 1);
  CHECK(resolved.warnings[0] ==
        "t:2:1: warning: `b` computes the same as `a`\n"
        "   2 | b : a { lse = off }\n"
        "     | ^");
}

TEST_CASE("positions count code points and lines of any ending") {
  CHECK(error_of("a {\r\n  head_dim = 64\r\n}\r\n# \xc3\xa9\r\n\"\xc3\xa9t\xc3\xa9\" x") ==
        "t.attn:5:7: error: expected `{` to open variant `\xc3\xa9t\xc3\xa9`, found `x`\n"
        "   5 | \"\xc3\xa9t\xc3\xa9\" x\n"
        "     |       ^\n"
        "  note: a variant is written name { key = value }");
}

TEST_CASE("a long list of errors is cut, not lost") {
  std::string text = "a {\n  head_dim = 64\n";
  for (int i = 0; i < 60; ++i) text += "  x" + std::to_string(i) + " = 1\n";
  const std::string message = error_of(text + "}\n");
  CHECK(message.ends_with("\n... and 10 more errors"));
}

TEST_CASE("inheritance has a depth limit") {
  std::string text = "v0 { head_dim = 64 }\n";
  for (int i = 1; i < 70; ++i) {
    text += "v" + std::to_string(i) + " : v" + std::to_string(i - 1) + " { lse = on }\n";
  }
  CHECK(error_of(text).find("`v64` inherits through more than 64 variants") != std::string::npos);
}

}  // namespace sagejit
