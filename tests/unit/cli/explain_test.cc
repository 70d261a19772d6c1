#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/unit/cli/runner.h"

namespace sagejit::cli_test {
namespace {

using nlohmann::json;

// With a schedule of its own, so that better defaults change no text here.
const std::string kHopper =
    "explain " + variant_file("sage2_8_8.attn") +
    " --target sm_90a --set head_dim=128 --set mask=none --select sage2_8_8_fast_thread --schedule "
    "'wgmma=1 block_m=192 block_n=128 warps=12 stages=5 q_in_registers=0 overlap=0 ping_pong=1'";

TEST_CASE("an explanation is complete") {
  const Outcome outcome = sagejit(kHopper);
  CAPTURE(outcome.err);
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.err.empty());
  check_golden("explain_fast_thread_sm_90a.txt", outcome.out);
}

TEST_CASE("as JSON it says the same, and that nothing was measured") {
  const json report =
      json::parse(sagejit(kHopper + " --json --shape b=2,hq=8,hkv=4,m=256,n=512").out);
  CHECK(report["target"] == "sm_90a");
  CHECK(report["variant"] == "sage2_8_8_fast_thread");
  CHECK(report["num_schedules"] == 1);
  CHECK(report["formulas"].size() >= 8);
  const json& limit = report["predicted_limit"];
  CHECK(limit["measured"] == false);
  CHECK(limit["problem"] == json({{"b", 2}, {"hq", 8}, {"hkv", 4}, {"m", 256}, {"n", 512}}));
  CHECK(limit["binding"] == "tensor cores");
  CHECK(limit["units"]["special functions"]["tile_clocks"] == 1536);
  CHECK(limit["tflops"] == limit["units"]["tensor cores"]["tflops"]);
  const json& attention = report["plan"]["launches"].back();
  CHECK(attention["kernel"] == "attention");
  CHECK(attention["smem_bytes"] > 100000);
  REQUIRE(attention["loops"].size() == 3);
  CHECK(attention["loops"][1]["label"] == "key tiles that every row sees");
  CHECK(attention["loops"][1]["ops_per_warp"]["ex2.approx"] == 64);
  CHECK(attention["loops"][1]["rare_ops_per_warp"]["ex2.approx"] == 4);
}

TEST_CASE("cautions come with an explanation") {
  const Outcome outcome = sagejit("explain " + variant_file("sage2_8_8.attn") +
                                  " --target sm_90a --select sage2_8_8_thread --set "
                                  "pv_accumulator=f32");
  CHECK_THAT(outcome.out, Catch::Contains("warning: the tensor cores of sm_90a keep 13 bits"));
}

TEST_CASE("what cannot be explained is said like what cannot be compiled") {
  CHECK(sagejit("explain " + variant_file("sage1_b.attn") + " --target sm_90a --set softcap=30")
            .exit_code == 2);
  CHECK(sagejit("explain " + variant_file("sage1_b.attn") + " --target sm_75").exit_code == 2);
  const Outcome outcome =
      sagejit("explain " + variant_file("sage1_b.attn") + " --target sm_80 --shape d=64");
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::Contains("--set head_dim=N"));
}

}  // namespace
}  // namespace sagejit::cli_test
