// Whatever the bytes, reading a variant file ends in variants or in an Error{kSpec}: it neither
// crashes, nor hangs, nor throws anything else. Meant to be run under the sanitizers too.
#include <random>
#include <string>

#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "tests/support/catch.h"

namespace sagejit {
namespace {

using Rng = std::mt19937;

// The message, or an empty text where the file is right.
std::string outcome(const std::string& text) {
  try {
    resolve_variants("fuzz", text);
    return "";
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kSpec);
    CHECK(error.message().find("fuzz:") == 0);
    CHECK(error.message().size() < 100000);
    return error.message();
  }
}

constexpr std::string_view kSample =
    "# comment\n"
    "abstract base { head_dim in {64, 128}; q = int8 per block(128) }\n"
    "a : base {\n"
    "  mask = k <= q and (q - k < 256 or k // 64 == 0)\n"
    "  p = e4m3 range 448 direct; v = e4m3 per channel range 2.25; row_sum = quantized\n"
    "  pv_accumulator = f16 + f32 every 64\n"
    "  score = select(k < 4, max(s, -1e-3), -s * .5)\n"
    "}\n"
    "\"b\" { head_dim = 64; scale = 1/sqrt(head_dim); structure = paged(64) }\n";

constexpr std::string_view kPieces[] = {
    "{",    "}",     "(",    ")",      "[",    "]",        ",",     ";",   ":",     "=",
    "in",   "\n",    "#",    "\"",     "//",   "<=",       "-",     "+",   "a",     "base",
    "mask", "score", "q",    "k",      "int8", "head_dim", "64",    "1e9", "block", "per",
    "none", "not",   "and",  "window", "fp4",  "abstract", "e4m3",  "v",   "p",     "0",
    "\xff", "\xe2",  "\x00", " ",      "min",  "select",   "every", "f16", "f32",   "scale"};

}  // namespace

TEST_CASE("random bytes") {
  Rng rng(1);
  for (int i = 0; i < 2000; ++i) {
    std::string text(rng() % 200, '\0');
    for (char& c : text) c = static_cast<char>(rng());
    outcome(text);
  }
}

TEST_CASE("random pieces of the language") {
  Rng rng(2);
  for (int i = 0; i < 5000; ++i) {
    std::string text;
    for (int j = static_cast<int>(rng() % 60); j > 0; --j) {
      text += kPieces[rng() % std::size(kPieces)];
      if (rng() % 2) text += ' ';
    }
    outcome(text);
  }
}

TEST_CASE("slips in a right file") {
  REQUIRE(outcome(std::string(kSample)).empty());
  Rng rng(3);
  int num_wrong = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string text(kSample);
    for (int j = static_cast<int>(1 + rng() % 3); j > 0; --j) {
      if (text.empty()) text = "{";
      const size_t at = rng() % text.size();
      switch (rng() % 4) {
        case 0:
          text.erase(at, 1 + rng() % 5);
          break;
        case 1:
          text.insert(at, kPieces[rng() % std::size(kPieces)]);
          break;
        case 2:
          text[at] = static_cast<char>(rng() % 128);
          break;
        case 3:
          text.resize(std::max<size_t>(at, 1));
          break;
      }
    }
    num_wrong += !outcome(text).empty();
  }
  CHECK(num_wrong > 2500);
}

TEST_CASE("every prefix of a right file") {
  for (size_t length = 0; length < kSample.size(); ++length) {
    outcome(std::string(kSample.substr(0, length)));
  }
}

TEST_CASE("large and monotonous files end soon") {
  constexpr size_t kBytes = 1 << 20;
  for (const std::string unit : {"(",
                                 "{",
                                 "}",
                                 "a{",
                                 "a{}\n",
                                 "a:a{}\n",
                                 "\"",
                                 "x=",
                                 "=",
                                 "a{x=(",
                                 "a{head_dim in {",
                                 "#",
                                 "-",
                                 "not ",
                                 "\n",
                                 "\xff",
                                 "@",
                                 "1",
                                 "e",
                                 "a{head_dim=64}",
                                 "a{v=(((("}) {
    std::string text;
    while (text.size() + unit.size() <= kBytes) text += unit;
    INFO(unit);
    CHECK_FALSE(outcome(text).empty());
  }
  CHECK(outcome(std::string(kBytes + 1, ' ')).find("more than the 1048576") != std::string::npos);
}

TEST_CASE("long chains of inheritance and huge sweeps end soon") {
  std::string chain = "v0 { head_dim = 64 }\n", ring;
  for (int i = 1; i < 20000; ++i) {
    chain += "v" + std::to_string(i) + ":v" + std::to_string(i - 1) + "{}\n";
    ring += "r" + std::to_string(i) + ":r" + std::to_string(i % 19999 + 1) + "{}\n";
  }
  CHECK_FALSE(outcome(chain).empty());
  CHECK_FALSE(outcome(ring).empty());
  std::string sweep = "a { head_dim in {16";
  for (int i = 17; i < 100000; ++i) sweep += "," + std::to_string(i);
  CHECK_FALSE(outcome(sweep + "} }").empty());
  std::string wide = "a { head_dim = 64\n";
  for (const char* key : {"scale", "softcap", "exp2_polynomial"}) {
    wide += std::string(key) + " in {1";
    for (int i = 2; i < 5000; ++i) wide += "," + std::to_string(i);
    wide += "}\n";
  }
  CHECK_FALSE(outcome(wide + "}").empty());
}

}  // namespace sagejit
