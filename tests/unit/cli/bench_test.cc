#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "runtime/device/emulated_device.h"
#include "tests/support/catch.h"
#include "tests/unit/cli/runner.h"
#include "tools/cli/bench_measure.h"
#include "tools/cli/bench_problem.h"
#include "tools/cli/bench_report.h"

namespace sagejit::cli {
namespace {

using cli_test::Outcome;
using cli_test::sagejit;
using cli_test::sagejit_with_fake_gpus;
using cli_test::variant_file;
using nlohmann::json;
using reference::ProblemShape;

// A device whose launches take a known time on a clock that only they move.
class FakeTimer final : public Timer {
 public:
  void start(Stream) override { start_ = now_ms; }
  void stop(Stream) override { stop_ = now_ms; }
  double elapsed_ms() override { return stop_ - start_; }
  double now_ms = 0;

 private:
  double start_ = 0, stop_ = 0;
};

// What happened, as text: "A0 A1" are launches of A on copies 0 and 1, "a0" prepares.
struct Script {
  FakeTimer timer;
  std::string events;

  Subject subject(char name, double ms, bool prepares = false) {
    Subject result;
    if (prepares) {
      result.prepare = [this, name](int copy) {
        timer.now_ms += 1000;  // not timed
        note(static_cast<char>(name - 'A' + 'a'), copy);
      };
    }
    result.launch = [this, name, ms](int copy) {
      timer.now_ms += ms;
      note(name, copy);
    };
    return result;
  }
  void note(char name, int copy) {
    events += fmt::format("{}{}{}", events.empty() ? "" : " ", name, copy);
  }
};

TEST_CASE("a measurement has as many launches as its least time needs") {
  Script script;
  const Subject subjects[] = {script.subject('A', 3), script.subject('B', 50),
                              script.subject('C', 0.25)};
  const std::vector<Series> series =
      measure(subjects, {.rounds = 3, .min_time_ms = 10}, {script.timer, {}});
  REQUIRE(series.size() == 3);
  CHECK(series[0].launches == 4);
  CHECK(series[1].launches == 1);
  CHECK(series[2].launches == 40);
  CHECK(series[0].ms == std::vector<double>{3, 3, 3});
  CHECK(series[2].ms == std::vector<double>{0.25, 0.25, 0.25});
  CHECK(series[0].sm_clock_mhz.empty());
}

TEST_CASE("the warm-up goes on until times settle, but not for ever") {
  int launches = 0;
  FakeTimer timer;
  Subject settling;  // 7, 6, 5, 4, 4, ...
  settling.launch = [&](int) { timer.now_ms += std::max(4, 8 - ++launches); };
  CHECK(
      measure(std::span(&settling, 1), {.rounds = 1, .min_time_ms = 10}, {timer, {}})[0].launches ==
      3);
  Subject slowing;
  double latest_ms = 0;
  slowing.launch = [&](int) { timer.now_ms += ++latest_ms; };
  const std::vector<Series> series =
      measure(std::span(&slowing, 1), {.rounds = 1, .min_time_ms = 1}, {timer, {}});
  CHECK(series[0].ms.front() < 16);
}

TEST_CASE(
    "rounds go forth and back, each measurement prepares every copy and starts with the first") {
  Script script;
  const Subject subjects[] = {script.subject('A', 5, true), script.subject('B', 10)};
  const std::vector<Series> series =
      measure(subjects, {.rounds = 2, .min_time_ms = 10, .copies = 3}, {script.timer, {}});
  const std::string warm_up_a = "a0 a1 a2 A0 a0 a1 a2 A0 A1 ", warm_up_b = "B0 B0 B1 ";
  const std::string round_a = "a0 a1 a2 A0 A1", round_b = "B0";
  CHECK(script.events ==
        warm_up_a + warm_up_b + round_a + " " + round_b + " " + round_b + " " + round_a);
  CHECK(series[0].ms == std::vector<double>{5, 5});
}

TEST_CASE("launches rotate through the copies") {
  Script script;
  const Subject subject = script.subject('A', 1);
  measure(std::span(&subject, 1), {.rounds = 1, .min_time_ms = 5, .copies = 2}, {script.timer, {}});
  CHECK_THAT(script.events, Catch::EndsWith(" A0 A1 A0 A1 A0"));
}

TEST_CASE("the clock is read once a measurement, after its launches") {
  Script script;
  const Subject subject = script.subject('A', 10);
  int mhz = 1700;
  const auto read = [&]() -> std::optional<int> {
    script.events += " clock";
    return mhz += 10;
  };
  const std::vector<Series> series =
      measure(std::span(&subject, 1), {.rounds = 2, .min_time_ms = 10}, {script.timer, read});
  CHECK(series[0].sm_clock_mhz == std::vector<int>{1710, 1720});
  CHECK_THAT(script.events, Catch::EndsWith(" A0 clock A0 clock"));
}

TEST_CASE("copies exceed twice the cache, within limits") {
  CHECK(num_copies(10, 0) == 1);
  CHECK(num_copies(101, 50) == 1);
  CHECK(num_copies(100, 50) == 2);  // 100 bytes would just fit
  CHECK(num_copies(30, 50) == 4);
  CHECK(num_copies(1, 50 << 20) == kMaxCopies);
  CHECK(num_copies(kMaxCopyBytes / 2, kMaxCopyBytes) == 2);
  CHECK(num_copies(2 * kMaxCopyBytes, 2 * kMaxCopyBytes) == 1);
}

TEST_CASE("a call's host cost is the median batch's, without the wait") {
  double now_ms = 0;
  int calls = 0, most_in_flight = 0, in_flight = 0;
  const HostCall host = {[&] {
                           now_ms += ++calls == 1 ? 500 : 0.004;
                           most_in_flight = std::max(most_in_flight, ++in_flight);
                         },
                         [&] {
                           now_ms += 100;
                           in_flight = 0;
                         },
                         [&] { return now_ms; }};
  CHECK(host_us_per_call(host) == Approx(4));
  CHECK(calls == 1 + kHostBatch * kHostBatches);
  CHECK(most_in_flight == kHostBatch);
}

TEST_CASE("the block holds whole groups of heads") {
  const ProblemShape block = block_shape({4, 32, 8, 100, 16384, 128, 64});
  CHECK(block.b == 1);
  CHECK(block.hkv == kBlockKeyHeads);
  CHECK(block.hq == 16);
  CHECK(block.m == 100);
  CHECK(block.n == kBlockTokens);
  CHECK(block.dv == 64);
}

TEST_CASE("arguments are passed on to the C API as they are") {
  const ProblemShape shape = {2, 6, 3, 5, 7, 64, 32};
  AttentionArgs args = describe_args({64, 32, DType::kBF16, DType::kF32, false}, shape);
  for (size_t i = 0; i < args.tensors.size(); ++i) args.tensors[i].address = 0x1000 * (i + 1);
  args.workspace = 0x100000;
  args.workspace_bytes = 12345;
  const PublicArgs copy(args);
  const sagejit_attention_args& given = copy.get();
  CHECK(given.struct_size == sizeof(given));
  CHECK(given.workspace == reinterpret_cast<void*>(0x100000));
  CHECK(given.workspace_bytes == 12345);
  CHECK(given.lse == nullptr);
  const sagejit_tensor* const tensors[] = {given.q, given.k, given.v, given.o};
  for (size_t i = 0; i < std::size(tensors); ++i) {
    const sagejit_tensor& t = *tensors[i];
    CHECK(t.struct_size == sizeof(t));
    CHECK(t.data == reinterpret_cast<void*>(0x1000 * (i + 1)));
    CHECK(t.dtype == (i == 3 ? SAGEJIT_F32 : SAGEJIT_BF16));
    REQUIRE(t.ndim == 4);
    CHECK(std::equal(t.shape, t.shape + 4, args.tensors[i].shape.begin()));
    CHECK(std::equal(t.strides, t.strides + 4, args.tensors[i].strides.begin()));
  }
}

TEST_CASE("a problem repeats the block along batches, heads and tokens, in every copy") {
  EmulatedDevice device(find_target("sm_80"));
  const ProblemShape shape = {2, 10, 5, 3, kBlockTokens + 2, 16, 8};
  const TensorContract contract = {.head_dim = 16, .value_head_dim = 8, .lse = true};
  const AttentionArgs sizes = describe_args(contract, shape);
  CHECK(tensor_bytes(sizes) == 2 * (60 * 16 + 10 * 1026 * 24 + 60 * 8) + 4 * 60);
  const BenchProblem problem(device, sizes, 512, {"normal", 7}, 2);
  REQUIRE(problem.num_copies() == 2);
  const reference::Inputs block =
      reference::make_inputs("normal", block_shape(shape), DType::kF16, 7);
  for (int i = 0; i < 2; ++i) {
    const AttentionArgs& args = problem.copy(i);
    CHECK(args.workspace % 256 == 0);
    const auto row = [](const Tensor& tensor, int64_t b, int64_t h, int64_t t) {
      return reinterpret_cast<const char*>(tensor.address) +
             2 * (b * tensor.strides[0] + h * tensor.strides[1] + t * tensor.strides[2]);
    };
    const auto same = [](const char* actual, const reference::HostTensor& tensor, int64_t h,
                         int64_t t) {
      const size_t bytes = static_cast<size_t>(tensor.shape()[3]) * 2;
      return std::memcmp(actual,
                         tensor.bytes().data() + static_cast<size_t>(tensor.offset(0, h, t, 0)) * 2,
                         bytes) == 0;
    };
    CHECK(same(row(args.tensors[0], 1, 9, 2), block.q, 1, 2));
    CHECK(same(row(args.tensors[1], 0, 4, kBlockTokens - 1), block.k, 0, kBlockTokens - 1));
    CHECK(same(row(args.tensors[1], 1, 3, kBlockTokens + 1), block.k, 3, 1));
    CHECK(same(row(args.tensors[2], 1, 4, kBlockTokens), block.v, 0, 0));
  }
  CHECK(problem.copy(0).tensors[0].address != problem.copy(1).tensors[0].address);
}

BenchReport sample_report() {
  BenchReport report;
  report.variant_name = "tiny";
  report.device = {"cuda:0", "A GPU", &find_target("sm_80"), 10, 1 << 20, 13000, true};
  report.backend = "ptx";
  report.assembler = "ptxas 13.0.88";
  report.rounds = 5;
  report.min_time_ms = 20;
  report.phases = {kAttendPhase, kQuantizePhase};
  report.candidates = {{"block_m=128", 168, {4, 6}}, {"block_m=64", std::nullopt, {5, 7}}};
  report.skipped = {{"block_m=7", "not possible"}};
  BenchShape shape;
  shape.shape = {1, 2, 2, 3, 4, 64, 64};
  shape.copies = 3;
  shape.copy_bytes = 1000;
  shape.series = {{0, 0, 2e9, {100, {1, 5, 2, 3, 4}, {1700, 1690, 1710, 1700, 1700}}},
                  {1, 1, 1e6, {200, {0.005, 0.005, 0.005, 0.005, 0.005}, {}}}};
  report.shapes = {shape};
  return report;
}

TEST_CASE("the report as JSON holds every measurement") {
  const json report = json::parse(to_json_text(sample_report()));
  CHECK(report["variant"] == "tiny");
  CHECK(report["device"]["driver_cuda"] == "13.0");
  CHECK(report["device"]["l2_bytes"] == 1 << 20);
  CHECK(report["schedules"][0] ==
        json({{"schedule", "block_m=128"},
              {"registers", 168},
              {"host_us_per_call", {{"attend", 4.0}, {"quantize", 6.0}}}}));
  CHECK(report["schedules"][1]["registers"].is_null());
  CHECK(report["skipped"][0]["reason"] == "not possible");
  const json& shape = report["shapes"][0];
  CHECK(shape["shape"]["n"] == 4);
  CHECK(shape["copies"] == 3);
  const json& attend = shape["series"][0];
  CHECK(attend["ms"] == json({1.0, 5.0, 2.0, 3.0, 4.0}));
  CHECK(attend["median_ms"] == 3.0);
  CHECK(attend["quartiles_ms"] == json({2.0, 4.0}));
  CHECK(attend["sm_clock_mhz"].size() == 5);
  CHECK(attend["tflops"] == Approx(2e9 / 3e-3 / 1e12));
  CHECK(attend["flops"] == 2e9);
  CHECK(attend["host_bound"] == false);
  const json& quantize = shape["series"][1];
  CHECK(quantize["schedule"] == "block_m=64");
  CHECK(quantize["gb_per_s"] == Approx(1e6 / 5e-6 / 1e9));
  CHECK(quantize["host_bound"] == true);  // 5 us a launch, 7 us a call
}

TEST_CASE("the report as text") {
  CHECK(to_text(sample_report()) ==
        "variant   tiny\n"
        "device    cuda:0 (A GPU), sm_80, driver's CUDA 13.0\n"
        "back end  ptx\n"
        "assembler ptxas 13.0.88\n"
        "data      normal, seed 1\n"
        "timing    median of 5 rounds of at least 20 ms; spread: interquartile range\n"
        "clocks    SMs at 1690..1710 MHz while timed\n"
        "host us   of a call of sagejit_kernel_launch (C API) on a tiny problem\n"
        "\n"
        "  #  schedule     registers  host us: attend  host us: quantize\n"
        "  1  block_m=128        168             4.00               6.00\n"
        "  2  block_m=64           -             5.00               7.00\n"
        "  skipped 'block_m=7': not possible\n"
        "\n"
        "  shape                              copies  phase     #  launches      ms  spread  "
        "TFLOP/s  GB/s\n"
        "  b=1 hq=2 hkv=2 m=3 n=4 d=64 dv=64       3  attend    1       100  3.0000   66.7%      "
        "0.7     -\n"
        "  b=1 hq=2 hkv=2 m=3 n=4 d=64 dv=64       3  quantize  2       200  0.0050    0.0%        "
        "-   200  host-bound\n");
  BenchReport unknown = sample_report();
  unknown.shapes[0].series[0].series.sm_clock_mhz.clear();
  CHECK_THAT(to_text(unknown), Catch::Contains("clocks    unknown\n"));
}

TEST_CASE("bench refuses the emulator, and what is wrong with a command line before it") {
  struct Case {
    std::string arguments, message;
  };
  const Case cases[] = {
      {"",
       "bench needs a GPU: what emulator:sm_80 takes says nothing about one; use --device "
       "cuda:0, or run to compute on the emulator"},
      {" --shape b=1,x=2",
       "--shape: 'x=2' is not a size of b, hq, hkv, m, n, d or dv; write b=1,hq=8"},
      {" --shape m=128 --shape n=0", "--shape: 'n=0' leaves nothing to time"},
      {" --shape d=64 --shape d=128",
       "--shape: d=64 and d=128 are two variants: time them one by one"},
      {" --phase attend --phase backward",
       "--phase: 'backward' is none of attend, quantize and both"},
      {" --dist gauss",
       "no input distribution is called 'gauss'; there are normal, biased_k, biased_qk, outlier_v, "
       "sink, "
       "zero, constant, fp16_max, growing"},
  };
  for (const Case& c : cases) {
    const Outcome outcome =
        sagejit("bench --device emulator " + variant_file("sage1_b.attn") + c.arguments);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.out.empty());
    CHECK(outcome.err == "sagejit: error: " + c.message + "\n");
  }
  const Outcome schedule = sagejit("bench --device emulator " + variant_file("sage1_b.attn") +
                                   " --schedule default --schedule 'tile=7'");
  CHECK(schedule.exit_code == 1);
  CHECK_THAT(schedule.err, Catch::StartsWith("sagejit: error: schedule: 'tile=7' is not key=value "
                                             "with a known key"));
}

// Every kernel takes a millisecond there. The largest magnitude of Q is a launch of its own.
TEST_CASE("bench times every schedule that is possible, phase by phase") {
  const std::string variant =
      variant_file("sage1_b.attn") +
      " --set head_dim=64 --set 'mask=causal(bottom_right)' --set pv_accumulator=f32"
      " --set 'q=int8 per tensor'";
  // NVRTC looks into the driver that it finds, and a made-up one is too little for it.
  for (const char* schedule : {"", " --schedule block_n=32"}) {
    REQUIRE(sagejit("compile --target sm_80 " + variant + schedule).exit_code == 0);
  }
  const std::string arguments =
      "bench --device cuda:1 " + variant +
      " --schedule default --schedule block_m=100 --schedule block_n=32"
      " --phase attend --phase quantize --phase both --rounds 3 --min-time 5"
      " --shape b=1,hq=2,hkv=1,m=100 --shape b=1,hq=1,m=64,n=32";
  const Outcome outcome = sagejit_with_fake_gpus(arguments + " --json");
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const json report = json::parse(outcome.out);
  CHECK(report["device"]["product"] == "Fake A100");
  REQUIRE(report["schedules"].size() == 2);
  CHECK_THAT(report["schedules"][1]["schedule"].get<std::string>(), Catch::Contains("block_n=32"));
  CHECK(report["schedules"][0]["registers"] > 32);
  REQUIRE(report["skipped"].size() == 1);
  CHECK(report["skipped"][0]["schedule"] == "block_m=100");
  CHECK_THAT(report["skipped"][0]["reason"].get<std::string>(), Catch::Contains("is not possible"));
  REQUIRE(report["shapes"].size() == 2);
  const json& shape = report["shapes"][0];
  CHECK(shape["shape"]["d"] == 64);
  CHECK(shape["copy_bytes"].get<double>() * shape["copies"].get<double>() > 2.0 * (40 << 20));
  REQUIRE(shape["series"].size() == 6);
  const json &attend = shape["series"][0], &quantize = shape["series"][1],
             &both = shape["series"][2];
  CHECK(attend["ms"] == json({1.0, 1.0, 1.0}));
  CHECK(attend["launches"] == 5);
  CHECK(quantize["median_ms"] > 1.0);
  CHECK(both["median_ms"] == quantize["median_ms"].get<double>() + 1);
  CHECK(attend["flops"] == 2.0 * 2 * (100 * 100 / 2) * (64 + 64));
  CHECK(quantize["bytes"] > 3 * (2 + 1) * 100 * 64);
  CHECK(shape["series"][3]["schedule"] == report["schedules"][1]["schedule"]);

  const Outcome text = sagejit_with_fake_gpus(arguments);
  CHECK(text.exit_code == 0);
  for (const char* part : {"cuda:1 (Fake A100), sm_80", "clocks    unknown",
                           "skipped 'block_m=100'", "host us: quantize", "quantize  2"}) {
    CHECK_THAT(text.out, Catch::Contains(part));
  }
}

TEST_CASE("bench without a schedule that is possible says why") {
  const Outcome outcome =
      sagejit_with_fake_gpus("bench --device cuda:1 " + variant_file("sage1_b.attn") +
                             " --schedule block_m=100 --schedule block_n=7");
  CHECK(outcome.exit_code == 2);
  CHECK_THAT(outcome.err, Catch::StartsWith("sagejit: error: schedule '") &&
                              Catch::Contains("block_m=100") && Catch::Contains("is not possible"));
}

TEST_CASE("without a GPU, bench is an environment error that says why") {
  std::string why_no_gpu;
  open_device("auto", &why_no_gpu);
  if (why_no_gpu.empty()) return;  // there is one
  const Outcome outcome = sagejit("bench " + variant_file("sage1_b.attn"));
  CHECK(outcome.exit_code == 3);
  CHECK(outcome.err ==
        "sagejit: error: bench needs a GPU, and there is none: " + why_no_gpu + "\n");
}

}  // namespace
}  // namespace sagejit::cli
