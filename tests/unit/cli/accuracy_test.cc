// The papers' accuracy tables: the rows, what is said of them, and a small configuration end to
// end.
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "compiler/sema/resolve.h"
#include "tests/support/catch.h"
#include "tests/unit/cli/runner.h"
#include "tests/unit/support/thrown.h"
#include "tools/cli/accuracy_report.h"

namespace sagejit::cli {
namespace {

using cli_test::Outcome;
using nlohmann::json;

TEST_CASE("published figures are read as printed, with what their digits leave open") {
  const PublishedFigures percent = read_published("99.94 .0345 3.53e-3");
  CHECK(*percent.cosine == Approx(.9994));
  CHECK(percent.cosine_error == Approx(.00005));
  CHECK(*percent.relative_l1 == .0345);
  CHECK(*percent.rmse == 3.53e-3);
  const PublishedFigures fraction = read_published("1.0 .019");
  CHECK(*fraction.cosine == 1);
  CHECK(fraction.cosine_error == Approx(.05));
  CHECK_FALSE(fraction.rmse.has_value());
  CHECK(read_published(".999").cosine_error == Approx(.0005));
  CHECK_FALSE(read_published("").cosine.has_value());
  CHECK(thrown_by([] { read_published("99.9 x"); }).kind() == ErrorKind::kInternal);
  CHECK(thrown_by([] { read_published("1 2 3 4"); }).kind() == ErrorKind::kInternal);
}

TEST_CASE(
    "every row is of a table, and a variant of the language that differs in quantization alone") {
  std::set<std::string_view> tables;
  for (const AccuracyTable& table : accuracy_tables()) CHECK(tables.insert(table.id).second);
  REQUIRE(accuracy_rows().size() > 30);
  Variant plain = resolve_variants("plain", "v { head_dim = 64 }").at(0);
  for (const AccuracyRow& row : accuracy_rows()) {
    CAPTURE(row.table, row.setting);
    CHECK(tables.contains(row.table));
    if (row.entries.empty()) continue;
    const Variant variant =
        resolve_variants("row", fmt::format("v {{ head_dim = 64; {} }}", row.entries)).at(0);
    CHECK(variant.mask == plain.mask);
    CHECK(variant.score == plain.score);
    CHECK(variant.input == DType::kF16);
  }
}

// Two rows of one table; cosines of ours on one data set, which `real` says is of real layers.
AccuracyReport report_of(const AccuracyRow& a, double ours_a, const AccuracyRow& b, double ours_b,
                         const std::string& data_set = "normal", const std::string& real = "") {
  AccuracyReport report;
  report.data_sets = {data_set};
  report.real_data = real;
  for (const auto& [row, cosine] : {std::pair{&a, ours_a}, {&b, ours_b}}) {
    AccuracyResult result{row, {}};
    const reference::Closeness closeness{cosine, 0, 0};
    result.measurement.figures = {{closeness, closeness, "layer.0", 0}};
    report.results.push_back(result);
  }
  return report;
}

// The same figure published of real layers and of N(0, 1).
AccuracyRow row(std::string_view setting, std::string_view published) {
  const PublishedFigures figures = read_published(published);
  return {"sage1_types", setting, figures, {}, figures, "q = int8"};
}

using Sentences = std::vector<std::string>;

TEST_CASE("a contradiction is an error of another size, or the other order") {
  const AccuracyRow fine = row("fine", "99.90"), coarse = row("coarse", "99.00");
  CHECK(contradictions(report_of(fine, .9990, coarse, .9900), "sage1_types").empty());
  CHECK(contradictions(report_of(fine, .9975, coarse, .9960), "sage1_types").empty());
  CHECK(contradictions(report_of(fine, .9990, coarse, .9900), "sage3").empty());

  CHECK(contradictions(report_of(fine, .9960, coarse, .9900), "sage1_types") ==
        Sentences{"fine, N(0, 1): less accurate here: cosine 0.99600; the paper, of other shapes, "
                  "has 99.90."});
  CHECK(contradictions(report_of(fine, .9990, coarse, .9980), "sage1_types") ==
        Sentences{"coarse, N(0, 1): more accurate here: cosine 0.99800; the paper, of other "
                  "shapes, has 99.00."});
  CHECK(contradictions(report_of(fine, .9971, coarse, .9975), "sage1_types").back() ==
        "coarse, N(0, 1): more accurate here: cosine 0.99750; the paper, of other shapes, has "
        "99.00.");
  const AccuracyRow near = row("near", "99.80");
  CHECK(contradictions(report_of(fine, .9972, near, .9980), "sage1_types") ==
        Sentences{"N(0, 1): the paper, of other shapes, has fine more accurate than near; here it "
                  "is less: 0.99720 against 0.99800."});
  // Of the same order, and much closer to one another than the paper's.
  const AccuracyRow finest = row("finest", "99.95");
  CHECK(contradictions(report_of(finest, .9990, coarse, .9960, "mini", "mini"), "sage1_types") ==
        Sentences{"average of real layers: by 1 - cosine the paper, of other models, has finest at "
                  "least 18 times as accurate as coarse; here it is 4 times."});
  CHECK(contradictions(report_of(finest, .9990, coarse, .9930, "mini", "mini"), "sage1_types")
            .empty());
  // Digits that leave the order open.
  CHECK(contradictions(report_of(row("a", "99.8"), .9972, row("b", "99.8"), .9980), "sage1_types")
            .empty());
  CHECK_FALSE(contradictions(report_of(fine, NAN, coarse, .99), "sage1_types").empty());
}

TEST_CASE("of real layers, which are of other models, orders are compared and sizes are not") {
  const AccuracyRow fine = row("fine", "99.90"), near = row("near", "99.80");
  const auto of_layers = [&](double ours_a, double ours_b) {
    return contradictions(report_of(fine, ours_a, near, ours_b, "layers", "layers"), "sage1_types");
  };
  CHECK(of_layers(.999999, .999998).empty());
  CHECK(of_layers(.91, .90).empty());
  CHECK(of_layers(.9972, .9980) ==
        Sentences{"average of real layers: the paper, of other models, has fine more accurate than "
                  "near; here it is less: 0.99720 against 0.99800."});
}

TEST_CASE("the plot has a mark for every figure, and no markup of its labels") {
  const AccuracyRow a = row("a < b & c", "99.90"), b = row("b", "");
  const std::string svg = to_svg(report_of(a, .999, b, .99, "layers", "layers"));
  CHECK_THAT(svg, Catch::StartsWith("<svg ") && Catch::EndsWith("</svg>\n"));
  CHECK_THAT(svg, Catch::Contains("a &lt; b &amp; c"));
  size_t circles = 0, diamonds = 0;
  for (size_t at = 0; (at = svg.find("<circle", at)) != std::string::npos; ++at) ++circles;
  for (size_t at = 0; (at = svg.find("<path", at)) != std::string::npos; ++at) ++diamonds;
  CHECK(circles == 2 * 2 + 2);  // average and worst; and the legend's
  CHECK(diamonds == 1 + 2);
}

TEST_CASE("a small configuration is measured, within bounds") {
  const Outcome outcome = cli_test::sagejit(
      "accuracy --device emulator --only 'int8 Q K' --shape b=1,hq=2,m=33,n=130,d=64 --json");
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const json report = json::parse(outcome.out);
  CHECK(report["device"] == "PTX emulator");
  REQUIRE(report["rows"].size() == 4);
  const json &narrow = report["rows"][0], &half = report["rows"][3];
  CHECK(narrow["setting"] == "int8 Q K, e4m3 P V");
  CHECK(narrow["target"] != "sm_80");  // which has no e4m3 products
  CHECK(half["setting"] == "int8 Q K, f16 P V");
  CHECK(half["target"] == "sm_80");
  CHECK(half["published"]["worst"] == "99.99 .0116 .0091");
  for (const char* data : {"normal", "biased_k"}) {
    CAPTURE(data);
    const json& of_half = half["figures"][data]["average"];
    CHECK(of_half["cosine"] >= 0.9995);
    CHECK(of_half["relative_l1"] < 0.02);
    const json& of_narrow = narrow["figures"][data]["average"];
    CHECK(of_narrow["cosine"] >= 0.998);
    CHECK(of_narrow["cosine"] < of_half["cosine"]);
    CHECK(narrow["figures"][data]["num_non_finite"] == 0);
  }
}

TEST_CASE("what has no generator has no figure, and the page says why") {
  const std::string folder = cli_test::file_with("accuracy_folder_marker", "") + ".d";
  const Outcome outcome = cli_test::sagejit(
      "accuracy --device emulator:sm_80 --only e4m3 --shape hq=1,m=8,n=8,d=32 -o '" + folder + "'");
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const std::string page = cli_test::read_file(folder + "/accuracy.md");
  CHECK_THAT(page, Catch::Contains("| int8 Q K, e4m3 P V | unsupported |  |  |  |  |  |\n"));
  CHECK_THAT(page, Catch::Contains("unsupported: p = e4m3 range 448 rounded: "));
  CHECK_THAT(page,
             Catch::Contains("e5m2 Q K, e4m3 P V: unsupported: the language has no such variant."));
  CHECK_THAT(page, Catch::Contains("](accuracy.svg)"));
  CHECK_THAT(cli_test::read_file(folder + "/accuracy.svg"), Catch::Contains("unsupported"));
}

TEST_CASE("real layers have an average and a worst one") {
  const Outcome outcome = cli_test::sagejit(
      "accuracy --device emulator:sm_80 --only 'SageAttn-B' --shape hq=1,m=8,n=8,d=32 --json "
      "--input " +
      cli_test::data_file("minilm_l6_qkv.safetensors"));
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const json figures = json::parse(outcome.out)["rows"][0]["figures"]["minilm_l6_qkv.safetensors"];
  CHECK(figures["average"]["cosine"] > 0.999);
  CHECK(figures["worst"]["cosine"] > 0.998);
  CHECK(figures["worst"]["cosine"] < figures["average"]["cosine"]);
  CHECK_THAT(figures["worst_layer"].get<std::string>(), Catch::StartsWith("layer."));
}

TEST_CASE("a filter that no row has is a user error") {
  const Outcome outcome =
      cli_test::sagejit("accuracy --device emulator --only zeppelin --shape m=8,n=8");
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::Contains("--only 'zeppelin'"));
}

}  // namespace
}  // namespace sagejit::cli
