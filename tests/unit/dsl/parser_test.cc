#include "compiler/dsl/parser.h"

#include "tests/support/catch.h"

namespace sagejit::dsl {
namespace {

// `name:base{key=a b|key in{a,b}}`, abstract variants with a leading ~.
std::string outline(const std::vector<VariantNode>& variants) {
  std::string text;
  for (const VariantNode& v : variants) {
    text += (v.is_abstract ? "~" : "") + v.name.text + (v.base ? ":" + v.base->text : "") + "{";
    for (const Entry& entry : v.entries) {
      if (text.back() != '{') text += "|";
      text += std::string(entry.key.text) + (entry.is_sweep ? " in" : "=");
      for (size_t i = 0; i < entry.values.size(); ++i) {
        if (i > 0) text += ",";
        for (const Token& token : entry.values[i].tokens) text += " " + std::string(token.text);
      }
    }
    text += "}";
  }
  return text;
}

std::string outline_of(std::string text, size_t num_errors = 0) {
  const SourceFile file{"t", std::move(text)};
  Diagnostics diagnostics;
  const std::string result = outline(parse_file(file, diagnostics));
  CHECK(diagnostics.num_errors() == num_errors);
  return result;
}

}  // namespace

TEST_CASE("variants and entries") {
  CHECK(outline_of("") == "");
  CHECK(outline_of("a {}") == "a{}");
  CHECK(outline_of("a { x = 1; y = b c(2, 3)\n z in {1, 2,\n 3,} }") ==
        "a{x= 1|y= b c ( 2 , 3 )|z in 1, 2, 3}");
  CHECK(outline_of("abstract a { x = 1 }\nb : a { }\n\"c d\" : \"b\"\n{ }") ==
        "~a{x= 1}b:a{}c d:b{}");
  CHECK(outline_of("a { x = (1 +\n 2) * 3\n y = 4 }") == "a{x= ( 1 + 2 ) * 3|y= 4}");
  CHECK(outline_of("a { in = 1; abstract = 2 }") == "a{in= 1|abstract= 2}");
}

TEST_CASE("the parser goes on after an error") {
  CHECK(outline_of("a { x = ; y = 2 }", 1) == "a{x=|y= 2}");
  CHECK(outline_of("a { x = (1\n y = 2 }", 1) == "a{x=|y= 2}");
  CHECK(outline_of("a { x = 1\nb { y = 2 }", 1) == "a{x= 1}b{y= 2}");
  CHECK(outline_of("a { x 1\n y = 2 }", 1) == "a{x=|y= 2}");
  CHECK(outline_of("a { ) = 1\n y = 2 }", 1) == "a{y= 2}");
  CHECK(outline_of("a\n x = 1\n}\nb { }", 1) == "a{x= 1}b{}");
  CHECK(outline_of("= 1 2 3\n= 4\na { }", 1) == "a{}");
  CHECK(outline_of("a { x = 64k; y = 2 }", 1) == "a{x=|y= 2}");
}

TEST_CASE("a single entry") {
  Diagnostics diagnostics;
  const SourceFile one{"t", "x = 1"}, two{"t", "x = 1; y = 2"}, none{"t", "  "};
  CHECK(parse_single_entry(one, diagnostics)->key.text == "x");
  CHECK_FALSE(parse_single_entry(none, diagnostics));
  CHECK(diagnostics.num_errors() == 0);
  CHECK_FALSE(parse_single_entry(two, diagnostics));
  CHECK(diagnostics.num_errors() == 1);
}

TEST_CASE("names are quoted where they are no words") {
  CHECK(quote_name("sage1_b") == "sage1_b");
  CHECK(quote_name("1a") == "\"1a\"");
  CHECK(quote_name("a[b=1]") == "\"a[b=1]\"");
  CHECK(quote_name("a\"\\\n") == "\"a\\\"\\\\?\"");
  CHECK(quote_name("abstract") == "\"abstract\"");
}

}  // namespace sagejit::dsl
