// The same call gives the same bits: again, in two phases, and however asynchronous copies, warps
// and blocks are ordered.
#include <fmt/format.h>

#include <map>

#include "runtime/device/emulated_device.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr std::string_view kBodies[] = {
    "head_dim = 64; lse = on; smooth_k = mean; mask = causal(top_left); "
    "pv_accumulator = f16 + f32 every 64",
    "head_dim = 72; lse = on; smooth_k = mean; q = int8 per tensor; k = int8 per head; "
    "row_sum = quantized",
    "head_dim = 64; lse = on; smooth_k = mean; smooth_q = mean; hadamard = on; "
    "q = int4 per thread(32); k = int4 per thread(64)",
};

Inputs inputs_for(const Variant& variant) {
  return reference::make_inputs("biased_k",
                                {.b = 2,
                                 .hq = 2,
                                 .hkv = 1,
                                 .m = 150,
                                 .n = 610,
                                 .d = variant.head_dim,
                                 .dv = variant.value_head_dim},
                                variant.input, 7);
}

using Bytes = std::vector<uint8_t>;

// o, lse and everything of the workspace that has a meaning.
std::vector<Bytes> outputs(const Problem& problem) {
  return {problem.o().bytes(),          problem.lse().bytes(),       problem.workspace("q_codes"),
          problem.workspace("k_codes"), problem.workspace("k_mean"), problem.workspace("lse_bias")};
}

std::vector<Bytes> run(const Kernel& kernel, const Inputs& inputs) {
  Problem problem(kernel, inputs);
  problem.launch();
  return outputs(problem);
}

TEST_CASE("a second run and separate phases give the same bits", "[emulated][determinism]") {
  if (!Lab::mma_sync().ready()) return;
  for (const std::string_view body : kBodies) {
    CAPTURE(body);
    const Variant variant = variant_of(body);
    const auto kernel = Lab::mma_sync().kernel(variant);
    const Inputs inputs = inputs_for(variant);
    const std::vector<Bytes> first = run(*kernel, inputs);
    CHECK((run(*kernel, inputs) == first));
    Problem apart(*kernel, inputs);
    apart.launch(kQuantizePhase);
    apart.launch(kAttendPhase);
    CHECK((outputs(apart) == first));
    apart.launch(kBothPhases);  // in a used workspace
    CHECK((outputs(apart) == first));
  }
}

TEST_CASE("the order of asynchronous copies, warps and blocks does not show",
          "[emulated][determinism]") {
  if (!Lab::mma_sync().ready()) return;
  const Target& target = *Lab::mma_sync().device()->info().target;
  for (const std::string_view body : kBodies) {
    const Variant variant = variant_of(body);
    const auto kernel = Lab::mma_sync().kernel(variant);
    const Inputs inputs = inputs_for(variant);
    const std::vector<Bytes> expected = run(*kernel, inputs);
    // The artifact as it is, on emulators with other habits, and with more blocks that stay and
    // wait for one another than the host can run at once.
    struct Habit {
      emulator::Options options;
      int num_sms = 1;
    };
    const Habit habits[] = {
        {{.async = emulator::AsyncOrder::kLate}},
        {{.async = emulator::AsyncOrder::kEarly}, 2},
        {{.async = emulator::AsyncOrder::kEarly, .seed = 1}},
        {{.async = emulator::AsyncOrder::kRandom, .seed = 2, .num_threads = 8}, 3},
        {{.async = emulator::AsyncOrder::kRandom, .seed = 3}, 132},
        {{.async = emulator::AsyncOrder::kLate, .seed = 4, .num_threads = 1}, 4},
    };
    std::vector<Bytes> first;
    for (const auto& [options, num_sms] : habits) {
      CAPTURE(body, static_cast<int>(options.async), options.seed, num_sms);
      const Kernel other(std::make_shared<EmulatedDevice>(target, options, num_sms),
                         kernel->artifact());
      const std::vector<Bytes> actual = run(other, inputs);
      if (first.empty()) first = actual;
      CHECK((actual == first));
      // A GPU's approximate exp2 and tensor-core sums may differ in the last bit; codes may not.
      if (Lab::mma_sync().is_emulated()) CHECK((actual == expected));
      CHECK((actual[2] == expected[2]));
    }
  }
}

// Items of `prepare` in every order that the lag allows: all statistics first, or rounds of a
// head's statistics and an earlier head's tiles, which wait for theirs.
TEST_CASE("the lag between statistics and tiles does not show", "[emulated][determinism]") {
  if (!Lab::mma_sync().ready()) return;
  const Variant variant = variant_of("head_dim = 32; lse = on; smooth_k = mean; smooth_q = mean");
  const auto kernel = Lab::mma_sync().kernel(variant);
  const Inputs inputs = reference::make_inputs(
      "biased_k", {.b = 2, .hq = 4, .hkv = 4, .m = 40, .n = 610, .d = 32, .dv = 32}, variant.input,
      3);
  const std::vector<Bytes> expected = run(*kernel, inputs);
  for (const int lag : {1, 3, 7}) {
    Artifact artifact = kernel->artifact();
    const std::map<std::string_view, const char*> values = {
        {"lag", "{}"}, {"lag_items", "{} * {}"}, {"heads_ahead", "b * hkv - {}"}};
    std::string statistics;
    int num_changed = 0;
    for (KernelLaunch& launch : artifact.plan.launches) {
      for (KernelParam& param : launch.params) {
        if (param.name == "head_statistics") statistics = param.value.text();
        if (!values.contains(param.name)) continue;
        param.value = SizeExpr(fmt::format(fmt::runtime(values.at(param.name)), lag, statistics));
        ++num_changed;
      }
    }
    REQUIRE(num_changed == 3);
    for (const int num_sms : {1, 5, 132}) {
      CAPTURE(lag, num_sms);
      const emulator::Options options{.async = emulator::AsyncOrder::kRandom, .num_threads = 8};
      const Target& target = *Lab::mma_sync().device()->info().target;
      const Kernel other(std::make_shared<EmulatedDevice>(target, options, num_sms), artifact);
      const std::vector<Bytes> actual = run(other, inputs);
      if (Lab::mma_sync().is_emulated()) CHECK((actual == expected));
      CHECK((actual[3] == expected[3]));  // K's codes
    }
  }
}

}  // namespace
}  // namespace sagejit::test
