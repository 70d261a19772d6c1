// GPU and emulator agree to rounding: the same artifact on the same problem, every buffer compared.
//
// Codes, scales, means and whatever else the quantizers leave in the workspace must be equal bit
// for bit: they are made of correctly rounded operations in a fixed order. O and LSE may differ by
// what PTX leaves open: the last bits of ex2.approx and lg2.approx, and how a tensor core adds up.
//
// The device is cuda:0, or the one SAGEJIT_TEST_DEVICE names; with an emulator there the test tests
// itself.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "compiler/support/error.h"
#include "runtime/context/context.h"
#include "runtime/device/emulated_device.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
#include "tests/support/catch.h"
#include "tests/support/toolchain_choice.h"

namespace sagejit::test {
namespace {

using reference::ProblemShape;

constexpr ProblemShape kShape = {.b = 2, .hq = 4, .hkv = 2, .m = 150, .n = 200};

struct Row {
  std::string_view variant;
  ProblemShape shape = kShape;
  std::string_view input = "biased_k";
};

constexpr std::string_view kSmoothed = "head_dim = 64; lse = on; smooth_k = mean; ";

// The name of the device that is compared with the emulator.
std::string subject_name() {
  const char* name = std::getenv("SAGEJIT_TEST_DEVICE");
  return name && *name ? name : "cuda:0";
}

// The subject and the emulator as the same target; null, with the reason shown, where there is no
// GPU or no toolchain.
class Bench {
 public:
  static Bench* get() {
    static const std::unique_ptr<Bench> bench = open();
    if (!bench) WARN(why_not());
    return bench.get();
  }

  // On the subject. Throws as Context::get.
  std::shared_ptr<const Kernel> kernel(const Variant& variant, std::string_view schedule) {
    std::optional<Schedule> asked;
    if (!schedule.empty()) asked = parse_schedule(schedule, default_schedule(variant, target()));
    return context_.get(make_request(variant, asked), subject_).kernel;
  }
  // The same artifact on an emulator with as many SMs: heads are packed by their number.
  Kernel emulated(const Kernel& kernel) const {
    auto emulator =
        std::make_shared<EmulatedDevice>(target(), emulator::Options{}, subject_->info().num_sms);
    return {std::move(emulator), kernel.artifact()};
  }
  const Target& target() const { return *subject_->info().target; }

 private:
  explicit Bench(std::shared_ptr<Device> subject) : subject_(std::move(subject)) {}

  static std::string& why_not() {
    static std::string reason;
    return reason;
  }

  static std::unique_ptr<Bench> open() {
    try {
      std::shared_ptr<Device> subject = open_device(subject_name());
      LazyToolchain(toolchain_options()).get(subject->info().runs_machine_code);
      return std::unique_ptr<Bench>(new Bench(std::move(subject)));
    } catch (const Error& error) {
      const bool no_toolchain = error.kind() == ErrorKind::kToolchain;
      why_not() =
          fmt::format("skipped: no {}\n{}", no_toolchain ? "toolchain" : "GPU", error.what());
    }
    return nullptr;
  }

  std::shared_ptr<Device> subject_;
  Context context_{ContextOptions{.disk_cache = false}, Environment::read(),
                   make_jit_compiler(toolchain_options())};
};

// Bits behind the point of 1.0.
int fraction_bits(DType type) {
  switch (type) {
    case DType::kF16:
      return 10;
    case DType::kBF16:
      return 7;
    case DType::kE4M3:
      return 3;
    case DType::kE5M2:
      return 2;
    default:
      return 23;
  }
}

double ulp(DType type, double value) {
  const int smallest = type == DType::kF16 ? -14 : -126;  // exponent of the smallest normal
  const int exponent = value == 0 ? smallest : std::max(std::ilogb(value), smallest);
  return std::ldexp(1.0, exponent - fraction_bits(type));
}

// How far O may be apart, as a share of the values of V it averages (element by element) or of
// itself (RMS).
struct Tolerance {
  double element, rms;
};

Tolerance tolerance_for(const Variant& variant, int64_t num_keys) {
  const Accumulator& pv = variant.pv_accumulator;
  const auto steps = static_cast<double>((pv.outer ? pv.interval : num_keys) / 16 + 1);
  // ex2.approx is right to about 2^-22: of P's codes that many ulps' worth lands on the other side
  // of a rounding boundary. Each costs an ulp of P; were it all of them, O would move by one.
  const double p_ulp = std::ldexp(1.0, -fraction_bits(variant.p.type));
  const double p_flips = std::sqrt(std::ldexp(1.0, -22) / p_ulp);
  // Products of 16 keys are added to an accumulator that keeps 13 bits for 8-bit floats and its own
  // type's otherwise; f32 sums are cut off, not rounded, at some bits more than 23.
  const bool fp8 = is_fp8(variant.v.type);
  const int sum_bits = fp8 ? 12 : pv.inner == DType::kF16 ? 10 : 21;
  const double sums = std::ldexp(1.0, -sum_bits);
  // An output whose f32 value hardly moves still flips its last bit now and then.
  const double output_ulp = std::ldexp(1.0, -fraction_bits(variant.output));
  return {.element = p_ulp + sums * steps,
          .rms = p_ulp * p_flips + sums * std::sqrt(steps) + 0.2 * output_ulp + 2e-5};
}

double largest(const HostTensor& tensor) {
  double result = 0;
  for (const double value : tensor.to_f64()) result = std::max(result, std::fabs(value));
  return result;
}

void compare_workspace(const Kernel& kernel, const Problem& gpu, const Problem& emulated) {
  for (const WorkspaceBuffer& buffer : kernel.artifact().plan.workspace) {
    CAPTURE(buffer.name);
    const std::vector<uint8_t> x = gpu.workspace(buffer.name), y = emulated.workspace(buffer.name);
    REQUIRE(x.size() == y.size());
    size_t num_different = 0;
    // How many items blocks asked for, the first word, depends on how many blocks there are.
    const size_t first = buffer.name == "prepare_counters" ? 4 : 0;
    for (size_t i = first; i < x.size(); ++i) num_different += x[i] != y[i];
    CHECK(num_different == 0);
  }
}

void compare_output(const Variant& variant, const Problem& gpu, const Problem& emulated) {
  const std::vector<double> x = gpu.o().to_f64(), y = emulated.o().to_f64();
  const HostTensor& v = gpu.inputs().v;
  const Tolerance tolerance = tolerance_for(variant, v.shape()[2]);
  const double slack = tolerance.element * largest(v) + 1e-5;
  double square_of_difference = 0, square = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double difference = std::fabs(x[i] - y[i]);
    square_of_difference += difference * difference;
    square += y[i] * y[i];
    if (difference <= slack + 2 * ulp(variant.output, y[i])) continue;
    CAPTURE(i, x[i], y[i], slack);
    FAIL_CHECK("an element of O differs");
    return;
  }
  const double rms = square == 0 ? 0 : std::sqrt(square_of_difference / square);
  CAPTURE(rms, tolerance.rms);
  CHECK(rms <= tolerance.rms);
}

void compare_lse(const Variant& variant, const Problem& gpu, const Problem& emulated) {
  if (!variant.lse) return;
  const std::vector<double> x = gpu.lse().to_f64(), y = emulated.lse().to_f64();
  // The sum of rounded P moves with their roundings.
  const double rounding = variant.row_sum == RowSum::kQuantized
                              ? std::ldexp(1.0, -1 - fraction_bits(variant.p.type))
                              : 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i]) continue;  // infinities too
    const double tolerance = rounding + 1e-5 * std::max(1.0, std::fabs(y[i]));
    if (std::fabs(x[i] - y[i]) <= tolerance) continue;
    CAPTURE(i, x[i], y[i], tolerance);
    FAIL_CHECK("an LSE differs");
    return;
  }
}

void compare(Bench& bench, const Row& row, const Variant& variant, std::string_view schedule) {
  std::shared_ptr<const Kernel> kernel;
  try {
    kernel = bench.kernel(variant, schedule);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kUnsupported) return;  // on this GPU
    throw;
  }
  INFO(kernel->artifact().schedule_text);
  ProblemShape shape = row.shape;
  shape.d = variant.head_dim;
  shape.dv = variant.value_head_dim;
  const Inputs inputs = reference::make_inputs(row.input, shape, variant.input, 11);
  Problem gpu(*kernel, inputs);
  gpu.launch();
  const Kernel twin = bench.emulated(*kernel);
  Problem emulated(twin, inputs);
  emulated.launch();
  compare_workspace(*kernel, gpu, emulated);
  compare_output(variant, gpu, emulated);
  compare_lse(variant, gpu, emulated);
}

// Each row by the default schedule, and by mma.sync where that is another.
void compare_all(const std::vector<Row>& rows, std::string_view common = kSmoothed) {
  Bench* bench = Bench::get();
  if (!bench) return;
  for (const Row& row : rows) {
    const std::string body = fmt::format("{}{}", common, row.variant);
    CAPTURE(body, row.shape.m, row.shape.n, row.input);
    try {
      const Variant variant = variant_of(body);
      compare(*bench, row, variant, "");
      if (bench->target().wgmma) compare(*bench, row, variant, "wgmma=0");
      SUCCEED();
    } catch (const Error& error) {
      FAIL_CHECK(error.what() << "\n" << error.log());
    }
  }
}

TEST_CASE("agreement: accumulators and row sums", "[gpu]") {
  compare_all({{"pv_accumulator = f32"},
               {"pv_accumulator = f16"},
               {"pv_accumulator = f16 + f32 every 32"},
               {"pv_accumulator = f16 + f32 every 64"},
               {"pv_accumulator = f32 + f32 every 64"},
               {"pv_accumulator = f32; row_sum = quantized"},
               {"pv_accumulator = f32", {.b = 1, .hq = 2, .hkv = 2, .m = 70, .n = 1000}, "normal"},
               {"pv_accumulator = f32", {.b = 1, .hq = 2, .hkv = 2, .m = 70, .n = 333}, "sink"}});
}

TEST_CASE("agreement: masks", "[gpu]") {
  const ProblemShape long_keys = {.b = 1, .hq = 2, .hkv = 2, .m = 150, .n = 260};
  const ProblemShape long_queries = {.b = 1, .hq = 2, .hkv = 2, .m = 260, .n = 150};
  for (const ProblemShape& shape : {long_keys, long_queries}) {
    compare_all({{"mask = none", shape},
                 {"mask = causal(top_left)", shape},
                 {"mask = causal(bottom_right)", shape},
                 {"mask = window(100, 20)", shape}});
  }
}

TEST_CASE("agreement: granularities", "[gpu]") {
  compare_all(
      {{"q = int8 per tensor; k = int8 per tensor"},
       {"q = int8 per head; k = int8 per head"},
       {"q = int8 per block(128); k = int8 per block(64)"},
       {"q = int8 per warp(32); k = int8 per warp(16)"},
       {"q = int8 per thread(32); k = int8 per thread(64)"},
       {"q = int8 per token; k = int8 per token"},
       {"q = int4 per thread(32); k = int4 per thread(64)"},
       {"q = int4 per token; k = int4 per token"},
       {"q = int8 per thread(32); k = int8 per head; hadamard = on"},
       {"q = int4 per thread(32); k = int4 per thread(64); smooth_q = mean", kShape, "biased_qk"},
       {"q = int4 per head; k = int4 per block(64); smooth_q = mean per block(64)", kShape,
        "biased_qk"}});
}

TEST_CASE("agreement: head dims, groups of heads, lengths", "[gpu]") {
  compare_all(
      {{"head_dim = 16", {.b = 1, .hq = 8, .hkv = 1, .m = 33, .n = 65}},
       {"head_dim = 72", {.b = 1, .hq = 4, .hkv = 4, .m = 64, .n = 1}},
       {"head_dim = 128; pv_accumulator = f16 + f32 every 64"},
       {"head_dim = 256", {.b = 1, .hq = 2, .hkv = 1, .m = 129, .n = 127}},
       {"head_dim = 64; value_head_dim = 128", {.b = 3, .hq = 6, .hkv = 2, .m = 1, .n = 300}}},
      "lse = on; smooth_k = mean; ");
}

TEST_CASE("agreement: types, smoothing, LSE", "[gpu]") {
  compare_all({{"smooth_k = none; lse = off", kShape, "normal"},
               {"smooth_k = none; lse = on", kShape, "normal"},
               {"smooth_k = mean; lse = off"},
               {"smooth_k = mean; lse = on; input = bf16"},
               {"smooth_k = mean; lse = on; input = bf16; output = f32"},
               {"smooth_k = mean; lse = on; output = f32", kShape, "outlier_v"},
               {"smooth_k = mean; lse = on", kShape, "zero"},
               {"smooth_k = mean; lse = on", kShape, "constant"}},
              "head_dim = 64; ");
}

TEST_CASE("agreement: 8-bit floats, where the target has them", "[gpu]") {
  compare_all({{"p = e4m3 range 448; v = e4m3 per channel; pv_accumulator = f32"},
               {"p = e4m3 range 448; v = e4m3 per channel; pv_accumulator = f32 + f32 every 64"},
               {"p = e4m3 range 448; v = e4m3 per channel; pv_accumulator = f32 + f32 every 64; "
                "mask = causal(top_left)"},
               {"p = e5m2; v = e5m2; pv_accumulator = f32 + f32 every 64"},
               {"p = e5m2 range 16; v = e4m3; row_sum = quantized; smooth_v = mean"},
               {"p = e4m3 range 448; v = e5m2; pv_accumulator = f32 + f32 every 64"},
               {"q = e4m3 per thread(32); k = e4m3 per thread(64)"},
               {"q = e4m3 per head; k = e4m3 per token; p = e4m3; v = e4m3; "
                "pv_accumulator = f32 + f32 every 64"}});
}

}  // namespace
}  // namespace sagejit::test
