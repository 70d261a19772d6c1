// Every pair of back end and assembler that is here gives the same bits on the same device: O, LSE
// and workspace; and code without a fault.
//
// The device is cuda:0, or the one SAGEJIT_TEST_DEVICE names. An emulator reads PTX alone: there
// the back ends are compared, without assemblers.
#include <fmt/format.h>

#include <cstdlib>

#include "compiler/backend/assemble/report.h"
#include "compiler/sema/check.h"
#include "compiler/support/error.h"
#include "compiler/support/stopwatch.h"
#include "runtime/context/context.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr reference::ProblemShape kShape = {.b = 1, .hq = 4, .hkv = 2, .m = 150, .n = 333};
constexpr const char* kBodies[] = {
    "head_dim = 64; lse = on; smooth_k = mean; pv_accumulator = f32",
    "head_dim = 128; lse = on; smooth_k = mean; pv_accumulator = f32; mask = causal(bottom_right)",
    "head_dim = 128; lse = on; smooth_k = mean; p = e4m3 range 448; v = e4m3 per channel; "
    "pv_accumulator = f32 + f32 every 64",
    "head_dim = 64; lse = on; smooth_k = mean; p = int8; v = int8"};

// Null, with the reason shown, where there is none.
std::shared_ptr<Device> open_subject() {
  const char* name = std::getenv("SAGEJIT_TEST_DEVICE");
  try {
    return open_device(name && *name ? name : "cuda:0");
  } catch (const Error& error) {
    WARN("skipped: no GPU\n" << error.what());
    return nullptr;
  }
}

std::vector<ToolchainChoice> choices(const Device& device) {
  if (!device.info().runs_machine_code) {
    return {{.backend = BackendChoice::kPtx},
            {.backend = BackendChoice::kLlvm},
            {.backend = BackendChoice::kCuda}};
  }
  std::vector<ToolchainChoice> pairs;
  for (const auto backend : {BackendChoice::kPtx, BackendChoice::kLlvm, BackendChoice::kCuda}) {
    for (const auto assembler :
         {AssemblerChoice::kPtxas, AssemblerChoice::kNvrtc, AssemblerChoice::kDriver}) {
      pairs.push_back({.backend = backend, .assembler = assembler});
    }
  }
  return pairs;
}

std::string name_of(const ToolchainChoice& choice) {
  return fmt::format("{} + {}", kBackendNames.at(static_cast<size_t>(choice.backend)),
                     kAssemblerNames.at(static_cast<size_t>(choice.assembler)));
}

// Null, with the reason shown, where its tools are not here or the device cannot run the variant.
std::shared_ptr<const Kernel> kernel_by(const ToolchainChoice& choice, const Variant& variant,
                                        const std::shared_ptr<Device>& device) {
  const Environment environment = Environment::read();
  const ToolchainOptions options = ToolchainOptions::from(environment, choice);
  try {
    LazyToolchain(options).get(device->info().runs_machine_code);
  } catch (const Error& error) {
    WARN("skipped: " << name_of(choice) << ": " << error.what());
    return nullptr;
  }
  // One schedule for all, so that they make the same program.
  const Schedule schedule = default_schedule(variant, *device->info().target);
  Context context(ContextOptions{.disk_cache = false}, environment, make_jit_compiler(options));
  Stopwatch watch;
  auto kernel = context.get(make_request(variant, schedule), device).kernel;
  std::string line =
      fmt::format("{}: {:.0f} ms to the loaded kernel", name_of(choice), watch.lap_ms());
  for (const KernelResources& r : kernel->artifact().resources) {
    line += fmt::format(", {} {} registers", r.kernel, r.registers);
  }
  WARN(line);
  return kernel;
}

void check_same(const Kernel& first, const Kernel& other, const Problem& x, const Problem& y) {
  CHECK((x.o().bytes() == y.o().bytes()));
  CHECK((x.lse().bytes() == y.lse().bytes()));
  REQUIRE(first.artifact().plan == other.artifact().plan);
  for (const WorkspaceBuffer& buffer : first.artifact().plan.workspace) {
    CAPTURE(buffer.name);
    CHECK((x.workspace(buffer.name) == y.workspace(buffer.name)));
  }
  CHECK(y.damage() == "");
}

TEST_CASE("every toolchain gives the same bits", "[gpu]") {
  const std::shared_ptr<Device> device = open_subject();
  if (!device) return;
  size_t num_compared = 0;
  for (const char* body : kBodies) {
    CAPTURE(body);
    const Variant variant = variant_of(body);
    if (nearest_supported(variant, *device->info().target) != variant) continue;
    reference::ProblemShape shape = kShape;
    shape.d = shape.dv = variant.head_dim;
    const Inputs inputs = reference::make_inputs("biased_k", shape, variant.input, 5);
    std::shared_ptr<const Kernel> first;
    std::unique_ptr<Problem> expected;
    for (const ToolchainChoice& choice : choices(*device)) {
      CAPTURE(name_of(choice));
      const auto kernel = kernel_by(choice, variant, device);
      if (!kernel) continue;
      const Artifact& artifact = kernel->artifact();
      CHECK(find_assembly_fault({{}, artifact.resources, artifact.assembler_log}) == "");
      auto problem = std::make_unique<Problem>(*kernel, inputs);
      problem->launch();
      if (first) {
        check_same(*first, *kernel, *expected, *problem);
        ++num_compared;
      } else {
        first = kernel;
        expected = std::move(problem);
      }
    }
  }
  // With fewer than two toolchains here, nothing was shown: install NVRTC or ptxas.
  REQUIRE(num_compared > 0);
}

}  // namespace
}  // namespace sagejit::test
