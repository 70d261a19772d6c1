// The wgmma kernel's schedules: which of them give the same bits, and that no order of warps,
// asynchronous copies, products and blocks shows.
//
// Rows are independent, and a key tile's operations are the same wherever its operands are: warps
// and stages change no bit. Nor does overlap where O is one accumulator: it waits for the products
// of a tile before it is rescaled for the next, as in order. With two levels it does change bits:
//   in order      O = (O + inner) factor       sum, then product
//   overlapped    O = O factor + inner factor  the factor comes before the sum is complete
// and block_n does always: it decides where maxima move.
#include <fmt/format.h>

#include <algorithm>
#include <numbers>

#include "runtime/device/emulated_device.h"
#include "tests/emulated/judge.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

using Bytes = std::vector<uint8_t>;

struct Bits {
  Bytes o, lse;
  bool operator==(const Bits&) const = default;
};

Inputs inputs_of(const Variant& variant, reference::ProblemShape shape) {
  shape.d = variant.head_dim;
  shape.dv = variant.value_head_dim;
  return make_inputs("biased_k", shape, variant.input, 11);
}

Problem problem_for(const Kernel& kernel, const Variant& variant) {
  return {kernel, inputs_of(variant, {.b = 1, .hq = 4, .hkv = 2, .m = 150, .n = 300})};
}

Bits bits_of(Problem problem) {
  problem.launch();
  return {problem.o().bytes(), problem.lse().bytes()};
}
Bits bits_of(const Kernel& kernel, const Inputs& inputs) {
  return bits_of(Problem(kernel, inputs));
}
Bits bits_of(const Kernel& kernel, const Variant& variant) {
  return bits_of(problem_for(kernel, variant));
}

struct Family {
  std::string_view body;
  int block_n;
  bool is_two_level;
};

constexpr Family kFamilies[] = {
    {"head_dim = 32; lse = on; smooth_k = mean; mask = causal(bottom_right); q = int8 per "
     "thread(32); k = int8 per thread(64); p = e4m3 range 16 direct; v = e4m3 per channel; "
     "smooth_v = mean; row_sum = quantized; rescale_threshold = 4",
     128, false},
    {"head_dim = 32; lse = on; smooth_k = mean; mask = causal(bottom_right); q = int8 per "
     "thread(32); k = int8 per thread(64); p = e4m3 range 16; v = e4m3 per channel; "
     "rescale_threshold = 4",
     64, false},
    {"head_dim = 40; lse = on; smooth_k = mean; mask = window(100, 10); q = int8 per token; "
     "k = int8 per token; output = f32; pv_accumulator = f16",
     96, false},
    {"head_dim = 64; lse = on; smooth_k = mean; input = bf16", 128, false},
    {"head_dim = 32; lse = on; smooth_k = mean; mask = causal(top_left); "
     "pv_accumulator = f16 + f32 every 64",
     64, true},
    {"head_dim = 32; lse = on; smooth_k = mean; p = e4m3 range 448; v = e4m3 per channel; "
     "pv_accumulator = f32 + f32 every 64",
     64, true},
};

TEST_CASE("wgmma: warps, stages, overlap and turns give the same bits", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  for (const Family& family : kFamilies) {
    const Variant variant = variant_of(family.body);
    Bits expected[2];  // in order, overlapped
    for (const int overlap : {0, 1}) {
      Bits& first = expected[family.is_two_level && overlap > 0];
      for (const auto& [num_warps, stages, ping_pong] :
           {std::tuple(4, 2, false), std::tuple(8, 3, true), std::tuple(12, 4, false),
            std::tuple(12, 3, true), std::tuple(16, 3, false)}) {
        CAPTURE(family.body, overlap, num_warps, stages, ping_pong);
        const auto kernel = lab.kernel(make_request(
            variant, wgmma_schedule(num_warps, family.block_n, overlap, stages, ping_pong)));
        const Bits actual = bits_of(*kernel, variant);
        if (first.o.empty()) first = actual;
        CHECK(actual == first);
      }
    }
    CAPTURE(family.body);
    if (family.is_two_level) CHECK(expected[0].lse == expected[1].lse);
  }
}

// Scores too large for one multiply-add, the same in every tile: each P is exactly 1 only where
// they are taken relative to the maximum first. Of several scales some round up, and some down.
TEST_CASE("wgmma: large scores that are equal give the same bits", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  constexpr reference::ProblemShape kShape = {
      .b = 1, .hq = 2, .hkv = 1, .m = 70, .n = 300, .d = 32, .dv = 32};
  for (const char* scale : {"3e9", "1.1e8", "7e7", "2.3e7", "1e7"}) {
    const Variant variant =
        variant_of(fmt::format("head_dim = 32; lse = on; k = int8 per block(64); scale = {}; "
                               "rescale_threshold = 4",
                               scale));
    Inputs inputs = make_inputs("constant", kShape, variant.input, 1);
    inputs.v = make_inputs("normal", kShape, variant.input, 1).v;
    const auto bits = [&](int overlap) {
      return bits_of(*lab.kernel(make_request(variant, wgmma_schedule(8, 64, overlap))), inputs);
    };
    CAPTURE(scale);
    const Bits expected = bits(0);
    CHECK(bits(1) == expected);
  }
}

// Rows of several heads in one tile see the masks' edges elsewhere, and are the same rows.
TEST_CASE("wgmma: packed heads give the same bits", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  for (const Family& family : kFamilies) {
    const Variant variant = variant_of(family.body);
    Schedule schedule = wgmma_schedule(12, family.block_n, 1, 3, false);
    const auto alone = lab.kernel(make_request(variant, schedule));
    schedule.pack_heads = true;
    const auto packed = lab.kernel(make_request(variant, schedule));
    for (const auto& [hq, hkv, m] :
         {std::tuple(8, 1, 1), std::tuple(6, 2, 37), std::tuple(9, 3, 72), std::tuple(2, 1, 144),
          std::tuple(4, 2, 145)}) {
      CAPTURE(family.body, hq, hkv, m);
      const Inputs inputs = inputs_of(variant, {.b = 2, .hq = hq, .hkv = hkv, .m = m, .n = 170});
      CHECK(bits_of(*packed, inputs) == bits_of(*alone, inputs));
    }
  }
}

// The artifact as it is, on emulators with other habits and other numbers of SMs to share the
// query tiles out to: at most one block for each, which takes the next tile when it is done.
TEST_CASE("wgmma: the order of copies, products, warps and blocks does not show",
          "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  using emulator::AsyncOrder;
  struct Habit {
    emulator::Options options;
    int num_sms;
  };
  const Habit habits[] = {
      {{.async = AsyncOrder::kLate}, 1},
      {{.async = AsyncOrder::kEarly}, 3},
      {{.async = AsyncOrder::kEarly, .seed = 1}, 1},
      {{.async = AsyncOrder::kRandom, .seed = 2}, 2},
      {{.async = AsyncOrder::kRandom, .seed = 3}, 132},
      {{.async = AsyncOrder::kRandom, .seed = 5}, 1},
      {{.async = AsyncOrder::kLate, .seed = 4, .num_threads = 1}, 4},
  };
  for (const Family& family : kFamilies) {
    const Variant variant = variant_of(family.body);
    for (const auto& [num_warps, overlap, ping_pong] :
         {std::tuple(4, 1, false), std::tuple(12, 0, false), std::tuple(12, 1, true)}) {
      const Schedule schedule = wgmma_schedule(num_warps, family.block_n, overlap, 2, ping_pong);
      const auto kernel = lab.kernel(make_request(variant, schedule));
      const Bits expected = bits_of(*kernel, variant);
      Bits first;
      for (const Habit& habit : habits) {
        CAPTURE(family.body, num_warps, overlap, ping_pong, static_cast<int>(habit.options.async),
                habit.options.seed, habit.num_sms);
        const Kernel other(std::make_shared<EmulatedDevice>(*lab.device()->info().target,
                                                            habit.options, habit.num_sms),
                           kernel->artifact());
        const Bits actual = bits_of(other, variant);
        if (first.o.empty()) first = actual;
        CHECK(actual == first);
        // A GPU's approximate exp2 and tensor-core sums may differ in the last bit.
        if (lab.is_emulated()) CHECK(actual == expected);
      }
    }
  }
}

TEST_CASE("wgmma: a second run and separate phases give the same bits", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  for (const Family& family : kFamilies) {
    CAPTURE(family.body);
    const Variant variant = variant_of(family.body);
    const auto kernel = lab.kernel(make_request(variant, wgmma_schedule(4, family.block_n, 1)));
    const Bits first = bits_of(*kernel, variant);
    CHECK(bits_of(*kernel, variant) == first);
    Problem apart = problem_for(*kernel, variant);
    apart.launch(kQuantizePhase);
    apart.launch(kAttendPhase);
    CHECK(Bits{apart.o().bytes(), apart.lse().bytes()} == first);
    apart.launch(kAttendPhase);  // its counters of query tiles are as it found them
    CHECK(Bits{apart.o().bytes(), apart.lse().bytes()} == first);
    apart.launch(kBothPhases);  // in a used workspace
    CHECK(Bits{apart.o().bytes(), apart.lse().bytes()} == first);
  }
}

}  // namespace
}  // namespace sagejit::test
