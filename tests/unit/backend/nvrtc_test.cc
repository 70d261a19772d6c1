#include "compiler/backend/cuda/nvrtc.h"

#include <fmt/format.h>

#include <algorithm>

#include "compiler/backend/assemble/report.h"
#include "tests/support/catch.h"
#include "tests/unit/backend/find_nvrtc.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

using Strings = std::vector<std::string>;

constexpr std::string_view kTwoKernels = R"(
extern "C" __global__ void plain(float* p) { p[threadIdx.x] = 2.0f * p[threadIdx.x]; }
extern "C" __global__ void with_shared(float* p) {
  __shared__ float s[256];
  s[threadIdx.x] = p[threadIdx.x];
  __syncthreads();
  p[threadIdx.x] = s[255 - threadIdx.x];
}
)";

// 100 numbers alive at once in a thread that gets 32 registers.
constexpr std::string_view kSpilling = R"(
extern "C" __global__ void __launch_bounds__(1024, 2) spilling(float* p, int n) {
  float x[100];
#pragma unroll
  for (int i = 0; i < 100; ++i) x[i] = p[i * 1024 + threadIdx.x];
  for (int j = 0; j < n; ++j) {
#pragma unroll
    for (int i = 0; i < 100; ++i) x[i] = x[i] * x[(i + 37) % 100] + p[j];
  }
#pragma unroll
  for (int i = 0; i < 100; ++i) p[i * 1024 + threadIdx.x] = x[i];
}
)";

MachineCode assembled(const Nvrtc& nvrtc, std::string_view source) {
  NvrtcOutput output = nvrtc.compile(source, find_target("sm_80"), true);
  return {std::move(output.cubin), parse_ptxas_report(output.log), output.log};
}

}  // namespace

TEST_CASE("a library that is not NVRTC is refused") {
  const Error missing = thrown_by([] { Nvrtc::load("/nowhere/libnvrtc.so"); });
  CHECK(missing.kind() == ErrorKind::kToolchain);
  CHECK_THAT(missing.message(),
             Catch::StartsWith("NVRTC cannot be loaded: /nowhere/libnvrtc.so: "));
  const Error other = thrown_by([] { Nvrtc::load("libm.so.6"); });
  CHECK(other.kind() == ErrorKind::kToolchain);
  CHECK(other.message() ==
        "libm.so.6 has no function nvrtcCreateProgram: it is not NVRTC 12 or newer");
}

TEST_CASE("the version and the flags that take part in cache keys") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  CHECK_THAT(nvrtc->version(), Catch::Matches("nvrtc 13\\.[0-9]+"));
  CHECK(nvrtc->flags(find_target("sm_80"), false) ==
        Strings{"--std=c++17", "--minimal", "--fmad=false", "--diag-suppress=177", "--no-cache",
                "--gpu-architecture=compute_80"});
  CHECK(nvrtc->flags(find_target("sm_90a"), true) ==
        Strings{"--std=c++17", "--minimal", "--fmad=false", "--diag-suppress=177", "--no-cache",
                "--gpu-architecture=sm_90a", "--ptxas-options=-v"});
}

TEST_CASE("NVRTC's own cache is turned off from the release that has one") {
  const auto turned_off = [](NvrtcVersion version, bool assemble) {
    const Strings flags = nvrtc_flags(version, find_target("sm_90a"), assemble);
    return std::count(flags.begin(), flags.end(), "--no-cache") == 1;
  };
  for (const bool assemble : {false, true}) {
    for (const NvrtcVersion version : {NvrtcVersion{12, 0}, {12, 8}}) {
      CHECK_FALSE(turned_off(version, assemble));
    }
    for (const NvrtcVersion version : {NvrtcVersion{12, 9}, {13, 0}, {14, 2}}) {
      CHECK(turned_off(version, assemble));
    }
  }
}

TEST_CASE("assembling reports the resources of every kernel") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const MachineCode output = assembled(*nvrtc, kTwoKernels);
  REQUIRE(output.resources.size() == 2);
  for (const KernelResources& kernel : output.resources) {
    INFO(kernel.kernel);
    const bool shared = kernel.kernel == "with_shared";
    CHECK((shared || kernel.kernel == "plain"));
    CHECK(kernel.registers > 0);
    CHECK(kernel.registers <= 255);
    CHECK(kernel.static_smem_bytes == (shared ? 1024 : 0));
    CHECK(kernel.spill_store_bytes == 0);
    CHECK(kernel.spill_load_bytes == 0);
    CHECK(kernel.stack_bytes == 0);
  }
  CHECK(output.resources[0].kernel != output.resources[1].kernel);
  REQUIRE(output.cubin.size() > 4);
  CHECK(std::string(output.cubin.begin(), output.cubin.begin() + 4) ==
        "\x7f"
        "ELF");
}

TEST_CASE("compiling the same source again reports the same resources") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const MachineCode first = assembled(*nvrtc, kTwoKernels);
  const MachineCode second = assembled(*nvrtc, kTwoKernels);
  CHECK(first.resources.size() == 2);
  CHECK(second.resources == first.resources);
  CHECK(second.cubin == first.cubin);
}

TEST_CASE("PTX alone comes without code and resources, and without contraction") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const NvrtcOutput output =
      nvrtc->compile("extern \"C\" __global__ void k(float* p) { p[0] = p[1] * p[2] + p[3]; }",
                     find_target("sm_90a"), false);
  CHECK(output.cubin.empty());
  CHECK(parse_ptxas_report(output.log).empty());
  CHECK_THAT(output.ptx, Catch::Contains(".target sm_90a") && Catch::Contains("mul.rn.f32") &&
                             Catch::Contains("add.rn.f32") && !Catch::Contains("fma"));
}

TEST_CASE("a kernel that spills registers is found out") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const MachineCode output = assembled(*nvrtc, kSpilling);
  REQUIRE(output.resources.size() == 1);
  CHECK(output.resources[0].registers <= 32);
  CHECK(output.resources[0].spill_store_bytes > 0);
  CHECK(output.resources[0].spill_load_bytes > 0);
  CHECK(output.resources[0].stack_bytes > 0);
  const int bytes =
      std::max(output.resources[0].spill_store_bytes, output.resources[0].spill_load_bytes);
  CHECK(find_assembly_fault(output) ==
        fmt::format("the assembler spills {} bytes of registers in kernel 'spilling'", bytes));
  CHECK(find_assembly_fault(assembled(*nvrtc, kTwoKernels)) == "");
}

TEST_CASE("wrong source is refused with the compiler's log") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const Error error = thrown_by(
      [&] { nvrtc->compile("__global__ void k() { nonsense(); }", find_target("sm_80"), false); });
  CHECK(error.kind() == ErrorKind::kToolchain);
  CHECK(error.message() == "NVRTC refuses the generated kernel for sm_80: NVRTC_ERROR_COMPILATION");
  CHECK_THAT(error.log(), Catch::Contains("kernel.cu(1): error") && Catch::Contains("nonsense"));
}

TEST_CASE("wrong assembly is refused with the assembler's log") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const Error error = thrown_by([&] {
    nvrtc->compile("extern \"C\" __global__ void k() { asm volatile(\"nonsense.b32;\"); }",
                   find_target("sm_80"), true);
  });
  CHECK(error.kind() == ErrorKind::kToolchain);
  CHECK_THAT(error.log(), Catch::Contains("nonsense"));
}

}  // namespace sagejit
