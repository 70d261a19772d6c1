// Policies: the file, the look-up, the rule that makes them, and the C API.
#include <fmt/format.h>

#include <cmath>

#include "compiler/sema/print.h"
#include "compiler/sema/resolve.h"
#include "runtime/api/handles.h"
#include "runtime/policy/calibrate.h"
#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit::testing {
namespace {

const std::string kText =
    "# for people\n"
    "sagejit policy 1\n"
    "\n"
    "[variants]\n"
    "# also in here\n"
    "fast { head_dim = 64; pv_accumulator = f16 }\n"
    "careful {\n"
    "  head_dim = 64\n"
    "}\n"
    "[layers]\n"
    "layer.0  *     fast  # cosine 0.9999\n"
    "layer.1  0..9  careful\n"
    "layer.1  12..  fast\n"
    "layer.2  3     fast\n"
    "\n"
    "default careful\n";

std::string error_of(const std::string& text) {
  const Error error = thrown_by([&] { parse_policy("p", text); });
  CHECK(error.kind() == ErrorKind::kSpec);
  return error.message();
}

std::string with_layers(const std::string& lines) {
  return "sagejit policy 1\n[variants]\na { head_dim = 64 }\nb { head_dim = 64; lse = on "
         "}\n[layers]\n" +
         lines;
}

TEST_CASE("policy: a layer and step have a variant, others the default") {
  const Policy policy = parse_policy("p", kText);
  REQUIRE(policy.variants.size() == 2);
  CHECK(policy.variants[0].pv_accumulator.inner == DType::kF16);
  const auto name = [&](std::string_view layer, int64_t step) {
    return policy.find(layer, step).name;
  };
  CHECK(name("layer.0", 0) == "fast");
  CHECK(name("layer.0", kLastStep) == "fast");
  CHECK(name("layer.1", 9) == "careful");
  CHECK(name("layer.1", 10) == "careful");  // the default
  CHECK(name("layer.1", 12) == "fast");
  CHECK(name("layer.2", 2) == "careful");
  CHECK(name("layer.2", 3) == "fast");
  CHECK(name("layer.2", 4) == "careful");
  CHECK(name("layer", 0) == "careful");
}

TEST_CASE("policy: printed and read again it is the same") {
  Policy policy = parse_policy("p", kText);
  policy.comment = "two\nlines";
  policy.rules[0].comment = "measured";
  const std::string text = print_policy(policy);
  CHECK_THAT(text, Catch::StartsWith("sagejit policy 1\n# two\n# lines\n\n[variants]\nfast {\n"));
  CHECK_THAT(text, Catch::EndsWith("[layers]\n"
                                   "layer.0  *     fast     # measured\n"
                                   "layer.1  0..9  careful\n"
                                   "layer.1  12..  fast\n"
                                   "layer.2  3     fast\n"
                                   "default  careful\n"));
  const Policy again = parse_policy("p", text);
  CHECK(again.variants == policy.variants);
  CHECK(again.otherwise == policy.otherwise);
  policy.comment = policy.rules[0].comment = "";
  CHECK(print_policy(again) == print_policy(policy));
}

TEST_CASE("policy: errors have the line and the mend") {
  struct Case {
    std::string text;
    std::string message;
  };
  const Case cases[] = {
      {"", "p:1:1: error: no policy"},
      {"# nothing\n", "begin with the line `sagejit policy 1`"},
      {"v { head_dim = 64 }\n", "p:1:1: error: no policy"},
      {"sagejit policy 9\n", "p:1:16: error: policies of version 9 are not known"},
      {"sagejit policy 1\nlayer.0 * a\n", "p:2:1: error: a policy has sections"},
      {"sagejit policy 1\n[layers]\ndefault a\n", "the file defines no variant"},
      {"sagejit policy 1\n[variants]\nv {\n  head_dim = 60\n}\n[layers]\ndefault v\n",
       "p:4:14: error: "},
      {with_layers("layer.0 * a\n"), "no variant for other layers"},
      {with_layers("layer.0 * c\ndefault a\n"),
       "p:6:11: error: `c` is not a variant of this policy"},
      {with_layers("layer.0 * c\ndefault a\n"), "there are: a, b"},
      {with_layers("layer.0 a\ndefault a\n"),
       "p:6:1: error: a line of [layers] is `LAYER STEPS VARIANT`"},
      {with_layers("layer.0 9..3 a\ndefault a\n"), "p:6:9: error: `9..3` is no range of steps"},
      {with_layers("layer.0 -1 a\ndefault a\n"), "write *, 7, 0..9 or 10.."},
      {with_layers("layer.0 99999999999999999999 a\ndefault a\n"), "is no range of steps"},
      {with_layers("layer.0 .. a\ndefault a\n"), "is no range of steps"},
      {with_layers("l 0..4 a\nl 4 b\ndefault a\n"),
       "p:7:3: error: steps of `l` have a variant already"},
      {with_layers("default a\ndefault b\n"), "p:7:1: error: default is given twice"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    CHECK_THAT(error_of(c.text), Catch::Contains(c.message));
  }
  // All at once.
  const std::string both = error_of(with_layers("l 1..0 a\nl * c\ndefault a\n"));
  CHECK_THAT(both, Catch::Contains("p:6:3") && Catch::Contains("p:7:5"));
}

TEST_CASE("policy: carriage returns and missing newlines are borne") {
  CHECK(parse_policy("p", with_layers("l * b\r\ndefault a")).find("l", 1).name == "b");
}

Variant variant(const std::string& entries) {
  return resolve_variants("v", "v { head_dim = 64; " + entries + " }").at(0);
}

std::vector<std::string> lines_of(const Policy& policy) {
  std::vector<std::string> lines;
  const std::string text = print_policy(policy);
  for (size_t at = text.find("[layers]\n") + 9; at < text.size();) {
    const size_t end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

const Variant kFast = variant("pv_accumulator = f16"), kCareful = variant("");

// As close in every head as over the whole; the careful variant always is.
LayerCosines measured(std::string layer, int64_t step, double fast) {
  return {std::move(layer), step, {fast, fast}, {1, 1}};
}

std::vector<std::string> layers_of(std::span<const LayerCosines> cosines) {
  return lines_of(calibrate(kFast, kCareful, cosines, kFastCosine));
}

TEST_CASE("calibrate: fast where every input is above the threshold, else careful") {
  const LayerCosines cosines[] = {measured("l.1", 0, .9990), measured("l.0", 0, .9990),
                                  measured("l.0", 0, .9979), measured("l.1", 0, .9985),
                                  measured("l.2", 0, .9980), measured("l.3", 0, NAN),
                                  measured("l.3", 0, 1)};
  const auto line = [](const char* begin, const char* cosine, int num) {
    return fmt::format("{}# cosine of fast: {}, {} in the worst head, the least of {}", begin,
                       cosine, cosine, num);
  };
  CHECK(layers_of(cosines) ==
        std::vector<std::string>{line("l.1      *  fast     ", "0.998500", 2),
                                 line("l.0      *  careful  ", "0.997900", 2),
                                 line("l.2      *  careful  ", "0.998000", 1),  // not above
                                 line("l.3      *  careful  ", "NaN", 2), "default  careful"});
}

TEST_CASE("calibrate: the worst head is judged as the whole tensor is") {
  const LayerCosines cosines[] = {{"l.0", 0, {.9999, .9985}, {1, 1}},
                                  {"l.1", 0, {.9999, .9975}, {1, 1}},
                                  {"l.2", 0, {.9999, NAN}, {1, 1}}};
  const Policy policy = calibrate(kFast, kCareful, cosines, kFastCosine);
  CHECK(policy.find("l.0", 0).name == "fast");
  CHECK(policy.find("l.1", 0).name == "careful");
  CHECK(policy.find("l.2", 0).name == "careful");
  CHECK(lines_of(policy)[1] ==
        "l.1      *  careful  # cosine of fast: 0.999900, 0.997500 in the worst head, the least of "
        "1");
}

TEST_CASE("calibrate: a gap between measured steps is fast only if both neighbours are") {
  const auto policy_of = [](std::initializer_list<std::pair<int64_t, bool>> steps) {
    std::vector<LayerCosines> cosines;
    for (const auto& [step, is_fast] : steps) {
      cosines.push_back(measured("l", step, is_fast ? .9999 : .9));
    }
    std::string text;
    for (const PolicyRule& rule : calibrate(kFast, kCareful, cosines, kFastCosine).rules) {
      const std::string last = rule.last_step == kLastStep ? "" : fmt::format("{}", rule.last_step);
      text +=
          fmt::format("{}..{} {}; ", rule.first_step, last, rule.variant == 0 ? "fast" : "careful");
    }
    return text;
  };
  CHECK(policy_of({{20, true}, {5, false}, {10, true}, {30, false}, {8, false}}) ==
        "0..9 careful; 10..20 fast; 21.. careful; ");
  CHECK(policy_of({{0, true}, {10, false}, {20, true}}) ==
        "0..0 fast; 1..19 careful; 20..20 fast; 21.. careful; ");
  CHECK(policy_of({{3, true}, {4, true}}) == "0..2 careful; 3..4 fast; 5.. careful; ");
  CHECK(policy_of({{7, true}}) == "0.. fast; ");
  CHECK(policy_of({{7, false}}) == "0.. careful; ");
  CHECK(policy_of({{7, true}, {kLastStep, true}}) == "0..6 careful; 7.. fast; ");
}

TEST_CASE("calibrate: ranges say what was measured in them") {
  const LayerCosines cosines[] = {measured("l", 10, .9999), measured("l", 20, .9990),
                                  measured("l", 20, .9995)};
  CHECK(layers_of(cosines) ==
        std::vector<std::string>{
            "l        0..9    careful  # not measured",
            "l        10..20  fast     # cosine of fast: 0.999000, 0.999000 in the worst head, the "
            "least of 3",
            "l        21..    careful  # not measured", "default  careful"});
}

TEST_CASE("calibrate: where careful is not close enough either, the policy says so") {
  const LayerCosines cosines[] = {{"l.0", 0, {.9, .9}, {.9999, .9999}},
                                  {"l.1", 4, {.9, .9}, {.9999, .9970}},
                                  {"l.1", 4, {.9, .9}, {.9990, .9990}},
                                  {"l.2", 0, {.9, .9}, {NAN, NAN}}};
  const std::vector<std::string> failures = failures_of_careful(cosines, kFastCosine);
  CHECK(failures == std::vector<std::string>{
                        "careful is not above 0.998 at step 4 of l.1: cosine 0.999000, 0.997000 in "
                        "the worst head, the least of 2",
                        "careful is not above 0.998 at step 0 of l.2: cosine NaN, NaN in the worst "
                        "head, the least of 1"});
  CHECK(calibrate(kFast, kCareful, cosines, kFastCosine).comment ==
        failures[0] + "\n" + failures[1]);
}

TEST_CASE("calibrate: names of layers become words") {
  CHECK(policy_word("a b#c.d") == "a_b_c.d");
  for (const char* name : {"a\tb", "a\nb", "\x01", "a\x7f"}) {
    const Error error = thrown_by([&] { policy_word(name); });
    CHECK(error.kind() == ErrorKind::kArgument);
    CHECK_THAT(error.message(), Catch::Contains("has the control character 0x"));
  }
}

TEST_CASE("calibrate: candidates differ in quantization alone") {
  const LayerCosines cosines[] = {measured("l", 0, 1)};
  const auto refused = [&](const Variant& fast, const Variant& careful,
                           std::span<const LayerCosines> given) {
    const Error error = thrown_by([&] { calibrate(fast, careful, given, kFastCosine); });
    CHECK(error.kind() == ErrorKind::kArgument);
    return error.message();
  };
  CHECK_THAT(refused(kFast, variant("mask = causal(top_left)"), cosines),
             Catch::Contains("their mask differs"));
  CHECK_THAT(refused(kFast, variant("scale = 0.5"), cosines),
             Catch::Contains("their score differs"));
  CHECK_THAT(refused(kFast, variant("lse = on"), cosines), Catch::Contains("their lse differs"));
  CHECK_THAT(refused(kFast, kCareful, {}), Catch::Contains("nothing was measured"));
}

TEST_CASE("calibrate: steps are part of a name, or there are none") {
  const auto check = [](std::string_view name, std::string_view layer, int64_t step) {
    CAPTURE(name);
    const LayerStep at = layer_step_of(name);
    CHECK(at.layer == layer);
    CHECK(at.step == step);
  };
  check("layer.3", "layer.3", 0);
  check("step.4.layer.3", "layer.3", 4);
  check("layer.3.step.40", "layer.3", 40);
  check("block.1.step.2.attn", "block.1.attn", 2);
  check("step.7", "layer", 7);
  check("step.x.layer.3", "step.x.layer.3", 0);
  check("layer.3.step.", "layer.3.step.", 0);
}

TEST_CASE("policy: the C API") {
  sagejit_policy* policy = nullptr;
  sagejit_error* error = nullptr;
  CHECK(sagejit_policy_parse("sagejit policy 1\nx", 18, nullptr, &policy, &error) ==
        SAGEJIT_E_SPEC);
  CHECK(policy == nullptr);
  CHECK_THAT(sagejit_error_message(error), Catch::StartsWith("<policy>:2:1: error: "));
  sagejit_error_destroy(error);
  CHECK(sagejit_policy_parse(nullptr, 3, nullptr, &policy, nullptr) == SAGEJIT_E_ARGUMENT);
  CHECK(sagejit_policy_parse("", 0, nullptr, nullptr, nullptr) == SAGEJIT_E_ARGUMENT);

  REQUIRE(sagejit_policy_parse(kText.data(), kText.size(), "p", &policy, &error) == SAGEJIT_OK);
  sagejit_variant* found = nullptr;
  CHECK(sagejit_policy_find(policy, "layer.0", -1, &found, nullptr) == SAGEJIT_E_ARGUMENT);
  CHECK(sagejit_policy_find(policy, nullptr, 0, &found, nullptr) == SAGEJIT_E_ARGUMENT);
  CHECK(sagejit_policy_find(nullptr, "layer.0", 0, &found, nullptr) == SAGEJIT_E_ARGUMENT);
  CHECK(found == nullptr);
  REQUIRE(sagejit_policy_find(policy, "layer.0", 3, &found, nullptr) == SAGEJIT_OK);
  sagejit_policy_destroy(policy);  // the variant is the caller's own
  CHECK(sagejit_variant_name(found) == std::string("fast"));
  CHECK(sagejit_variant_text(found) == print_variant(parse_policy("p", kText).variants[0]));
  sagejit_variant_destroy(found);
  sagejit_policy_destroy(nullptr);
}

}  // namespace
}  // namespace sagejit::testing
