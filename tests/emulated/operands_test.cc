// The operands of the wgmma kernel in the workspace, bit for bit and byte for byte: codes as core
// matrices, padding included, V in 16 bits, e4m3 and int8; and 8-bit V for the mma.sync kernel.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/emulated/lab.h"
#include "tests/emulated/prepared.h"
#include "tests/emulated/problem.h"
#include "tests/reference/float16.h"
#include "tests/reference/quantizer.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

using reference::make_inputs;
using reference::Shape4;
using Bytes = std::vector<uint8_t>;

constexpr int64_t kCoreBytes = 128;

int64_t round_up(int64_t x, int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}

template <typename T>
std::vector<T> elements(const Bytes& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

// ---- The layouts, as specs/numerics.md has them.

// Byte x of token t: bands of 8 tokens, in a band a core matrix for every 16 bytes of a row.
int64_t token_rows(int64_t t, int64_t x, int64_t row_bytes) {
  return t / 8 * (8 * row_bytes) + x / 16 * kCoreBytes + t % 8 * 16 + x % 16;
}

// The code of channel c of token t: in a band of 16 tokens a core matrix for every 8 channels. Of 8
// tokens and the next 8, pairs 2i, 2i + 1 of each are neighbours.
int64_t channel_rows(int64_t t, int64_t c, int64_t columns) {
  const int64_t pair = t % 8 / 2, next_eight = t % 16 / 8;
  const int64_t place = 4 * pair + 2 * next_eight + t % 2;
  return t / 16 * (16 * columns) + c / 8 * kCoreBytes + c % 8 * 16 + place;
}

// ---- What each buffer must hold.

Bytes expected_codes(const reference::Quantized& model, const Shape4& s, int64_t padded_tokens,
                     int64_t row_bytes) {
  Bytes bytes(static_cast<size_t>(s[0] * s[1] * padded_tokens * row_bytes), 0);
  size_t code = 0;
  reference::for_each_index(s, [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    const int64_t head = (b * s[1] + h) * padded_tokens * row_bytes;
    bytes[static_cast<size_t>(head + token_rows(t, d, row_bytes))] =
        static_cast<uint8_t>(model.codes[code++]);
  });
  return bytes;
}

// A conversion makes every NaN the same one.
uint16_t expected_half(const HostTensor& v, const Variant& variant, int64_t element) {
  uint16_t bits = 0;
  std::memcpy(&bits, v.bytes().data() + element * 2, 2);
  if (variant.v.type == variant.input) return bits;
  const float value = reference::bf16_to_f32(bits);
  return std::isnan(value) ? uint16_t{0x7fff} : reference::f32_to_f16(value);
}

Bytes expected_halves(const HostTensor& v, const Variant& variant, int64_t padded_tokens) {
  const Shape4& s = v.shape();
  const int64_t row_bytes = 2 * round_up(s[3], 16);
  Bytes bytes(static_cast<size_t>(s[0] * s[1] * padded_tokens * row_bytes), 0);
  reference::for_each_index(s, [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    const int64_t head = (b * s[1] + h) * padded_tokens * row_bytes;
    const uint16_t value = expected_half(v, variant, v.offset(b, h, t, d));
    std::memcpy(bytes.data() + head + token_rows(t, 2 * d, row_bytes), &value, 2);
  });
  return bytes;
}

Bytes expected_values(const reference::QuantizedValues& model, const Shape4& s,
                      int64_t padded_tokens) {
  const int64_t columns = round_up(s[3], 16);
  Bytes bytes(static_cast<size_t>(s[0] * s[1] * padded_tokens * columns), 0);
  size_t code = 0;
  reference::for_each_index(s, [&](int64_t b, int64_t h, int64_t t, int64_t c) {
    const int64_t head = (b * s[1] + h) * padded_tokens * columns;
    bytes[static_cast<size_t>(head + channel_rows(t, c, columns))] = model.codes[code++];
  });
  return bytes;
}

// Padding channels have the scale 0.
std::vector<float> expected_value_scales(const reference::QuantizedValues& model, const Shape4& s) {
  const int64_t columns = round_up(s[3], 16);
  std::vector<float> scales(static_cast<size_t>(s[0] * s[1] * columns), 0.0f);
  for (int64_t i = 0; i < s[0] * s[1] * s[3]; ++i) {
    scales[static_cast<size_t>(i / s[3] * columns + i % s[3])] =
        model.scales[static_cast<size_t>(i)];
  }
  return scales;
}

// "" or where the first of how many differences is.
std::string difference(const Bytes& actual, const Bytes& expected) {
  if (actual.size() != expected.size()) {
    return fmt::format("{} bytes instead of {}", actual.size(), expected.size());
  }
  size_t num_wrong = 0, first = 0;
  for (size_t i = actual.size(); i-- > 0;) {
    if (actual[i] != expected[i]) ++num_wrong, first = i;
  }
  if (num_wrong == 0) return "";
  return fmt::format("{} bytes differ, the first is [{}]: {:#04x} instead of {:#04x}", num_wrong,
                     first, actual[first], expected[first]);
}

Bytes bytes_of(const std::vector<float>& values) {
  Bytes bytes(values.size() * 4);
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// ---- One problem.

struct Fixture {
  std::shared_ptr<Device> device = Lab::wgmma().device();
  Variant variant;
  std::shared_ptr<const Kernel> kernel;
  int64_t block_m = 192, block_n = 128;

  bool ready() const { return Lab::wgmma().ready(); }
  void use(const std::string& body) {
    variant = variant_of(body);
    block_n = variant.head_dim > 128 ? 64 : 128;         // as shared memory allows
    block_m = variant.value_head_dim > 128 ? 128 : 192;  // as registers allow
    kernel = preparing_kernel(
        device, variant,
        fmt::format("wgmma=1 q_in_registers=0 block_m={} block_n={} warps={} stages=2", block_m,
                    block_n, block_m / 16));
  }
  // For the mma.sync kernel, whose Q and K are tested elsewhere (quantizer_test.cc).
  void use_mma_sync(const std::string& body) {
    variant = variant_of(body);
    device = Lab::mma_sync_e4m3().device();
    block_n = variant.head_dim > 128 ? 32 : 64;
    kernel =
        preparing_kernel(device, variant, fmt::format("block_m=64 block_n={} warps=4", block_n));
  }
};

void check_side(const Problem& problem, const std::string& name, const reference::Quantized& model,
                const Shape4& shape, int64_t token_multiple) {
  CAPTURE(name);
  const int64_t padded_tokens = round_up(shape[2], token_multiple);
  CHECK(difference(problem.workspace(name + "_codes"),
                   expected_codes(model, shape, padded_tokens, round_up(shape[3], 32))) == "");
}

// Row layouts are tested elsewhere (quantizer_test.cc), and the scales with them: here those of K.
void check_k_scales(const Problem& problem, const reference::GroupRule& rule,
                    const reference::Quantized& model) {
  const std::vector<float> scales = elements<float>(problem.workspace("k_scales"));
  const Shape4& s = problem.inputs().k.shape();
  const int64_t heads = s[0] * s[1];
  const int64_t stride = static_cast<int64_t>(scales.size()) / heads;
  size_t num_wrong = 0;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t t = 0; t < s[2]; ++t) {
      const int64_t group = rule.group_of(t);
      num_wrong += scales[static_cast<size_t>(head * stride + group)] !=
                   model.scales[static_cast<size_t>(head * model.num_groups + group)];
    }
  }
  CHECK(num_wrong == 0);
}

// With smoothed V, v_scales holds a head's scales and, behind them, its means, both for padded
// channels.
struct ScalesAndMeans {
  std::vector<float> scales, means;  // [b, h, padded channels] and [b, h, dv]
};
ScalesAndMeans split_scales(const std::vector<float>& found, const Shape4& shape) {
  ScalesAndMeans result;
  const int64_t columns = static_cast<int64_t>(found.size()) / (2 * shape[0] * shape[1]);
  for (int64_t head = 0; head < shape[0] * shape[1]; ++head) {
    const auto scales = found.begin() + head * 2 * columns, means = scales + columns;
    result.scales.insert(result.scales.end(), scales, means);
    result.means.insert(result.means.end(), means, means + shape[3]);
    CHECK(std::all_of(means + shape[3], means + columns, [](float x) { return x == 0; }));
  }
  return result;
}

// The mean over the tokens, summed in f32 in whatever order; 0 where it is not finite or such a sum
// overflows.
void check_means(const std::vector<float>& means, const HostTensor& v) {
  const std::vector<double> truth = reference::token_mean(v);
  REQUIRE(means.size() == truth.size());
  const double largest =
      std::numeric_limits<float>::max() / std::max(1.0, static_cast<double>(v.shape()[2]));
  for (size_t i = 0; i < means.size(); ++i) {
    if (!(std::abs(truth[i]) < largest)) {
      CHECK(means[i] == 0);
      continue;
    }
    CHECK(std::abs(means[i] - truth[i]) <= 0x1p-20 * (1 + std::abs(truth[i])));
  }
}

void check_values(const Problem& problem, const Variant& variant, int64_t padded_tokens) {
  const HostTensor& v = problem.inputs().v;
  if (bits_of(variant.v.type) == 16) {
    CHECK(difference(problem.workspace("v_codes"), expected_halves(v, variant, padded_tokens)) ==
          "");
    return;
  }
  const std::vector<float> found = elements<float>(problem.workspace("v_scales"));
  const bool smooth = variant.v.smoothing == Smoothing::kMean;
  const ScalesAndMeans parts = smooth ? split_scales(found, v.shape()) : ScalesAndMeans{found, {}};
  if (smooth) check_means(parts.means, v);
  const reference::QuantizedValues model =
      reference::quantize_values(v, variant.v.type, reference::value_range(variant), parts.means);
  CHECK(difference(problem.workspace("v_codes"),
                   expected_values(model, v.shape(), padded_tokens)) == "");
  CHECK(difference(bytes_of(parts.scales), bytes_of(expected_value_scales(model, v.shape()))) ==
        "");
}

void check_operands(const Fixture& f, const Inputs& inputs, Layout layout) {
  Problem problem(*f.kernel, inputs, layout);
  problem.launch(kQuantizePhase);
  const Shape4 &q = inputs.q.shape(), &k = inputs.k.shape();
  CAPTURE(f.variant.head_dim, name_of(f.variant.v.type), name_of(f.variant.input), q[2], k[2],
          name_of(layout));
  std::vector<float> mean;
  if (problem.has_workspace("k_mean")) mean = elements<float>(problem.workspace("k_mean"));
  const reference::GroupRule rule = reference::key_groups(f.variant);
  const reference::Quantized k_model =
      reference::quantize(problem.inputs().k, rule, {mean, 0}, f.variant.hadamard);
  check_side(problem, "q",
             reference::quantize(problem.inputs().q, reference::query_groups(f.variant), {},
                                 f.variant.hadamard),
             q, f.block_m);
  check_side(problem, "k", k_model, k, f.block_n);
  if (!rule.whole_tensor) check_k_scales(problem, rule, k_model);
  check_values(problem, f.variant, round_up(k[2], f.block_n));
  CHECK(problem.damage() == "");
}

// Of V's four types and input's: a copy, a conversion, and codes of either.
constexpr std::string_view kValues[] = {
    "input = f16; v = f16",
    "input = bf16; v = f16; smooth_k = mean",
    "input = f16; v = e4m3; smooth_k = mean",
    "input = bf16; v = e4m3 range 2.25",
    "input = f16; v = e4m3; smooth_v = mean",
    "input = bf16; v = e4m3; smooth_v = mean; smooth_k = mean",
    "input = f16; v = int8; smooth_k = mean",
    "input = bf16; v = int8 range 63; smooth_v = mean",
    "input = f16; v = e5m2; smooth_v = mean",
    "input = bf16; p = e4m3; v = e5m2 range 7",
};

TEST_CASE("operands of the wgmma kernel in every head dim", "[emulated][operands]") {
  Fixture f;
  if (!f.ready()) return;
  for (const int d : {16, 24, 64, 80, 128, 256}) {
    for (const std::string_view values : kValues) {
      f.use(fmt::format("head_dim = {}; q = int8 per thread(32); k = int8 per thread(64); {}", d,
                        values));
      const auto inputs = [&](reference::ProblemShape shape) {
        shape.d = shape.dv = d;
        return make_inputs("normal", shape, f.variant.input, 5);
      };
      for (const int64_t length : {1, 7, 63, 65, 127, 129, 300}) {
        check_operands(f, inputs({.b = 1, .hq = 2, .hkv = 1, .m = length, .n = length}),
                       length == 129 ? Layout::kPadded : Layout::kBhtd);
      }
      check_operands(f, inputs({.b = 2, .hq = 2, .hkv = 2, .m = 33, .n = 140}), Layout::kBthd);
    }
  }
}

TEST_CASE("8-bit V for the mma.sync kernel in every head dim", "[emulated][operands]") {
  Fixture f;
  if (!f.ready()) return;
  for (const int d : {16, 24, 64, 80, 128, 256}) {
    for (const std::string_view values :
         {"input = f16; v = int8; pv_accumulator = s32 + f32 every 32",
          "input = bf16; v = int8 range 100; smooth_v = mean; pv_accumulator = s32 + f32 every 32",
          "input = bf16; v = e4m3 range 2.25; smooth_k = mean",
          "input = f16; v = e4m3; smooth_v = mean", "input = f16; v = e5m2; smooth_v = mean"}) {
      f.use_mma_sync(fmt::format("head_dim = {}; {}", d, values));
      for (const int64_t length : {1, 7, 63, 65, 129, 300}) {
        reference::ProblemShape shape = {.b = 1, .hq = 2, .hkv = 2, .m = 20, .n = length};
        shape.d = shape.dv = d;
        Problem problem(*f.kernel, make_inputs("normal", shape, f.variant.input, 5),
                        length == 129 ? Layout::kPadded : Layout::kBthd);
        problem.launch(kQuantizePhase);
        CAPTURE(d, values, length);
        check_values(problem, f.variant, round_up(length, f.block_n));
        CHECK(problem.damage() == "");
      }
    }
  }
}

TEST_CASE("operands of the wgmma kernel in every granularity", "[emulated][operands]") {
  Fixture f;
  if (!f.ready()) return;
  for (const std::string_view scales :
       {"q = int8 per tensor; k = int8 per head", "q = int8 per head; k = int8 per tensor",
        "q = int8 per block(48); k = int8 per warp(80)", "q = int8 per token; k = int8 per token",
        "q = int8 per thread(112); k = int8 per thread(16); lse = on",
        "q = e4m3 per thread(32); k = e4m3 per block(64)", "q = e4m3 per head; k = e4m3 per token",
        "q = int4 per thread(32); k = int4 per token"}) {
    f.use(fmt::format("head_dim = 40; value_head_dim = 72; v = e4m3; smooth_k = mean; {}", scales));
    for (const std::string_view input : reference::input_names()) {
      for (const int64_t length : {5, 200}) {
        CAPTURE(input);
        check_operands(
            f,
            make_inputs(
                input,
                {.b = 2, .hq = 4, .hkv = 2, .m = length, .n = 77 + length, .d = 40, .dv = 72},
                f.variant.input, 6),
            length == 5 ? Layout::kBroadcast : Layout::kPadded);
      }
    }
  }
}

// Rows of 6, 8, 12 and 16 core matrices, whose tiles meet in shared memory; groups within a warp
// and of several; runs of rows that are no power of two.
TEST_CASE("operands of the wgmma kernel in rows of every length", "[emulated][operands]") {
  Fixture f;
  if (!f.ready()) return;
  for (const auto& [d, scales] : std::initializer_list<std::pair<int, std::string_view>>{
           {96, "q = int8 per token; k = int8 per thread(64)"},
           {128, "q = int8 per thread(48); k = int8 per token"},
           {192, "q = int8 per thread(32); k = int8 per block(64)"},
           {256, "q = int8 per thread(128); k = int8 per token"}}) {
    f.use(fmt::format("head_dim = {}; v = e4m3; smooth_k = mean; {}", d, scales));
    for (const std::string_view input : {"normal", "biased_k", "zero", "fp16_max"}) {
      CAPTURE(d, scales, input);
      check_operands(
          f,
          make_inputs(input, {.b = 1, .hq = 2, .hkv = 1, .m = 75, .n = 203, .d = d, .dv = d},
                      f.variant.input, 7),
          Layout::kPadded);
    }
  }
}

TEST_CASE("rotated operands of the wgmma kernel", "[emulated][operands][hadamard]") {
  Fixture f;
  if (!f.ready()) return;
  for (const int d : {16, 32, 64, 128, 256}) {
    f.use(
        fmt::format("head_dim = {}; smooth_k = mean; hadamard = on; q = {} per thread(32); "
                    "v = e4m3",
                    d, d % 64 ? "int4" : "int8"));
    for (const int64_t length : {1, 65, 200}) {
      check_operands(
          f,
          make_inputs("biased_k",
                      {.b = 1, .hq = 2, .hkv = 1, .m = length, .n = length, .d = d, .dv = d},
                      f.variant.input, 5),
          Layout::kPadded);
    }
  }
}

TEST_CASE("V that hurts: zeros, NaN, infinities and the ends of its types",
          "[emulated][operands]") {
  Fixture f;
  if (!f.ready()) return;
  for (const std::string_view values : kValues) {
    f.use(fmt::format("head_dim = 64; {}", values));
    Inputs inputs =
        make_inputs("normal", {.b = 1, .hq = 2, .hkv = 2, .m = 1, .n = 90}, f.variant.input, 7);
    const bool is_bf16 = f.variant.input == DType::kBF16;
    const double largest = is_bf16 ? 0x1.fep127 : 65504.0, smallest = is_bf16 ? 0x1p-133 : 0x1p-24;
    for (int64_t t = 0; t < 90; ++t) {
      inputs.v.set(0, 0, t, 0, 0.0);
      inputs.v.set(0, 0, t, 1, t % 2 ? -0.0 : 0.0);
      inputs.v.set(0, 0, t, 2, t % 3 ? largest : -largest);
      inputs.v.set(0, 0, t, 3, t % 3 ? smallest : 0);
      if (t % 7 == 0) inputs.v.set(0, 0, t, 4, std::nan(""));
      inputs.v.set(0, 0, t, 5, std::nan(""));
      if (t == 40) inputs.v.set(0, 0, t, 6, -std::numeric_limits<double>::infinity());
    }
    check_operands(f, inputs, Layout::kBhtd);
  }
}

TEST_CASE("without keys the scales of V are zeros", "[emulated][operands]") {
  Fixture f;
  if (!f.ready()) return;
  f.use("head_dim = 64; v = e4m3");
  check_operands(f,
                 make_inputs("normal", {.b = 2, .hq = 2, .hkv = 2, .m = 3, .n = 0}, DType::kF16, 8),
                 Layout::kBhtd);
}

}  // namespace
}  // namespace sagejit::test
