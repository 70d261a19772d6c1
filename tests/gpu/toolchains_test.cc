// Every pair of back end and assembler that is here gives the same bits on the same device: O, LSE
// and workspace; and, of four variants, code without a fault.
//
// The device is cuda:0, or the one SAGEJIT_TEST_DEVICE names. An emulator reads PTX alone: there
// the back ends are compared, without assemblers.
//
//   SAGEJIT_BACKENDS=all         every shipped variant, not one of each family and head dim
#include <fmt/format.h>

#include <cstdlib>

#include "compiler/backend/assemble/report.h"
#include "compiler/sema/check.h"
#include "compiler/support/error.h"
#include "compiler/support/stopwatch.h"
#include "runtime/context/context.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
#include "tests/reference/parallel.h"
#include "tests/support/catch.h"
#include "tests/support/shipped_variants.h"

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

// Of one back end, with the assembler that is taken for it: variants -> kernels. By the schedule
// that printed PTX takes, so that all make the same program; another compiler may spill with it.
std::vector<std::shared_ptr<const Kernel>> kernels_by(BackendChoice backend,
                                                      const std::vector<Variant>& variants,
                                                      const std::shared_ptr<Device>& device) {
  const Environment environment = Environment::read();
  const ToolchainOptions options = ToolchainOptions::from(environment, {.backend = backend});
  try {
    LazyToolchain(options).get(device->info().runs_machine_code);
  } catch (const Error& error) {
    WARN("skipped: " << kBackendNames.at(static_cast<size_t>(backend)) << ": " << error.what());
    return {};
  }
  Context context(ContextOptions{.disk_cache = false}, environment, make_jit_compiler(options));
  std::vector<std::shared_ptr<const Kernel>> kernels(variants.size());
  std::vector<std::string> errors(variants.size());
  reference::parallel_for(static_cast<int64_t>(variants.size()), [&](int64_t index) {
    const auto i = static_cast<size_t>(index);
    try {
      const Schedule schedule = default_schedule(variants[i], *device->info().target);
      kernels[i] = context.get(make_request(variants[i], schedule), device).kernel;
    } catch (const Error& error) {
      errors[i] = fmt::format("{}: {}\n{}", variants[i].name, error.what(), error.log());
    }
  });
  for (const std::string& error : errors) CHECK(error == "");
  return kernels;
}

TEST_CASE("shipped variants are the same by every back end", "[gpu]") {
  const std::shared_ptr<Device> device = open_subject();
  if (!device) return;
  const std::vector<Variant> variants = variants_to_compare(SAGEJIT_ROOT, *device->info().target);
  REQUIRE_FALSE(variants.empty());
  std::vector<std::vector<std::shared_ptr<const Kernel>>> kernels;
  for (const auto backend : {BackendChoice::kPtx, BackendChoice::kLlvm, BackendChoice::kCuda}) {
    kernels.push_back(kernels_by(backend, variants, device));
    if (kernels.back().empty()) kernels.pop_back();
  }
  REQUIRE(kernels.size() > 1);  // else nothing is shown: install NVRTC, or build the LLVM back end
  for (size_t i = 0; i < variants.size(); ++i) {
    CAPTURE(variants[i].name);
    reference::ProblemShape shape = kShape;
    shape.d = variants[i].head_dim;
    shape.dv = variants[i].value_head_dim;
    const Inputs inputs = reference::make_inputs("biased_k", shape, variants[i].input, 5);
    const Kernel* first = nullptr;
    std::unique_ptr<Problem> expected;
    for (const auto& by_backend : kernels) {
      if (!by_backend[i]) continue;  // reported above
      CAPTURE(by_backend[i]->artifact().backend);
      auto problem = std::make_unique<Problem>(*by_backend[i], inputs);
      problem->launch();
      if (first) {
        check_same(*first, *by_backend[i], *expected, *problem);
      } else {
        first = by_backend[i].get();
        expected = std::move(problem);
      }
    }
  }
  WARN(fmt::format("{} variants, {} back ends", variants.size(), kernels.size()));
}

}  // namespace
}  // namespace sagejit::test
