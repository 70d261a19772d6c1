// The wgmma kernel: lengths, masks, head ratios, layouts, and how its blocks share out the work.
#include <fmt/format.h>

#include <limits>

#include "tests/emulated/table.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr std::string_view kMasks[] = {"none",          "causal(top_left)", "causal(bottom_right)",
                                       "window(40, 0)", "window(3, 70)",    "window(0, 0)"};
constexpr std::string_view kTypes[] = {"input = f16",
                                       "p = e4m3 range 16 direct; v = e4m3 per channel; row_sum = "
                                       "quantized; rescale_threshold = 4",
                                       "p = e4m3 range 448; v = e4m3 per channel; smooth_v = mean",
                                       "input = bf16; pv_accumulator = f32 + f32 every 64"};

// Masks, with types, numbers of warpgroups and orders of the steps dealt out among them.
struct Form {
  std::string body;
  Schedule schedule;
};

std::vector<Form> forms() {
  std::vector<Form> result;
  for (size_t i = 0; i < std::size(kMasks); ++i) {
    const std::string_view types = kTypes[(i + i / 4) % 4];
    const int overlap = static_cast<int>((i + i / 3) % 2);
    const int num_warps = 4 + 4 * static_cast<int>(i % 3);
    result.push_back(
        {fmt::format("head_dim = 32; lse = on; smooth_k = mean; mask = {}; {}", kMasks[i], types),
         wgmma_schedule(num_warps, 64, overlap)});
  }
  return result;
}

void run_forms(const std::vector<reference::ProblemShape>& shapes) {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const Form& form : forms()) {
    for (const reference::ProblemShape& shape : shapes) {
      cases.push_back({form.body, shape, "normal", Layout::kBhtd, form.schedule});
    }
  }
  run_cases(cases, lab);
}

TEST_CASE("wgmma: every pair of lengths under every mask", "[emulated][wgmma]") {
  constexpr int64_t kLengths[] = {1, 7, 63, 64, 65, 127, 129};
  std::vector<reference::ProblemShape> shapes;
  for (const int64_t m : kLengths) {
    for (const int64_t n : kLengths) shapes.push_back({.b = 1, .hq = 1, .hkv = 1, .m = m, .n = n});
  }
  run_forms(shapes);
}

TEST_CASE("wgmma: long sequences", "[emulated][wgmma]") {
  run_forms({{.m = 1000, .n = 1000},
             {.m = 1, .n = 1000},
             {.m = 1000, .n = 7},
             {.m = 65, .n = 1000},
             {.m = 1000, .n = 129}});
}

TEST_CASE("wgmma: a call without keys, or without queries", "[emulated][wgmma]") {
  run_forms({{.b = 2, .hq = 2, .hkv = 1, .m = 70, .n = 0},
             {.b = 2, .hq = 2, .hkv = 1, .m = 0, .n = 70},
             {.b = 2, .hq = 2, .hkv = 1, .m = 0, .n = 0},
             {.b = 0, .hq = 2, .hkv = 1, .m = 70, .n = 70}});
}

TEST_CASE("wgmma: a call without keys in every granularity", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const std::string_view k : {"tensor", "head", "block(64)", "thread(64)", "token"}) {
    cases.push_back(
        {fmt::format("head_dim = 64; lse = on; q = int8 per tensor; k = int8 per {}", k),
         {.b = 2, .hq = 2, .hkv = 1, .m = 70, .n = 0},
         "normal",
         Layout::kBhtd,
         wgmma_schedule(8, 96)});
  }
  run_cases(cases, lab);
}

// Tiles of every size, under masks whose edges they cut in other places.
TEST_CASE("wgmma: key tiles of every size, one to three warpgroups", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  size_t i = 0;
  for (const int block_n : {32, 64, 96, 128, 160, 192, 224, 256}) {
    for (const int num_warps : {4, 8, 12}) {
      // The sums of such products do not fit the registers of three warpgroups: check_schedule.
      if (num_warps == 12 && block_n > 192) continue;
      const std::string_view types = kTypes[block_n % 64 ? i % 3 : i % 4];
      const std::string body =
          fmt::format("head_dim = 32; lse = on; smooth_k = mean; mask = {}; {}",
                      kMasks[(i + i / 6) % std::size(kMasks)], types);
      const bool is_two_level = block_n % 64 == 0 && i % 4 == 3;
      const int overlap = i / 3 % 2 == 0 && (!is_two_level || block_n == 64) ? 1 : 0;
      const bool ping_pong = num_warps > 4 && i % 2 == 1;
      const Schedule schedule =
          wgmma_schedule(num_warps, block_n, overlap, 2 + static_cast<int>(i % 3), ping_pong);
      for (const auto& [m, n] : {std::pair(130, 333), std::pair(333, 130), std::pair(250, 225)}) {
        cases.push_back({body,
                         {.b = 1, .hq = 2, .hkv = 1, .m = m, .n = n},
                         "biased_k",
                         Layout::kBhtd,
                         schedule});
      }
      ++i;
    }
  }
  run_cases(cases, lab);
}

TEST_CASE("wgmma: query heads that share key heads", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const size_t i : {0, 1}) {
    for (const auto& [hq, hkv] :
         {std::pair(3, 3), std::pair(4, 1), std::pair(8, 2), std::pair(8, 1), std::pair(16, 2)}) {
      cases.push_back({forms()[i].body,
                       {.b = 2, .hq = hq, .hkv = hkv, .m = 67, .n = 90},
                       "normal",
                       Layout::kBhtd,
                       forms()[i].schedule});
    }
  }
  run_cases(cases, lab);
}

TEST_CASE("wgmma: layouts", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  std::vector<Case> cases;
  for (const Layout layout : {Layout::kBhtd, Layout::kBthd, Layout::kPadded, Layout::kBroadcast}) {
    for (const std::string_view body :
         {"head_dim = 64; lse = on; smooth_k = mean; mask = causal(bottom_right)",
          "head_dim = 72; value_head_dim = 40; output = f32; lse = on; q = int8 per head; "
          "k = int8 per tensor; p = e4m3 range 448; v = e4m3 per channel",
          "head_dim = 40; value_head_dim = 24; lse = on; input = bf16"}) {
      for (const auto& [m, n] : {std::pair(100, 130), std::pair(130, 100)}) {
        cases.push_back({std::string(body),
                         {.b = 3, .hq = 4, .hkv = 2, .m = m, .n = n},
                         "normal",
                         layout,
                         wgmma_schedule(8, 64)});
      }
    }
  }
  run_cases(cases, lab);
}

// K and V of 33 heads exceed what one group may keep in the L2 cache.
TEST_CASE("wgmma: heads in groups", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  constexpr reference::ProblemShape kWide = {.b = 3, .hq = 11, .hkv = 11, .m = 1, .n = 700};
  run_cases({{"head_dim = 256; mask = causal(bottom_right); lse = on", kWide, "normal",
              Layout::kBhtd, wgmma_schedule(4, 64)},
             {"head_dim = 256; mask = none; lse = on",
              {.b = 3, .hq = 12, .hkv = 4, .m = 66, .n = 700},
              "normal",
              Layout::kBhtd,
              wgmma_schedule(4, 64)}},
            lab);
}

// A mask that leaves some rows, whole warpgroups and whole blocks without keys: the judge demands
// exactly 0 and -inf; here that there are such rows at all.
TEST_CASE("wgmma: rows without keys are zero", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  for (const int overlap : {0, 1}) {
    const Variant variant = variant_of("head_dim = 64; lse = on; mask = causal(bottom_right)");
    const auto kernel = lab.kernel(make_request(variant, wgmma_schedule(8, 64, overlap)));
    const reference::ProblemShape shape = {.b = 1, .hq = 2, .hkv = 2, .m = 300, .n = 30};
    Problem problem(*kernel, make_inputs("normal", shape, variant.input, 5));
    problem.launch();
    const HostTensor o = problem.o(), lse = problem.lse();
    for (int64_t i = 0; i < 270; ++i) {
      CAPTURE(overlap, i);
      REQUIRE(lse.get(0, 1, i, 0) == -std::numeric_limits<float>::infinity());
      for (int64_t j = 0; j < 64; ++j) REQUIRE(o.get(0, 1, i, j) == 0.0f);
    }
    REQUIRE(std::isfinite(lse.get(0, 1, 270, 0)));
  }
}

}  // namespace
}  // namespace sagejit::test
