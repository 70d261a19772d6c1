// Lengths, masks, head ratios and layouts.
#include <fmt/format.h>

#include "tests/emulated/judge.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/table.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr std::string_view kMasks[] = {"none",          "causal(top_left)", "causal(bottom_right)",
                                       "window(40, 0)", "window(3, 70)",    "window(0, 0)"};

std::string with_mask(std::string_view mask) {
  return fmt::format(
      "head_dim = 64; lse = on; smooth_k = mean; mask = {}; "
      "pv_accumulator = f16 + f32 every 64",
      mask);
}

TEST_CASE("every pair of lengths under every mask", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  constexpr int64_t kLengths[] = {1, 7, 63, 64, 65, 127, 129};
  std::vector<Case> cases;
  for (const std::string_view mask : kMasks) {
    for (const int64_t m : kLengths) {
      for (const int64_t n : kLengths) {
        cases.push_back({with_mask(mask), {.b = 1, .hq = 1, .hkv = 1, .m = m, .n = n}});
      }
    }
  }
  run_cases(cases);
}

TEST_CASE("smoothed Q: pairs of lengths under every mask", "[emulated][smooth_q]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (size_t i = 0; i < std::size(kMasks); ++i) {
    const std::string body = fmt::format(
        "head_dim = 32; lse = on; smooth_k = mean; smooth_q = mean per block({}); q = int4 per "
        "thread(32); k = int4 per thread(64); mask = {}",
        i % 2 ? 64 : 128, kMasks[i]);
    for (const auto& [m, n] : {std::pair(1, 1),
                               {1, 129},
                               {63, 64},
                               {64, 7},
                               {65, 127},
                               {127, 65},
                               {129, 63},
                               {200, 0},
                               {300, 1000},
                               {1000, 129}}) {
      cases.push_back({body, {.b = 1, .hq = 2, .hkv = 1, .m = m, .n = n}});
    }
  }
  run_cases(cases);
}

TEST_CASE("long sequences", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view mask : kMasks) {
    for (const auto& [m, n] : {std::pair(1000, 1000), std::pair(1, 1000), std::pair(1000, 7),
                               std::pair(65, 1000), std::pair(1000, 129)}) {
      cases.push_back({with_mask(mask), {.b = 1, .hq = 1, .hkv = 1, .m = m, .n = n}});
    }
  }
  run_cases(cases);
}

TEST_CASE("a call without keys, or without queries", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view mask : kMasks) {
    cases.push_back({with_mask(mask), {.b = 2, .hq = 2, .hkv = 1, .m = 70, .n = 0}});
    cases.push_back({with_mask(mask), {.b = 2, .hq = 2, .hkv = 1, .m = 0, .n = 70}});
  }
  cases.push_back({"head_dim = 64; q = int8 per tensor; k = int8 per head",
                   {.b = 1, .hq = 2, .hkv = 1, .m = 70, .n = 0}});
  run_cases(cases);
}

TEST_CASE("query heads that share key heads", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const std::string_view mask : {"none", "causal(top_left)"}) {
    for (const auto& [hq, hkv] :
         {std::pair(3, 3), std::pair(4, 1), std::pair(8, 2), std::pair(8, 1), std::pair(16, 2)}) {
      cases.push_back({with_mask(mask), {.b = 2, .hq = hq, .hkv = hkv, .m = 67, .n = 90}});
    }
  }
  run_cases(cases);
}

TEST_CASE("layouts", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  std::vector<Case> cases;
  for (const Layout layout : {Layout::kBhtd, Layout::kBthd, Layout::kPadded, Layout::kBroadcast}) {
    for (const std::string_view body :
         {"head_dim = 64; lse = on; smooth_k = mean; mask = causal(bottom_right)",
          "head_dim = 72; value_head_dim = 40; output = f32; lse = on; q = int8 per head; "
          "k = int8 per tensor"}) {
      for (const auto& [m, n] : {std::pair(100, 130), std::pair(130, 100)}) {
        cases.push_back(
            {std::string(body), {.b = 3, .hq = 4, .hkv = 2, .m = m, .n = n}, "normal", layout});
      }
    }
  }
  run_cases(cases);
}

// A mask that leaves some rows without keys: the judge demands exactly 0 and -inf; here that there
// are such rows at all.
TEST_CASE("rows without keys are zero", "[emulated]") {
  if (!Lab::mma_sync().ready()) return;
  const Variant variant = variant_of(with_mask("causal(bottom_right)"));
  const auto kernel = Lab::mma_sync().kernel(variant);
  const reference::ProblemShape shape = {.b = 1, .hq = 2, .hkv = 2, .m = 200, .n = 30};
  Problem problem(*kernel, make_inputs("normal", shape, variant.input, 5));
  problem.launch();
  const HostTensor o = problem.o(), lse = problem.lse();
  for (int64_t i = 0; i < 170; ++i) {
    CAPTURE(i);
    REQUIRE(lse.get(0, 1, i, 0) == -std::numeric_limits<float>::infinity());
    for (int64_t j = 0; j < 64; ++j) REQUIRE(o.get(0, 1, i, j) == 0.0f);
  }
  REQUIRE(std::isfinite(lse.get(0, 1, 170, 0)));
}

}  // namespace
}  // namespace sagejit::test
