// What `prepare` hands over to the wgmma kernel, which starts beside it, head by head: every step
// of that which is left out must show.
#include <fmt/format.h>

#include <functional>

#include "compiler/support/error.h"
#include "runtime/device/emulated_device.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr std::string_view kBody =
    "head_dim = 32; lse = on; smooth_k = mean; smooth_q = mean per block(64); p = e4m3 range 448; "
    "v = "
    "e4m3 per channel";

Inputs inputs_for(const Variant& variant) {
  const reference::ProblemShape shape = {.b = 2,
                                         .hq = 4,
                                         .hkv = 2,
                                         .m = 150,
                                         .n = 200,
                                         .d = variant.head_dim,
                                         .dv = variant.value_head_dim};
  return make_inputs("biased_k", shape, variant.input, 11);
}

// O of the artifact on an emulator of so many SMs, or the error.
struct Outcome {
  std::vector<uint8_t> o;
  std::string error;
};

Outcome outcome_of(const Artifact& artifact, int num_sms) {
  const Variant variant = variant_of(kBody);
  const Kernel kernel(
      std::make_shared<EmulatedDevice>(find_target("sm_90a"), emulator::Options{}, num_sms),
      artifact);
  Problem problem(kernel, inputs_for(variant));
  try {
    problem.launch();
  } catch (const Error& error) {
    return {{}, error.what()};
  }
  return {problem.o().bytes(), ""};
}

KernelLaunch& attention_of(Artifact& artifact) {
  return artifact.plan.launches.back();
}

// The last of them: the first wait is one that only attention asked for alone comes to.
void remove_from_attention(Artifact& artifact, std::string_view instruction) {
  for (KernelModule& module : artifact.modules) {
    if (module.kernel != attention_of(artifact).kernel) continue;
    const size_t at = module.ptx.rfind(instruction);
    REQUIRE(at != std::string::npos);
    module.ptx.erase(at, instruction.size());
  }
}

// Attention waits until nothing is counted, where nobody counts.
void remove_head_waits(Artifact& artifact) {
  Plan& plan = artifact.plan;
  for (KernelParam& param : attention_of(artifact).params) {
    if (param.name == "head_tiles") param.value = SizeExpr("0");
    if (param.name != "prepare_counters") continue;
    WorkspaceBuffer unused = plan.workspace[static_cast<size_t>(param.buffer)];
    unused.name = "unused_counters";
    param.buffer = static_cast<int>(plan.workspace.size());
    plan.workspace.push_back(unused);
  }
}

TEST_CASE("wgmma: what attention does not wait for is not prepared", "[emulated][wgmma]") {
  Lab& lab = Lab::wgmma();
  if (!lab.ready()) return;
  const Artifact whole = lab.kernel(variant_of(kBody))->artifact();
  REQUIRE(whole.plan.launches.size() == 2);
  const auto broken = [&](const std::function<void(Artifact&)>& damage) {
    Artifact artifact = whole;
    damage(artifact);
    return artifact;
  };
  for (const int num_sms : {1, 3}) {
    CAPTURE(num_sms);
    const Outcome expected = outcome_of(whole, num_sms);
    CHECK(expected.error == "");
    CHECK(outcome_of(broken(remove_head_waits), num_sms).o != expected.o);
    const auto error_without = [&](std::string_view instruction) {
      return outcome_of(broken([&](Artifact& a) { remove_from_attention(a, instruction); }),
                        num_sms)
          .error;
    };
    CHECK(error_without("fence.proxy.async.global;").find("missing fence") != std::string::npos);
    CHECK(error_without("griddepcontrol.wait;").find("missing grid wait") != std::string::npos);
  }
}

}  // namespace
}  // namespace sagejit::test
