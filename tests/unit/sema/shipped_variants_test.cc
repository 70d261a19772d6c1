// specs/variants: every file resolves without a warning, and every instance is made on every
// target, those with 8-bit P and V on every target with wgmma, those in fp4 on sm_120a.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "compiler/sema/check.h"
#include "compiler/sema/resolve.h"
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

fs::path folder() {
  return fs::path(SAGEJIT_TEST_SPECS_DIR) / "variants";
}

std::vector<Variant> shipped(const std::string& name, std::span<const Override> overrides = {}) {
  return resolve_variants(name, read_file(folder() / name), overrides);
}

bool is_supported(const Variant& v, const Target& target) {
  return nearest_supported(v, target) == v;
}

}  // namespace

TEST_CASE("shipped variants resolve cleanly and are supported where their products are") {
  int num_files = 0;
  for (const auto& entry : fs::directory_iterator(folder())) {
    if (entry.path().extension() != ".attn") continue;
    ++num_files;
    INFO(entry.path().string());
    const Resolved resolved = resolve_file(entry.path().string(), read_file(entry.path()));
    CHECK(resolved.warnings.empty());
    for (const Variant& v : resolved.variants) {
      INFO(v.name);
      for (const Target& target : all_targets()) {
        const bool is_fp4 = v.p.type == DType::kE2M1 || v.q.type == DType::kE2M1;
        const bool is_narrow_float = is_fp8(v.p.type) || is_fp8(v.q.type);
        const bool has_fp8 =
            target.native_fp8_mma || (target.wgmma && v.pv_accumulator.inner == DType::kF32);
        const bool has_products = is_fp4 ? target.fp4_mma : !is_narrow_float || has_fp8;
        INFO(target.name);
        CHECK(is_supported(v, target) == has_products);
      }
      CHECK(v.smooth_k == Smoothing::kMean);
    }
  }
  CHECK(num_files >= 6);
}

TEST_CASE("8+8 is the paper's, the fast form leaves P the room that its threshold takes") {
  const std::vector<Variant> paper =
      select_variants(shipped("sage2_8_8.attn"), "sage2_8_8_thread[head_dim=128]");
  REQUIRE(paper.size() == 6);
  CHECK(paper[0].p == ProbabilityOperand{DType::kE4M3, 448.0, false});
  CHECK(paper[0].v.granularity == Granularity::kChannel);
  CHECK(paper[0].pv_accumulator == Accumulator{DType::kF32, DType::kF32, 64});
  CHECK(paper[0].rescale_threshold == 0.0);
  const std::vector<Variant> fast =
      select_variants(shipped("sage2_8_8.attn"), "sage2_8_8_fast_warp[head_dim=64]");
  REQUIRE(fast.size() == 3);
  CHECK(fast[0].p.range * std::exp2(fast[0].rescale_threshold) <= largest_p_range(DType::kE4M3));
  CHECK(fast[0].pv_accumulator == Accumulator{});
}

TEST_CASE("SageAttention 3 has two levels of P, and one to compare with") {
  const std::vector<Variant> two = select_variants(shipped("sage3.attn"), "sage3[head_dim=128]");
  REQUIRE(two.size() == 3);
  CHECK(two[0].p == ProbabilityOperand{DType::kE2M1, 448.0 * 6, false});
  CHECK(two[0].smooth_q_span == 128);
  const std::vector<Variant> one =
      select_variants(shipped("sage3.attn"), "sage3_one_level[head_dim=128]");
  REQUIRE(one.size() == 3);
  CHECK(one[0].p == ProbabilityOperand{DType::kE2M1, 1.0, false});
}

TEST_CASE("the head dimension of the data picks the default instance") {
  const std::vector<Variant> picked = select_variants(shipped("sage1_b.attn"), "head_dim=128");
  REQUIRE(picked.size() == 9);
  CHECK(picked[0].name == "sage1_b[head_dim=128, mask=none, pv_accumulator=f16 + f32 every 64]");
  CHECK(picked[0].q == Quantization{DType::kS8, Granularity::kBlock, 128});
  CHECK(picked[0].k == Quantization{DType::kS8, Granularity::kBlock, 64});
}

TEST_CASE("any head dimension can be set") {
  const std::vector<Override> overrides = {{"head_dim", "80"}, {"mask", "causal(bottom_right)"}};
  const std::vector<Variant> variants = shipped("sage1_t.attn", overrides);
  REQUIRE(variants.size() == 3);
  CHECK(variants[0].head_dim == 80);
  CHECK(variants[0].q.granularity == Granularity::kToken);
  CHECK(variants[0].name == "sage1_t[pv_accumulator=f16 + f32 every 64]");
}

}  // namespace sagejit
