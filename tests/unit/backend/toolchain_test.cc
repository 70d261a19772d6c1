// Back end and assembler together, with stand-ins for what NVIDIA makes; and the compiler's use of
// them.
#include "compiler/backend/toolchain.h"

#include <functional>
#include <map>
#include <mutex>

#include "compiler/backend/ptx/ptx_backend.h"
#include "compiler/compile.h"
#include "compiler/sema/resolve.h"
#include "tests/support/catch.h"
#include "tests/unit/backend/find_nvrtc.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

std::string entry_of(std::string_view ptx) {
  constexpr std::string_view kEntry = ".entry ";
  const size_t at = ptx.find(kEntry) + kEntry.size();
  return std::string(ptx.substr(at, ptx.find('(', at) - at));
}

// Reports what it is told to.
class FakeAssembler final : public Assembler {
 public:
  std::string name() const override { return "fake 1.2"; }
  std::vector<std::string> flags(const Target& target) const override {
    return {"-v", "-for=" + std::string(target.name)};
  }
  int ptx_version() const override { return 90; }
  MachineCode assemble(std::string_view ptx, const Target&) const override {
    const std::string kernel = entry_of(ptx);
    MachineCode code = {{'\177', 'E', 'L', 'F'}, {{.kernel = kernel, .registers = 64}}, kernel};
    const std::scoped_lock lock(mutex_);
    if (change) change(code, num_assembled[kernel]);
    ++num_assembled[kernel];
    return code;
  }

  // May spoil the code; `nth`: of this kernel's, from 0.
  std::function<void(MachineCode& code, int nth)> change;
  mutable std::map<std::string, int> num_assembled;

 private:
  mutable std::mutex mutex_;
};

CompileRequest request_for(const char* target) {
  CompileRequest request;
  request.variant = resolve_variants("v.attn",
                                     "v { head_dim = 96; mask = causal(top_left); q = int8 per "
                                     "block(128); k = int8 per block(64); smooth_k = mean; p = "
                                     "f16; v = f16; pv_accumulator = f16 + f32 every 64 }")
                        .at(0);
  request.target = &find_target(target);
  return request;
}

struct Fixture {
  std::shared_ptr<FakeAssembler> assembler = std::make_shared<FakeAssembler>();
  std::unique_ptr<Toolchain> toolchain = make_toolchain(make_ptx_backend(), assembler);
};

}  // namespace

TEST_CASE("keys name back end, assembler and the flags of the assembler, for machine code alone") {
  const Fixture f;
  const Target& target = find_target("sm_90a");
  CHECK(f.toolchain->key_text(target, true) ==
        "backend: ptx\nassembler: fake 1.2 -v -for=sm_90a\n");
  CHECK(f.toolchain->key_text(target, false) == "backend: ptx\n");
  const auto without = make_toolchain(make_ptx_backend(), nullptr);
  CHECK(without->key_text(target, false) == "backend: ptx\n");
  CHECK(without->assembler() == "");
  CompileRequest request = request_for("sm_90a");
  CHECK(toolchain_key_text(request, *f.toolchain) == f.toolchain->key_text(target, true));
}

TEST_CASE("the keys of toolchains with NVRTC differ from one another") {
  const std::shared_ptr<const Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const Target& target = find_target("sm_80");
  const auto in_one_go = make_nvrtc_toolchain(nvrtc);
  CHECK(in_one_go->key_text(target, true) ==
        fmt::format("backend: cuda {0} --std=c++17 --minimal --fmad=false --diag-suppress=177 "
                    "--no-cache --gpu-architecture=sm_80 --ptxas-options=-v\nassembler: {0} in one "
                    "go\n",
                    nvrtc->version()));
  CHECK(in_one_go->key_text(target, false) ==
        fmt::format("backend: cuda {} --std=c++17 --minimal --fmad=false --diag-suppress=177 "
                    "--no-cache --gpu-architecture=compute_80\n",
                    nvrtc->version()));
}

TEST_CASE("without an assembler there is PTX, and an error where machine code is asked for") {
  const auto toolchain = make_toolchain(make_ptx_backend(), nullptr);
  CompileRequest request = request_for("sm_80");
  const Error error = thrown_by([&] { compile(request, *toolchain); });
  CHECK(error.kind() == ErrorKind::kArgument);
  CHECK(error.message() == "machine code needs an assembler; there is none");
  request.assemble = false;
  const Artifact artifact = compile(request, *toolchain);
  CHECK(artifact.backend == "ptx");
  CHECK(artifact.assembler == "");
  for (const KernelModule& module : artifact.modules) {
    CHECK(entry_of(module.ptx) == module.kernel);
    CHECK(module.cubin.empty());
  }
}

TEST_CASE("an artifact has code, resources and times for each of the plan's launches") {
  Fixture f;
  const CompileRequest request = request_for("sm_86");
  CompileTimes times;
  const Artifact artifact = compile(request, *f.toolchain, &times);
  const size_t num_launches = artifact.plan.launches.size();
  REQUIRE(num_launches == 2);
  REQUIRE(artifact.modules.size() == num_launches);
  REQUIRE(artifact.resources.size() == num_launches);
  REQUIRE(times.kernels.size() == num_launches);
  CHECK(artifact.backend == "ptx");
  CHECK(artifact.assembler == "fake 1.2");
  CHECK(artifact.assembler_log == "prepare\nattention\n");
  for (size_t i = 0; i < num_launches; ++i) {
    const KernelLaunch& launch = artifact.plan.launches[i];
    CHECK(artifact.resources[i].kernel == launch.kernel);
    CHECK(artifact.modules[i].kernel == launch.kernel);
    CHECK(entry_of(artifact.modules[i].ptx) == launch.kernel);
    CHECK(artifact.modules[i].cubin.size() == 4);
    CHECK(times.kernels[i].kernel == launch.kernel);
    CHECK(times.kernels[i].backend_ms > 0);
    CHECK(times.kernels[i].assemble_ms > 0);
    CHECK(launch.dynamic_smem_bytes > 0);
  }
}

TEST_CASE("a schedule with a fault gives way to the next, which compiles only what it changes") {
  const auto spill = [](MachineCode& code, int nth) {
    if (code.log == "attention" && nth < 2) code.resources[0].spill_store_bytes = 8;
  };
  const auto warn = [](MachineCode& code, int nth) {
    if (code.log == "attention" && nth < 2) code.log += ": (C7512) serialized";
  };
  const CompileRequest request = request_for("sm_80");
  const auto schedules = default_schedules(request.variant, *request.target);
  REQUIRE(schedules.size() > 2);
  for (const auto& fault : {std::function(spill), std::function(warn)}) {
    Fixture f;
    f.assembler->change = fault;
    const Artifact artifact = compile(request, *f.toolchain);
    CHECK(artifact.schedule_text == print_schedule(schedules[2]));
    CHECK(f.assembler->num_assembled ==
          std::map<std::string, int>{{"attention", 3}, {"prepare", 1}});
  }
}

TEST_CASE("where every schedule has a fault, the one that spills least is taken") {
  Fixture f;
  f.assembler->change = [](MachineCode& code, int nth) {
    if (code.log == "attention") code.resources[0].spill_store_bytes = nth == 1 ? 4 : 8;
  };
  const CompileRequest request = request_for("sm_80");
  const Artifact artifact = compile(request, *f.toolchain);
  CHECK(artifact.schedule_text ==
        print_schedule(default_schedules(request.variant, *request.target)[1]));
}

TEST_CASE("an assembler's garbage is no artifact") {
  Fixture f;
  f.assembler->change = [](MachineCode& code, int) { code.cubin = {'<'}; };
  const Error error = thrown_by([&] { compile(request_for("sm_80"), *f.toolchain); });
  CHECK(error.kind() == ErrorKind::kToolchain);
  CHECK_THAT(error.message(), Catch::StartsWith("fake 1.2 returned what is no machine code"));
}

TEST_CASE("by way of CUDA C++, PTX and machine code come in one go") {
  const std::shared_ptr<const Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  CompileRequest request = request_for("sm_86");
  CompileTimes times;
  const Artifact artifact = compile(request, *make_nvrtc_toolchain(nvrtc), &times);
  CHECK(artifact.backend == "cuda " + nvrtc->version());
  CHECK(artifact.assembler == nvrtc->version());
  REQUIRE(artifact.modules.size() == 2);
  for (size_t i = 0; i < artifact.modules.size(); ++i) {
    CHECK(entry_of(artifact.modules[i].ptx) == artifact.modules[i].kernel);
    CHECK_FALSE(artifact.modules[i].cubin.empty());
    CHECK(artifact.resources[i].kernel == artifact.modules[i].kernel);
    CHECK(times.kernels[i].backend_ms > 0);
    CHECK(times.kernels[i].assemble_ms == 0);
  }
}

}  // namespace sagejit
