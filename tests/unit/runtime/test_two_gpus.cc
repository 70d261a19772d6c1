// Two GPUs in one process, by a stand-in for the driver (fake_cuda.cc): kernels, memory and
// contexts of one are never taken for the other's.
#include <dlfcn.h>

#include "tests/support/catch.h"
#include "tests/unit/runtime/allocation_counter.h"
#include "tests/unit/runtime/fake_cuda.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

template <typename Function>
Function* fake(const char* name) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library);
  void* function = dlsym(library, name);
  if (!function) FAIL("not the fake driver: set LD_LIBRARY_PATH as ctest does");
  return reinterpret_cast<Function*>(function);
}

int launches(int device) {
  return fake<decltype(fake_cuda_launches)>("fake_cuda_launches")(device);
}
int current_device() {
  return fake<decltype(fake_cuda_current_device)>("fake_cuda_current_device")();
}

// A host program's current context.
class Inside {
 public:
  explicit Inside(int device) { fake<decltype(fake_cuda_enter)>("fake_cuda_enter")(device); }
  ~Inside() { fake<decltype(fake_cuda_leave)>("fake_cuda_leave")(); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

// The toy kernels on one GPU with arguments in its memory.
struct Fixture {
  explicit Fixture(int ordinal)
      : device(open_device(fmt::format("cuda:{}", ordinal))),
        kernel(device, artifact_for(*device)) {
    const Sizes s;
    const auto place = [&](DType type, std::vector<int64_t> shape) {
      int64_t elements = 1;
      for (const int64_t extent : shape) elements *= extent;
      const auto bytes = static_cast<uint64_t>(elements * bits_of(type) / 8);
      return tensor(device->allocate(bytes), type, std::move(shape));
    };
    args.tensors = {place(DType::kF16, {s.b, s.hq, s.m, 64}),
                    place(DType::kF16, {s.b, s.hkv, s.n, 64}),
                    place(DType::kF16, {s.b, s.hkv, s.n, 64}),
                    place(DType::kF16, {s.b, s.hq, s.m, 64}), place(DType::kF32, {s.b, s.hq, s.m})};
    args.workspace_bytes = kernel.workspace_bytes(args);
    args.workspace = device->allocate(args.workspace_bytes);
  }
  static Artifact artifact_for(const Device& device) {
    Artifact artifact = toy_artifact();
    artifact.target = device.info().target->name;
    // The toy reads neither, and what no kernel reads is not checked.
    for (const char* operand : {"k", "v"}) {
      artifact.plan.launches[0].params.push_back(pointer(operand, operand));
    }
    return artifact;
  }
  void launch() const { kernel.launch(args, kBothPhases, nullptr); }

  std::shared_ptr<Device> device;
  Kernel kernel;
  AttentionArgs args;
};

}  // namespace

TEST_CASE("two GPUs: each is opened as what it is") {
  CHECK(open_device("cuda:0")->info().product == "Fake H100");
  CHECK(open_device("cuda:0")->info().target->name == "sm_90a");
  CHECK(open_device("cuda:1")->info().target->name == "sm_80");
  CHECK(open_device("auto")->info().name == "cuda:0");
  CHECK(error_of([] { open_device("cuda:2"); }, ErrorKind::kDevice) ==
        "there is no cuda:2: the driver shows 2 GPUs");
  CHECK(open_device("cuda:1")->info().l2_bytes == 40 << 20);
  CHECK_FALSE(open_device("cuda:1")->sm_clock_mhz());  // on no bus that NVML knows
}

TEST_CASE("two GPUs: a kernel of one refuses memory of the other, whichever argument it is") {
  const Fixture zero(0), one(1);
  for (int operand = 0; operand <= kNumOperands; ++operand) {
    const bool is_workspace = operand == kNumOperands;
    AttentionArgs args = zero.args;
    if (is_workspace) {
      args.workspace = one.args.workspace;
    } else {
      args.tensors[static_cast<size_t>(operand)].address =
          one.args.tensors[static_cast<size_t>(operand)].address;
    }
    const char* name = is_workspace ? "workspace" : kOperandNames[static_cast<size_t>(operand)];
    const int before = launches(0) + launches(1);
    CHECK(error_of([&] { zero.kernel.launch(args, kBothPhases, nullptr); }, ErrorKind::kArgument) ==
          fmt::format("{} lies in memory of cuda:1, but the kernel was loaded for cuda:0", name));
    CHECK(launches(0) + launches(1) == before);
  }
  CHECK(
      error_of([&] { one.kernel.launch(zero.args, kBothPhases, nullptr); }, ErrorKind::kArgument) ==
      "q lies in memory of cuda:0, but the kernel was loaded for cuda:1");
  // A refusal leaves both usable.
  zero.launch();
  one.launch();
}

TEST_CASE("two GPUs: host memory is refused where the GPU does not reach it") {
  Fixture zero(0);
  zero.args.tensors[0].address = 0x1000;
  CHECK(error_of([&] { zero.launch(); }, ErrorKind::kArgument) ==
        "q (0x1000) is not memory that cuda:0 can reach: pass a device address");
}

TEST_CASE("two GPUs: a launch goes to its kernel's GPU, and the caller's context stays") {
  const Fixture zero(0), one(1);
  for (const int inside : {0, 1}) {
    const Inside context(inside);
    for (const Fixture* f : {&zero, &one}) {
      const int device = f == &one;
      const int before = launches(device), before_other = launches(1 - device);
      f->launch();
      CHECK(launches(device) == before + 2);
      CHECK(launches(1 - device) == before_other);
      CHECK(current_device() == inside);
    }
  }
  one.launch();
  CHECK(current_device() == -1);
}

TEST_CASE("two GPUs: a context compiles for each target, and loads on each GPU") {
  auto owned = std::make_unique<FakeCompiler>();
  FakeCompiler& compiler = *owned;
  Context context({.disk_cache = false}, Environment{}, std::move(owned));
  const auto zero = open_device("cuda:0"), one = open_device("cuda:1");
  const KernelRequest request = make_request(Variant{});
  const auto first = context.get(request, zero).kernel;
  const auto second = context.get(request, one).kernel;
  CHECK(compiler.started == 2);
  CHECK(&first->device() == zero.get());
  CHECK(&second->device() == one.get());
  CHECK(context.get(request, zero).kernel == first);
  CHECK(context.get(request, one).kernel == second);
}

TEST_CASE("two GPUs: a launch allocates nothing, the device's part included") {
  const Fixture zero(0);
  zero.launch();
  const size_t before = num_allocations();
  zero.launch();
  CHECK(num_allocations() == before);
}

TEST_CASE("two GPUs: kernels of both launch from many threads") {
  const Fixture zero(0), one(1);
  const int before_zero = launches(0), before_one = launches(1);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 100; ++round) (i + round) % 2 ? one.launch() : zero.launch();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(launches(0) - before_zero == 800);
  CHECK(launches(1) - before_one == 800);
}

}  // namespace sagejit::testing
