#include "compiler/sema/print.h"

#include <fmt/format.h>

#include <functional>
#include <limits>

#include "compiler/sema/check.h"
#include "compiler/sema/resolve.h"
#include "tests/support/catch.h"
#include "tests/unit/sema/random_variant.h"

namespace sagejit {
namespace {

Variant reread(const Variant& v) {
  const std::vector<Variant> variants = resolve_variants("printed", print_variant(v));
  REQUIRE(variants.size() == 1);
  return variants[0];
}

Variant minimal() {
  return resolve_variants("x", "x { head_dim = 64 }").at(0);
}

}  // namespace

TEST_CASE("any valid variant survives printing and reading") {
  Rng rng(1);
  for (int i = 0; i < 3000; ++i) {
    const Variant v = random_variant(rng);
    INFO(print_variant(v));
    CHECK(reread(v) == v);
  }
}

TEST_CASE("canonical texts are equal exactly where variants compute the same") {
  Rng rng(2);
  std::vector<Variant> variants;
  for (int i = 0; i < 200; ++i) variants.push_back(random_variant(rng));
  variants.push_back(variants[0]);
  variants.back().name = "another name";
  for (const Variant& a : variants) {
    for (const Variant& b : variants) {
      CHECK((canonical_key_text(a) == canonical_key_text(b)) == same_computation(a, b));
    }
  }
}

TEST_CASE("every field that computes is in the canonical text") {
  const std::vector<std::function<void(Variant&)>> changes = {
      [](Variant& v) { v.head_dim = 72; },
      [](Variant& v) { v.value_head_dim = 72; },
      [](Variant& v) { v.input = DType::kBF16; },
      [](Variant& v) { v.output = DType::kF32; },
      [](Variant& v) { v.lse = true; },
      [](Variant& v) { v.mask.kind = MaskKind::kCausalBottomRight; },
      [](Variant& v) {
        v.mask = {MaskKind::kWindow, 1, 2, {}};
      },
      [](Variant& v) {
        v.mask = {MaskKind::kWindow, 2, 1, {}};
      },
      [](Variant& v) {
        v.mask = {MaskKind::kExpression, 0, 0, {"k < 7"}};
      },
      [](Variant& v) { v.score.scale = 0.125; },
      [](Variant& v) { v.score.softcap = 30; },
      [](Variant& v) { v.score.alibi = true; },
      [](Variant& v) { v.score.sinks = true; },
      [](Variant& v) { v.score.expression = {"s + q"}; },
      [](Variant& v) { v.q.span = 64; },
      [](Variant& v) { v.q.granularity = Granularity::kWarp; },
      [](Variant& v) { v.q.type = DType::kS4; },
      [](Variant& v) { v.k.span = 128; },
      [](Variant& v) {
        v.k = {DType::kS8, Granularity::kToken, 0};
      },
      [](Variant& v) { v.smooth_q = Smoothing::kMean, v.smooth_q_span = 128; },
      [](Variant& v) { v.smooth_q = Smoothing::kMean, v.smooth_q_span = 64; },
      [](Variant& v) { v.smooth_k = Smoothing::kMean; },
      [](Variant& v) { v.hadamard = true; },
      [](Variant& v) { v.qk_accumulator = DType::kF32; },
      [](Variant& v) { v.p.range = 2; },
      [](Variant& v) { v.p.type = DType::kE4M3; },
      [](Variant& v) {
        v.p = {DType::kE4M3, 1.0, true};
      },
      [](Variant& v) { v.v.type = DType::kE4M3; },
      [](Variant& v) {
        v.v = {DType::kE4M3, Granularity::kBlock, 32, Smoothing::kNone, 0};
      },
      [](Variant& v) {
        v.v = {DType::kE4M3, Granularity::kBlock, 64, Smoothing::kNone, 0};
      },
      [](Variant& v) {
        v.v = {DType::kE4M3, Granularity::kBlock, 64, Smoothing::kNone, 2.25};
      },
      [](Variant& v) { v.v.smoothing = Smoothing::kMean; },
      [](Variant& v) { v.pv_accumulator.inner = DType::kF16; },
      [](Variant& v) {
        v.pv_accumulator = {DType::kF16, DType::kF32, 64};
      },
      [](Variant& v) {
        v.pv_accumulator = {DType::kF16, DType::kF32, 128};
      },
      [](Variant& v) { v.row_sum = RowSum::kQuantized; },
      [](Variant& v) { v.exp2_polynomial_share = 0.5; },
      [](Variant& v) { v.structure.kind = StructureKind::kVarlen; },
      [](Variant& v) {
        v.structure = {StructureKind::kPaged, 64};
      },
      [](Variant& v) {
        v.structure = {StructureKind::kPaged, 128};
      },
  };
  std::vector<std::string> texts{canonical_key_text(minimal())};
  for (const auto& change : changes) {
    Variant v = minimal();
    change(v);
    CHECK_FALSE(same_computation(v, minimal()));
    texts.push_back(canonical_key_text(v));
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      INFO(texts[i]);
      CHECK(texts[i] != texts[j]);
    }
  }
}

TEST_CASE("the name takes no part in the key") {
  Variant a = minimal(), b = minimal();
  b.name = "other";
  CHECK(canonical_key_text(a) == canonical_key_text(b));
  CHECK(same_computation(a, b));
  CHECK(print_variant(a) != print_variant(b));
}

TEST_CASE("doubles are printed shortest and read back exactly") {
  const std::vector<std::pair<double, std::string>> cases = {
      {0.1, "0.1"},
      {1.0 / 3.0, "0.3333333333333333"},
      {0.08838834764831845, "0.08838834764831845"},
      {1e22, "1e+22"},
      {5e-324, "5e-324"},
      {-2.0, "-2"},
      {std::numeric_limits<double>::min(), "2.2250738585072014e-308"},
  };
  for (const auto& [value, text] : cases) {
    Variant v = minimal();
    v.score.scale = value;
    INFO(text);
    CHECK(print_variant(v).find(fmt::format("\n  scale = {}\n", text)) != std::string::npos);
    CHECK(reread(v).score.scale == value);
  }
}

TEST_CASE("any name can be printed") {
  for (const std::string name : {"a b", "", "\"", "\\", "a\nb", "abstract", "x[head_dim=64]"}) {
    Variant v = minimal();
    v.name = name;
    CHECK(same_computation(reread(v), v));
  }
}

}  // namespace sagejit
