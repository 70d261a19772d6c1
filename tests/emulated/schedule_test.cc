// A schedule changes how, never what. With the same block_n all output bits are the same. block_n
// itself decides where the running maximum moves, and so how P is rounded: there the bits may
// differ, and the bars hold.
#include "compiler/schedule/schedule.h"

#include <fmt/format.h>

#include "compiler/support/error.h"
#include "tests/emulated/judge.h"
#include "tests/emulated/lab.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr reference::ProblemShape kShape = {.b = 1, .hq = 2, .hkv = 1, .m = 150, .n = 300};

struct Bits {
  std::vector<uint8_t> o, lse;
  bool operator==(const Bits&) const = default;
};

struct Result {
  Bits bits;
  std::vector<std::string> failures;
};

Result run(const Variant& variant, const Kernel& kernel) {
  reference::ProblemShape shape = kShape;
  shape.d = variant.head_dim;
  shape.dv = variant.value_head_dim;
  Problem problem(kernel, make_inputs("biased_k", shape, variant.input, 11));
  problem.launch();
  return {{problem.o().bytes(), problem.lse().bytes()},
          judge(variant, problem, demand_for(variant, "biased_k"))};
}

Bits bits_of(const Kernel& kernel, const Inputs& inputs) {
  Problem problem(kernel, inputs);
  problem.launch();
  return {problem.o().bytes(), problem.lse().bytes()};
}

constexpr std::string_view kLines[] = {
    "block_m=16 warps=1 blocks_per_sm=1",
    "block_m=64 warps=4 blocks_per_sm=1",
    "block_m=64 warps=2 blocks_per_sm=1",
    "block_m=128 warps=8 blocks_per_sm=1",
    "block_m=128 warps=2 blocks_per_sm=1",
    "block_m=192 warps=4 blocks_per_sm=1",
    "block_m=256 warps=8 blocks_per_sm=1",
    "stages=3 blocks_per_sm=1",
    "stages=4 blocks_per_sm=1",
    "q_in_registers=0",
    "q_in_registers=1 blocks_per_sm=1",
    "q_in_registers=0 block_m=64 warps=2 stages=3 blocks_per_sm=1",
    "blocks_per_sm=3 block_m=64",
};

constexpr std::string_view kBodies[] = {
    "head_dim = 64; lse = on; smooth_k = mean; mask = causal(bottom_right); q = int8 per "
    "thread(32); "
    "k = int8 per thread(64); pv_accumulator = f16 + f32 every 32; row_sum = quantized",
    "head_dim = 72; lse = on; smooth_k = mean; mask = window(100, 10); q = int8 per token; "
    "k = int8 per token; output = f32",
};

int base_block_n(const Variant& variant) {
  return Lab::mma_sync().default_schedule(variant).block_n;
}

TEST_CASE("packed heads give the same bits", "[emulated][schedule]") {
  Lab& lab = Lab::mma_sync();
  if (!lab.ready()) return;
  for (const std::string_view body : kBodies) {
    const Variant variant = variant_of(body);
    const auto packed = lab.kernel(variant, "pack_heads=1"),
               alone = lab.kernel(variant, "pack_heads=0");
    for (const auto& [hq, hkv, m] :
         {std::tuple(8, 1, 1), std::tuple(6, 2, 37), std::tuple(9, 3, 72), std::tuple(4, 2, 97)}) {
      CAPTURE(body, hq, hkv, m);
      const reference::ProblemShape shape = {.b = 2,
                                             .hq = hq,
                                             .hkv = hkv,
                                             .m = m,
                                             .n = 170,
                                             .d = variant.head_dim,
                                             .dv = variant.value_head_dim};
      const auto inputs = make_inputs("biased_k", shape, variant.input, 11);
      CHECK(bits_of(*packed, inputs) == bits_of(*alone, inputs));
    }
  }
}

TEST_CASE("schedules with the same block_n give the same bits", "[emulated][schedule]") {
  if (!Lab::mma_sync().ready()) return;
  for (const std::string_view body : kBodies) {
    const Variant variant = variant_of(body);
    const Bits expected = run(variant, *Lab::mma_sync().kernel(variant)).bits;
    const int block_n = base_block_n(variant);
    int num_legal = 0;
    for (const std::string_view line : kLines) {
      CAPTURE(body, line);
      std::shared_ptr<const Kernel> kernel;
      try {
        kernel = Lab::mma_sync().kernel(variant, fmt::format("{} block_n={}", line, block_n));
      } catch (const Error& error) {
        CAPTURE(error.what());
        CHECK(error.kind() == ErrorKind::kUnsupported);
        continue;
      }
      ++num_legal;
      CHECK(run(variant, *kernel).bits == expected);
    }
    CHECK(num_legal >= 9);
  }
}

TEST_CASE("schedules with another block_n are as accurate", "[emulated][schedule]") {
  if (!Lab::mma_sync().ready()) return;
  for (const std::string_view body : kBodies) {
    const Variant variant = variant_of(body);
    for (const int block_n : {16, 32, 128}) {
      if (variant.pv_accumulator.interval > block_n) continue;
      Bits first;
      for (const std::string_view line :
           {"block_m=64 warps=4", "block_m=64 warps=1 q_in_registers=0"}) {
        CAPTURE(body, block_n, line);
        const auto kernel = Lab::mma_sync().kernel(
            variant, fmt::format("{} stages=2 blocks_per_sm=1 block_n={}", line, block_n));
        const Result result = run(variant, *kernel);
        CHECK(result.failures == std::vector<std::string>{});
        if (first.o.empty()) first = result.bits;
        CHECK(result.bits == first);
      }
    }
  }
}

}  // namespace
}  // namespace sagejit::test
