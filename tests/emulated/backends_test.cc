// PTX of every back end does, bit for bit, what PTX from CUDA C++ does.
//
//   SAGEJIT_BACKENDS=all         every shipped variant; otherwise accumulators and masks take turns
//   SAGEJIT_TEST_BACKEND=cuda    as ctest sets it
#include <fmt/format.h>

#include <span>

#include "compiler/backend/llvm/llvm_backend.h"
#include "compiler/backend/ptx/ptx_backend.h"
#include "compiler/kernels/generators.h"
#include "compiler/plan/forward_plan.h"
#include "compiler/sema/check.h"
#include "compiler/support/error.h"
#include "runtime/device/emulated_device.h"
#include "runtime/toolchain/search.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
#include "tests/support/catch.h"
#include "tests/support/shipped_variants.h"

namespace sagejit::test {
namespace {

using reference::ProblemShape;

// Rows or keys short of a tile, none that a row sees, several tiles with a rest, shared key heads.
constexpr ProblemShape kShapes[] = {{.b = 1, .hq = 2, .hkv = 1, .m = 1, .n = 7},
                                    {.b = 1, .hq = 2, .hkv = 2, .m = 129, .n = 63},
                                    {.b = 2, .hq = 2, .hkv = 1, .m = 65, .n = 200}};

// A kernel as another back end makes it.
struct Other {
  std::string backend;
  Kernel kernel;
};

// The back ends to compare: all that are here, but the one that the lab compiles with.
std::vector<std::shared_ptr<const Backend>> other_backends() {
  std::vector<std::shared_ptr<const Backend>> backends = {make_ptx_backend()};
  const SearchResult llvm = search_llvm(SearchOptions::from(Environment::read()));
  if (llvm.file.empty()) {
    WARN("without llvm: " << llvm_failure(llvm));
  } else {
    backends.push_back(make_llvm_backend(LlvmPlugin::load(llvm.file)));
  }
  return backends;
}

// The launches, workspace and arguments of `kernel`, with code of that back end.
Other made_by(const Backend& backend, const Kernel& kernel, const Variant& variant) {
  Artifact artifact = kernel.artifact();
  const Target& target = find_target(artifact.target);
  const ForwardPlan plan =
      make_forward_plan(variant, parse_schedule(artifact.schedule_text), target);
  artifact.modules.clear();
  for (const ir::Function& function : generate_kernels(plan)) {
    artifact.modules.push_back({function.name, backend.to_ptx(function, target), {}});
  }
  return {backend.name(), {std::make_shared<EmulatedDevice>(target), std::move(artifact)}};
}

// Of everything that a call leaves behind.
void compare(const Kernel& expected, const std::vector<Other>& others, const Inputs& inputs) {
  Problem x(expected, inputs, Layout::kPadded);
  x.launch();
  for (const Other& other : others) {
    CAPTURE(other.backend);
    Problem y(other.kernel, inputs, Layout::kPadded);
    y.launch();
    CHECK((x.o().bytes() == y.o().bytes()));
    CHECK((x.lse().bytes() == y.lse().bytes()));
    for (const WorkspaceBuffer& buffer : expected.artifact().plan.workspace) {
      CAPTURE(buffer.name);
      CHECK((x.workspace(buffer.name) == y.workspace(buffer.name)));
    }
    CHECK(y.damage() == "");
  }
}

void compare_on(Lab& lab, const Variant& variant, std::span<const ProblemShape> shapes) {
  CAPTURE(variant.name);
  const auto kernel = lab.kernel(variant);
  std::vector<Other> others;
  for (const auto& backend : other_backends()) {
    try {
      others.push_back(made_by(*backend, *kernel, variant));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUnsupported) throw;
      continue;  // LLVM does not know every target, nor every version of PTX
    }
    REQUIRE(others.back().kernel.artifact().modules[0].ptx != kernel->artifact().modules[0].ptx);
  }
  REQUIRE_FALSE(others.empty());
  for (ProblemShape shape : shapes) {
    CAPTURE(shape.m, shape.n);
    shape.d = variant.head_dim;
    shape.dv = variant.value_head_dim;
    compare(*kernel, others, reference::make_inputs("biased_k", shape, variant.input, 19));
  }
}

void compare_shipped(Lab& lab, const Target& target) {
  if (!lab.ready()) return;
  if (!lab.is_emulated()) return;  // a GPU that runs machine code would not look at the PTX
  const std::vector<Variant> variants = variants_to_compare(SAGEJIT_ROOT, target);
  REQUIRE_FALSE(variants.empty());
  lab.prefetch(variants);
  for (const Variant& variant : variants) compare_on(lab, variant, kShapes);
}

TEST_CASE("shipped variants by every back end and through CUDA C++", "[emulated][ptx]") {
  compare_shipped(Lab::mma_sync(), find_target("sm_80"));
}

TEST_CASE("shipped variants for Hopper by every back end and through CUDA C++",
          "[emulated][ptx][wgmma]") {
  compare_shipped(Lab::wgmma(), find_target("sm_90a"));
}

TEST_CASE("fp4 by every back end and through CUDA C++", "[emulated][ptx][fp4]") {
  Lab& lab = Lab::emulated("sm_120a");
  if (!lab.ready()) return;
  const Variant variant = variant_of(
      "head_dim = 128; lse = on; smooth_q = mean; smooth_k = mean; mask = causal(bottom_right); "
      "q = fp4; v = fp4");
  REQUIRE(nearest_supported(variant, find_target("sm_120a")) == variant);
  compare_on(lab, variant, std::span(kShapes).subspan(1));
}

// 8-bit P and V, and e4m3 Q and K, whose products, conversions and sums differ from target to
// target.
TEST_CASE("8-bit P and V by every back end and through CUDA C++", "[emulated][ptx][eight_bit]") {
  constexpr std::string_view kTypes[] = {
      "v = e4m3; pv_accumulator = f32 + f32 every 64",
      "p = e4m3 range 448; v = e4m3 range 2.25; pv_accumulator = f16 + f32 every 64",
      "p = int8; v = int8",
      "p = uint8; v = int8",
      "p = e5m2; v = e5m2; row_sum = quantized; pv_accumulator = f32 + f32 every 64",
      "p = e5m2 range 448; v = e4m3 range 2.25; pv_accumulator = f16 + f32 every 64",
      "q = e4m3 per thread(32); k = e4m3 per token; p = e4m3; v = e5m2"};
  for (const char* target : {"sm_89", "sm_120"}) {
    CAPTURE(target);
    Lab& lab = Lab::emulated(target);
    if (!lab.ready()) return;
    std::vector<Variant> variants;
    for (const std::string_view types : kTypes) {
      variants.push_back(
          variant_of(fmt::format("head_dim = 64; lse = on; smooth_k = mean; {}", types)));
    }
    lab.prefetch(variants);
    for (const Variant& variant : variants) {
      REQUIRE(nearest_supported(variant, find_target(target)) == variant);
      compare_on(lab, variant, std::span(kShapes).subspan(1));
    }
  }
}

}  // namespace
}  // namespace sagejit::test
