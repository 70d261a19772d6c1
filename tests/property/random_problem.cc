#include "tests/property/random_problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <span>
#include <string_view>

namespace sagejit::test {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t seed) : engine_(seed) {}
  int64_t below(int64_t count) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(count));
  }
  bool one_in(int64_t count) { return below(count) == 0; }
  template <typename T, size_t size>
  const T& of(const T (&choices)[size]) {
    return choices[below(static_cast<int64_t>(size))];
  }

 private:
  std::mt19937_64 engine_;
};

std::string granularity(Draw& draw) {
  constexpr std::string_view kNames[] = {"tensor", "head", "token", "block", "warp", "thread"};
  const std::string_view name = draw.of(kNames);
  if (name == "tensor" || name == "head" || name == "token") return std::string(name);
  return fmt::format("{}({})", name, 16 * (1 + draw.below(8)));
}

std::string mask(Draw& draw) {
  constexpr std::string_view kNames[] = {"none", "causal(top_left)", "causal(bottom_right)",
                                         "window"};
  const std::string_view name = draw.of(kNames);
  if (name != "window") return std::string(name);
  const int64_t left = draw.below(200), right = draw.below(200);
  return fmt::format("window({}, {})", left, right);
}

std::string accumulator(Draw& draw, bool half) {
  constexpr std::string_view kOneLevel[] = {"f32", "f16"};
  constexpr int kIntervals[] = {16, 32, 64};
  if (draw.one_in(2)) return half ? std::string(draw.of(kOneLevel)) : "f32";
  const std::string_view inner = half ? draw.of(kOneLevel) : "f32";
  return fmt::format("{} + f32 every {}", inner, draw.of(kIntervals));
}

// int8 P and V. No range between two integers: there exp2's last bit decides where the largest P
// goes.
std::string integer_operands(Draw& draw) {
  constexpr std::string_view kOperands[] = {"p = int8; v = int8", "p = uint8; v = int8",
                                            "p = int8 range 100; v = int8 range 63",
                                            "p = uint8; v = int8; smooth_v = mean",
                                            "p = uint8 range 31; v = int8; rescale_threshold = 3"};
  return std::string(draw.of(kOperands));
}

// What Q and K are quantized to.
using DrawType = std::string (*)(Draw& draw);

std::string integer_type(Draw& draw) {
  return draw.one_in(4) ? "int4" : "int8";
}

std::string integer_or_float_type(Draw& draw) {
  return draw.one_in(4) ? "e4m3" : integer_type(draw);
}

std::string fp4_type(Draw&) {
  return "fp4";
}

// fp4 has one granularity, which needs no name.
std::string quantized(Draw& draw, const std::string& type) {
  return type == "fp4" ? type : fmt::format("{} per {}", type, granularity(draw));
}

struct Body {
  std::string input, text;  // text: everything but P, V and how they add up
  int64_t d, dv;
};

Body body(Draw& draw, DrawType type_of_codes) {
  constexpr std::string_view kInputs[] = {"f16", "bf16"}, kOutputs[] = {"f16", "bf16", "f32"};
  Body result;
  result.input = draw.of(kInputs);
  // Wide heads compile slowly: one in eight.
  const int64_t widest = draw.one_in(8) ? 31 : 15;
  result.d = 16 + 8 * draw.below(widest);
  result.dv = draw.one_in(2) ? result.d : 16 + 8 * draw.below(widest);
  std::string& text = result.text;
  text = fmt::format("head_dim = {}; value_head_dim = {}; input = {}; output = {}", result.d,
                     result.dv, result.input, draw.of(kOutputs));
  const std::string type = type_of_codes(draw);
  text += fmt::format("; lse = {}", draw.one_in(3) ? "off" : "on");
  text += fmt::format("; q = {}", quantized(draw, type));
  text += fmt::format("; k = {}", quantized(draw, type));
  if (draw.one_in(4)) {
    text += fmt::format("; smooth_q = mean per block({})", 64 * (1 + draw.below(4)));
  }
  text += fmt::format("; smooth_k = {}", draw.one_in(3) ? "none" : "mean");
  text += fmt::format("; mask = {}", mask(draw));
  return result;
}

std::string scale(Draw& draw) {
  return draw.one_in(4) ? fmt::format("; scale = 0.{:02}", 1 + draw.below(30)) : "";
}

// Key tiles that leave room for two stages beside the largest Q, in steps of 32.
Schedule wgmma_schedule_for(Draw& draw, const Body& body) {
  constexpr int64_t kStep = 32, kMostSteps = 8, kStageBytes = 60000;
  const auto padded = [](int64_t dim) { return (dim + 31) / 32 * 32; };
  const int64_t step_bytes = kStep * (padded(body.d) + 2 * padded(body.dv));
  const int64_t steps = std::clamp<int64_t>(kStageBytes / step_bytes, 1, kMostSteps);
  constexpr int64_t kMostKeysOfThree = 192;  // and channels: their sums' registers
  const auto block_n = static_cast<int>(kStep * (1 + draw.below(steps)));
  const bool fits_three = std::max<int64_t>(block_n, body.dv) <= kMostKeysOfThree;
  const auto num_warps = static_cast<int>(4 * (1 + draw.below(fits_three ? 3 : 2)));
  const auto overlap = static_cast<int>(draw.below(2));
  Schedule schedule = wgmma_schedule(num_warps, block_n, overlap);
  schedule.ping_pong = num_warps > 4 && draw.one_in(2);
  return schedule;
}

// P, V and how they add up, as the wgmma kernel has them; two levels where the tiles allow it.
std::string wgmma_products(Draw& draw, const Body& body, const Schedule& schedule) {
  // Ranges that e4m3 has: at one between two codes exp2's last bit decides where the largest P
  // goes.
  constexpr std::string_view kBytes[] = {
      "p = e4m3 range 448; v = e4m3 per channel",
      "p = e4m3 range 112; v = e4m3 per channel range 2.25",
      "p = e4m3 range 16; v = e4m3 per channel; rescale_threshold = 4",
      "p = e4m3 range 16; v = e4m3 per channel; smooth_v = mean; rescale_threshold = 4",
      "p = e5m2 range 57344; v = e5m2 per channel",
      "p = e5m2 range 16; v = e4m3 per channel; smooth_v = mean; rescale_threshold = 8",
      "p = e4m3 range 448; v = e5m2 per channel range 7",
      "p = e4m3 range 448 direct; v = e4m3 per channel",
      "p = e4m3 range 16 direct; v = e4m3 per channel; smooth_v = mean; rescale_threshold = 4"};
  const bool is_bytes = draw.one_in(2);
  const bool is_f16 = body.input == "f16" && !is_bytes;
  std::string text = is_bytes ? std::string(draw.of(kBytes)) : "";
  if (!is_bytes && body.input == "bf16" && draw.one_in(3)) text = "p = f16; v = f16";
  if (!is_bytes && draw.one_in(4)) text += "; rescale_threshold = 3";
  const std::string inner = is_f16 && draw.one_in(2) ? "f16" : "f32";
  constexpr int kIntervals[] = {32, 64, 128};
  const int interval = draw.of(kIntervals), block_n = schedule.block_n;
  const bool fits = interval % block_n == 0 || (!schedule.overlap && block_n % interval == 0);
  const bool is_two_level = fits && !(is_bytes && body.dv > 176) && draw.one_in(2);
  const bool within_tile = schedule.overlap ? interval == block_n : block_n % interval == 0;
  if (is_bytes && is_two_level && within_tile && draw.one_in(2)) {
    return fmt::format("{}; pv_accumulator = s32 + f32 every {}", integer_operands(draw), interval);
  }
  const bool sums_quantized = text.find("direct") != std::string::npos || draw.one_in(2);
  return fmt::format("{}; pv_accumulator = {}{}; row_sum = {}", text, inner,
                     is_two_level ? fmt::format(" + f32 every {}", interval) : "",
                     sums_quantized ? "quantized" : "exact");
}

// P, V and how they add up, as the mma.sync kernel has them in 8 bits.
std::string eight_bit_products(Draw& draw, const Body& body) {
  constexpr int kIntervals[] = {32, 64, 128};
  // Of wide heads, shared memory has no room for two stages of 128 keys.
  constexpr int64_t kWide = 256;
  const int interval = std::min(draw.of(kIntervals), body.d + body.dv > kWide ? 64 : 128);
  std::string text;
  bool sums_quantized = draw.one_in(2);
  if (draw.one_in(2)) {
    return fmt::format("{}; pv_accumulator = s32 + f32 every {}", integer_operands(draw), interval);
  }
  if (draw.one_in(3)) {
    constexpr std::string_view kRanges[] = {
        "p = e4m3 range 448; v = e4m3 range 2.25", "p = e4m3 range 224; v = e4m3 range 4.5",
        "p = e4m3 range 112; v = e4m3 range 9", "p = e5m2 range 448; v = e4m3 range 2.25",
        "p = e5m2 range 448; v = e5m2 range 2"};
    text = fmt::format("{}; pv_accumulator = f16 + f32 every {}", draw.of(kRanges),
                       std::min(interval, 64));
  } else {
    constexpr std::string_view kRanges[] = {
        "p = e4m3 range 448; v = e4m3",
        "p = e4m3 range 16; v = e4m3; rescale_threshold = 4",
        "p = e5m2; v = e5m2",
        "p = e5m2 range 16; v = e4m3; rescale_threshold = 8",
        "p = e4m3; v = e5m2 range 7; smooth_v = mean",
        "p = e4m3 range 16; v = e4m3; smooth_v = mean; rescale_threshold = 4",
        "p = e4m3 range 16 direct; v = e4m3; smooth_v = mean; rescale_threshold = 4"};
    text = draw.of(kRanges);
    sums_quantized |= text.find("direct") != std::string::npos;
    text += "; pv_accumulator = f32";
    if (draw.one_in(2)) text += fmt::format(" + f32 every {}", interval);
  }
  return fmt::format("{}; row_sum = {}", text, sums_quantized ? "quantized" : "exact");
}

// P, V and how they add up over fp4 Q and K.
std::string products_beside_fp4(Draw& draw) {
  constexpr std::string_view kProducts[] = {
      "p = fp4; v = fp4",
      "p = fp4 range 1; v = fp4",
      "p = fp4 range 288; v = fp4; rescale_threshold = 3",
      "p = fp4; v = fp4; pv_accumulator = f32 + f32 every 64",
      "p = fp4; v = fp4; pv_accumulator = f32 + f32 every 128",
      "p = e4m3; v = e4m3; smooth_v = mean",
      "p = int8; v = int8; pv_accumulator = s32 + f32 every 64"};
  return std::string(draw.of(kProducts));
}

int64_t length(Draw& draw) {
  constexpr int64_t kEdges[] = {1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 256, 257};
  if (draw.one_in(30)) return 0;
  return draw.one_in(2) ? draw.of(kEdges) : 1 + draw.below(400);
}

// Shape, input and layout.
void draw_problem(Draw& draw, Case& result) {
  constexpr int64_t kRatios[] = {1, 1, 2, 3, 4};
  const int64_t hkv = 1 + draw.below(2);
  result.shape = {.b = 1 + draw.below(2),
                  .hq = hkv * draw.of(kRatios),
                  .hkv = hkv,
                  .m = length(draw),
                  .n = length(draw)};
  constexpr std::string_view kInputs[] = {"normal", "biased_qk", "biased_k", "outlier_v",
                                          "sink",   "zero",      "constant", "fp16_max"};
  result.input = draw.of(kInputs);
  // f16 sums of values near the f16 maximum overflow, and so does f16 where that maximum was
  // rounded up to a bf16: documented, and no test.
  const auto has = [&](std::string_view entry) {
    return result.variant.find(entry) != std::string::npos;
  };
  const bool overflows = has("pv_accumulator = f16") ||
                         (has("input = bf16") && (has("output = f16") || has("v = f16")));
  // Its K is too small for the scales of fp4: no score tells one key from another.
  const bool vanishes = has("k = fp4");
  if (result.input == "fp16_max" && (overflows || vanishes)) result.input = "normal";
  constexpr Layout kLayouts[] = {Layout::kBhtd, Layout::kBthd, Layout::kPadded, Layout::kBroadcast};
  result.layout = draw.of(kLayouts);
}

}  // namespace

Case random_case(uint64_t seed) {
  Draw draw(seed);
  const Body variant = body(draw, integer_type);
  Case result;
  result.variant = fmt::format("{}; pv_accumulator = {}", variant.text,
                               accumulator(draw, variant.input == "f16"));
  result.variant += fmt::format("; row_sum = {}", draw.one_in(2) ? "exact" : "quantized");
  result.variant += scale(draw);
  draw_problem(draw, result);
  return result;
}

Case random_eight_bit_case(uint64_t seed) {
  Draw draw(seed);
  const Body variant = body(draw, integer_or_float_type);
  Case result;
  result.variant = fmt::format("{}; {}", variant.text, eight_bit_products(draw, variant));
  result.variant += scale(draw);
  draw_problem(draw, result);
  return result;
}

Case random_fp4_case(uint64_t seed) {
  Draw draw(seed);
  const Body variant = body(draw, fp4_type);
  Case result;
  result.variant = fmt::format("{}; {}", variant.text, products_beside_fp4(draw));
  result.variant += scale(draw);
  draw_problem(draw, result);
  return result;
}

Case random_wgmma_case(uint64_t seed) {
  Draw draw(seed);
  const Body variant = body(draw, integer_or_float_type);
  Case result;
  Schedule schedule = wgmma_schedule_for(draw, variant);
  const std::string products = wgmma_products(draw, variant, schedule);
  const bool has_exponentials = products.find("direct") == std::string::npos;
  if (!has_exponentials) schedule.overlap = std::min(schedule.overlap, 1);
  result.schedule = schedule;
  result.variant = fmt::format("{}; {}", variant.text, products);
  result.variant += scale(draw);
  draw_problem(draw, result);
  return result;
}

}  // namespace sagejit::test
