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
  CHECK_THAT(text, Catch::Contains("\nattn.0   0    fast     # cosine of fast: 0.9999"));
  CHECK_THAT(text, Catch::Contains("\nattn.0   1..  careful  # cosine of fast: 0.99"));
  CHECK_THAT(text,
             Catch::Contains(", the least of 2\n") && Catch::EndsWith("\ndefault  careful\n"));
  const Policy policy = parse_policy(output, text);
  CHECK(policy.find("attn.0", 0).smooth_k == Smoothing::kNone);
  CHECK(policy.find("attn.0", 99).smooth_k == Smoothing::kMean);
  CHECK(policy.find("attn.0", 99).head_dim == 64);
}

TEST_CASE("a careful variant that is not close enough is warned of") {
  const std::string output = file_with("failing.policy", "");
  const std::string plain = file_with("fast.attn", "plain { head_dim in {32, 64} }") + "#plain";
  const Outcome outcome =
      sagejit("calibrate --device emulator --threshold 0.9998 --fast " + plain + " --careful " +
              plain + " --input " + two_steps("d.safetensors", 1) + " -o " + output);
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  CHECK_THAT(outcome.err, Catch::Contains("\nwarning: careful is not above 0.9998 at step 10 of "
                                          "attn.0: cosine 0.99"));
  CHECK_THAT(outcome.err, !Catch::Contains("at step 0 of"));
  const std::string text = read_file(output);
  CHECK_THAT(text, Catch::Contains("\n# careful is not above 0.9998 at step 10 of attn.0: "));
  CHECK_NOTHROW(parse_policy(output, text));
}

// One layer by each name.
std::string layers_named(const std::string& file, const std::vector<std::string>& names) {
  std::map<std::string, HostTensor> tensors;
  for (const std::string& name : names) {
    const Inputs in = reference::make_inputs("normal", {1, 1, 1, 8, 8, 64, 64}, DType::kF16, 1);
    tensors[name + ".q"] = in.q;
    tensors[name + ".k"] = in.k;
    tensors[name + ".v"] = in.v;
  }
  const std::string path = file_with(file, "");
  reference::write_safetensors(path, tensors, {});
  return path;
}

TEST_CASE("layers whose names a policy cannot tell apart, or hold, are refused") {
  const Outcome merged = sagejit(kCandidates + " --input '" +
                                 layers_named("merged.safetensors", {"a b", "a#b"}) + "'");
  CHECK(merged.exit_code == 1);
  CHECK_THAT(merged.err, Catch::Contains("would both be `a_b` in a policy"));
  const Outcome across =
      sagejit(kCandidates + " --input '" + layers_named("one.safetensors", {"a b"}) +
              "' --input '" + layers_named("other.safetensors", {"a_b"}) + "'");
  CHECK(across.exit_code == 1);
  CHECK_THAT(across.err, Catch::Contains("the layers `a b` and `a_b` would both be `a_b`"));
  const Outcome control =
      sagejit(kCandidates + " --input '" + layers_named("control.safetensors", {"a\x01"}) + "'");
  CHECK(control.exit_code == 1);
  CHECK_THAT(control.err, Catch::Contains("has the control character 0x01 at byte 1"));
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
