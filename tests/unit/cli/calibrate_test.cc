#include <map>

#include "runtime/policy/policy.h"
#include "tests/reference/inputs.h"
#include "tests/reference/safetensors.h"
#include "tests/support/catch.h"
#include "tests/unit/cli/runner.h"

namespace sagejit::cli_test {
namespace {

using reference::HostTensor;
using reference::Inputs;

// One layer at two steps: keys without and with a channel bias, which blocks of unsmoothed int8 do
// not survive.
std::string two_steps(const std::string& name, uint64_t seed) {
  std::map<std::string, HostTensor> tensors;
  int step = 0;
  for (const char* distribution : {"normal", "biased_k"}) {
    const Inputs in =
        reference::make_inputs(distribution, {1, 2, 2, 32, 96, 64, 64}, DType::kF16, seed);
    const std::string prefix = "step." + std::to_string(10 * step++) + ".attn.0.";
    tensors[prefix + "q"] = in.q;
    tensors[prefix + "k"] = in.k;
    tensors[prefix + "v"] = in.v;
  }
  const std::string path = file_with(name, "");
  reference::write_safetensors(path, tensors, {});
  return path;
}

const std::string kCandidates = "calibrate --device emulator --threshold 0.9998 --fast " +
                                file_with("fast.attn", "plain { head_dim in {32, 64} }") +
                                "#plain --careful " + variant_file("sage1_t.attn") +
                                "#pv_accumulator=f32";

TEST_CASE("a policy takes the fast variant where it is close on all inputs") {
  const std::string output = file_with("model.policy", "");
  const Outcome outcome = sagejit(kCandidates + " --input " + two_steps("a.safetensors", 1) +
                                  " --input " + two_steps("b.safetensors", 2) + " -o " + output);
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err,
             Catch::Contains("cosine of fast") && Catch::Contains("b.safetensors: step.10.attn.0"));
  const std::string text = read_file(output);
  CHECK_THAT(text, Catch::Contains("\nattn.0   0..9  fast     # cosine of fast: 0.9999"));
  CHECK_THAT(text, Catch::Contains("\nattn.0   10..  careful  # cosine of fast: 0.99"));
  CHECK_THAT(text,
             Catch::Contains(", the least of 2\n") && Catch::EndsWith("\ndefault  careful\n"));
  const Policy policy = parse_policy(output, text);
  CHECK(policy.find("attn.0", 0).smooth_k == Smoothing::kNone);
  CHECK(policy.find("attn.0", 99).smooth_k == Smoothing::kMean);
  CHECK(policy.find("attn.0", 99).head_dim == 64);
}

TEST_CASE("the policy of the captured layers") {
  const Outcome outcome =
      sagejit("calibrate --device emulator --threshold 0.99993 --fast " +
              variant_file("sage1_b.attn") + "#pv_accumulator=f16 --careful " +
              variant_file("sage1_t.attn") + " --input " + data_file("minilm_l6_qkv.safetensors"));
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const size_t layers = outcome.out.find("[layers]");
  REQUIRE(layers != std::string::npos);
  check_golden("minilm_layers.policy", outcome.out.substr(layers));
}

TEST_CASE("candidates and inputs that do not fit are refused before anything runs") {
  const std::string input = " --input " + two_steps("c.safetensors", 1);
  const Outcome masked =
      sagejit("calibrate --device emulator --fast " + variant_file("sage1_b.attn") +
              " --careful '" + variant_file("sage1_t.attn") + "#mask=causal(top_left)'" + input);
  CHECK(masked.exit_code == 1);
  CHECK_THAT(masked.err, Catch::Contains("compute different attention: their mask differs"));
  const Outcome mixed =
      sagejit(kCandidates + input + " --input " + data_file("minilm_l6_qkv.safetensors"));
  CHECK(mixed.exit_code == 1);
  CHECK_THAT(mixed.err, Catch::Contains("calibrate them apart"));
}

}  // namespace
}  // namespace sagejit::cli_test
