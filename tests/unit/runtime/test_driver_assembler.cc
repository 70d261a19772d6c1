// The driver as an assembler, by the stand-in for it (fake_cuda.cc).
#include <dlfcn.h>

#include "compiler/backend/assemble/report.h"
#include "compiler/sema/resolve.h"
#include "runtime/device/cuda/driver.h"
#include "runtime/device/cuda/driver_assembler.h"
#include "tests/support/catch.h"
#include "tests/unit/runtime/fake_cuda.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

constexpr const char* kPtx = ".version 8.0\n.visible .entry k(\n.param .b64 p) {ret;}\n";
constexpr const char* kReport =
    "info    : Compiling entry function 'k' for 'sm_90a'\n"
    "info    : Function properties for k\n"
    "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
    "info    : Used 168 registers, 16 bytes smem\n"
    "info    : (C7512) Potential Performance Loss: wgmma.mma_async is serialized\n";

template <typename Function>
Function* fake(const char* name) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library);
  void* function = dlsym(library, name);
  if (!function) FAIL("not the fake driver: set LD_LIBRARY_PATH as ctest does");
  return reinterpret_cast<Function*>(function);
}

void set_jit(int num_silent, const char* log = kReport, int result = cuda::kSuccess) {
  fake<decltype(fake_cuda_set_jit)>("fake_cuda_set_jit")(num_silent, log, result);
}
int num_loads() {
  return fake<decltype(fake_cuda_jit_loads)>("fake_cuda_jit_loads")();
}
int device() {
  return fake<decltype(fake_cuda_jit_device)>("fake_cuda_jit_device")();
}
std::string text() {
  return fake<decltype(fake_cuda_jit_text)>("fake_cuda_jit_text")();
}
int current_device() {
  return fake<decltype(fake_cuda_current_device)>("fake_cuda_current_device")();
}

}  // namespace

TEST_CASE("driver assembler: its report is read, its code stays with it") {
  set_jit(0);
  const auto assembler = make_driver_assembler();
  CHECK(assembler->name().starts_with("driver "));
  CHECK(assembler->ptx_version() == 90);
  const MachineCode code = assembler->assemble(kPtx, find_target("sm_90a"));
  CHECK(num_loads() == 1);
  CHECK(text() == kPtx);
  CHECK(code.cubin.empty());
  CHECK(code.log == kReport);
  CHECK(code.resources ==
        std::vector<KernelResources>{{.kernel = "k", .registers = 168, .static_smem_bytes = 16}});
  CHECK_NOTHROW(check_machine_code(code, assembler->name()));
  CHECK(find_assembly_fault(code) == "the assembler reports C7512: the kernel runs serialized");
  CHECK(current_device() == -1);
}

TEST_CASE("driver assembler: what comes silently from its cache is made again, for its warnings") {
  set_jit(1);
  const MachineCode code = make_driver_assembler()->assemble(kPtx, find_target("sm_90a"));
  CHECK(num_loads() == 2);
  CHECK(text().starts_with(std::string(kPtx) + "// "));
  CHECK(code.resources.at(0).registers == 168);
  CHECK(find_assembly_fault(code) != "");
}

TEST_CASE("driver assembler: one that never reports is asked for attributes, and once only") {
  set_jit(100);
  const auto assembler = make_driver_assembler();
  for (const int expected : {2, 3, 4}) {
    const MachineCode code = assembler->assemble(kPtx, find_target("sm_90a"));
    CHECK(num_loads() == expected);
    CHECK(code.resources == std::vector<KernelResources>{{.kernel = "k",
                                                          .registers = 77,
                                                          .spill_store_bytes = 24,
                                                          .spill_load_bytes = 24,
                                                          .stack_bytes = 24,
                                                          .static_smem_bytes = 512}});
  }
}

TEST_CASE("driver assembler: the GPU is the target's own, for what it reports is of that GPU") {
  set_jit(0);
  const auto assembler = make_driver_assembler();
  for (const auto& [target, ordinal] : {std::pair{"sm_90a", 0}, {"sm_90", 0}, {"sm_80", 1}}) {
    INFO(target);
    assembler->assemble(kPtx, find_target(target));
    CHECK(device() == ordinal);
  }
  const int before = num_loads();
  // An H100 would run code for sm_86 and sm_89.
  for (const auto& [target, capability] :
       {std::pair{"sm_86", "8.6"}, {"sm_89", "8.9"}, {"sm_120", "12.0"}, {"sm_120a", "12.0"}}) {
    CHECK(error_of([&, name = target] { assembler->assemble(kPtx, find_target(name)); },
                   ErrorKind::kToolchain) ==
          fmt::format("the driver assembles for the GPUs that are here alone, of compute "
                      "capability 9.0, 8.0; {} takes one of {}, or another assembler: --assembler "
                      "ptxas or nvrtc",
                      target, capability));
  }
  CHECK(num_loads() == before);
}

// The machine of a copied cache: a GPU with its driver, and no other tool.
TEST_CASE(
    "driver assembler: what another toolchain has made is preferred, unless it is asked for") {
  set_jit(100);
  const TemporaryDirectory dir;
  Environment nothing;  // no toolkit, and a search that ends at once
  nothing.nvrtc = nothing.ptxas = dir / "none";
  const auto device = open_device("cuda:1");
  const KernelRequest request = make_request(
      resolve_variants("v.attn", "v { head_dim = 16; q = int8 per head; p = f16; v = f16 }").at(0));
  const std::string key = request_key_text({.variant = request.variant,
                                            .target = device->info().target,
                                            .schedule = std::nullopt,
                                            .assemble = true});
  Artifact foreign = toy_artifact();
  foreign.target = device->info().target->name;
  foreign.assembler = "ptxas 13.0.88";
  REQUIRE(DiskCache(dir / "cache", "", Log()).store({key, "backend: another\n"}, foreign));
  const auto found = [&](AssemblerChoice assembler, const char* cache) {
    Context context({.cache_dir = dir / cache, .toolchain = {.assembler = assembler}}, nothing);
    return context.get(request, device);
  };
  const FoundKernel copied = found(AssemblerChoice::kAuto, "cache");
  CHECK(copied.origin == Origin::kDisk);
  CHECK(copied.kernel->artifact().assembler == "ptxas 13.0.88");
  CHECK(found(AssemblerChoice::kAuto, "empty").origin == Origin::kCompiled);
  const FoundKernel asked_for = found(AssemblerChoice::kDriver, "cache");
  CHECK(asked_for.origin == Origin::kCompiled);
  CHECK(asked_for.kernel->artifact().assembler.starts_with("driver "));
  // Its own entry comes first.
  CHECK(found(AssemblerChoice::kAuto, "cache").kernel->artifact().assembler.starts_with("driver "));
}

TEST_CASE("driver assembler: what it refuses is an error with its log") {
  set_jit(0, "error   : line 3", 218);
  const auto assembler = make_driver_assembler();
  try {
    assembler->assemble(kPtx, find_target("sm_90a"));
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kToolchain);
    CHECK(error.message() == assembler->name() +
                                 " refuses the generated kernel for sm_90a: FAKE_ERROR: as the "
                                 "fake driver sees it");
    CHECK(error.log() == "error   : line 3");
  }
  set_jit(0);
  CHECK(current_device() == -1);
}

}  // namespace sagejit::testing
