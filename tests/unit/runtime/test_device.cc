// Both devices run the toy kernels; on a GPU also: machine code, contexts, capture, foreign memory.
#include <dlfcn.h>

#include "compiler/backend/cuda/nvrtc.h"
#include "runtime/device/cuda/driver.h"
#include "runtime/device/emulated_device.h"
#include "runtime/toolchain/search.h"
#include "tests/support/catch.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

// The devices of this machine: the emulator always, the first GPU where there is one.
std::vector<std::shared_ptr<Device>> devices() {
  std::vector<std::shared_ptr<Device>> found = {open_device("emulator")};
  std::string why_not;
  std::shared_ptr<Device> device = open_device("auto", &why_not);
  if (why_not.empty()) found.push_back(device);
  return found;
}

// The GPU that tests need, or null with a note.
std::shared_ptr<Device> gpu() {
  std::string why_not;
  std::shared_ptr<Device> device = open_device("auto", &why_not);
  if (why_not.empty()) return device;
  WARN("not run: " << why_not);
  return nullptr;
}

class Memory {
 public:
  Memory(Device& device, uint64_t bytes) : device_(device), address_(device.allocate(bytes)) {}
  ~Memory() { device_.free(address_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  uint64_t address() const { return address_; }

 private:
  Device& device_;
  uint64_t address_;
};

// A problem with real memory. q is [b, m, hq, d] in memory, so that strides matter; values are a
// pattern.
struct Problem {
  static constexpr int64_t kB = 2, kHq = 4, kHkv = 2, kM = 5, kN = 7, kD = 64;
  static constexpr int64_t kElements = kB * kHq * kM * kD;

  Problem(Device& on, const Kernel& kernel)
      : device(on),
        q(on, kElements * 2),
        k(on, kB * kHkv * kN * kD * 2),
        o(on, kElements * 2),
        lse(on, kB * kHq * kM * 4) {
    for (int64_t i = 0; i < kElements; ++i) input.push_back(static_cast<uint16_t>(i * 7 + 1));
    device.copy_in(q.address(), input.data(), kElements * 2, nullptr);
    args.tensors = {tensor(q.address(), DType::kF16, {kB, kHq, kM, kD}),
                    tensor(k.address(), DType::kF16, {kB, kHkv, kN, kD}),
                    tensor(k.address(), DType::kF16, {kB, kHkv, kN, kD}),
                    tensor(o.address(), DType::kF16, {kB, kHq, kM, kD}),
                    tensor(lse.address(), DType::kF32, {kB, kHq, kM})};
    args.tensors[0].strides = {kM * kHq * kD, kD, kHq * kD, 1};
    args.workspace_bytes = kernel.workspace_bytes(args);
    workspace = std::make_unique<Memory>(device, args.workspace_bytes);
    args.workspace = workspace->address();
  }

  void check_result() {
    std::vector<uint16_t> output(kElements);
    std::vector<float> sums(kB * kHq * kM);
    device.copy_out(output.data(), o.address(), kElements * 2, nullptr);
    device.copy_out(sums.data(), lse.address(), sums.size() * 4, nullptr);
    size_t wrong = 0;
    for (int64_t i = 0; i < kElements; ++i) {
      const int64_t c = i % kD, row = i / kD % kM, h = i / kD / kM % kHq, b = i / kD / kM / kHq;
      wrong += output[i] != input[((b * kM + row) * kHq + h) * kD + c];
    }
    CHECK(wrong == 0);
    for (const float sum : sums) CHECK(sum == kN + kB * kHq * kM);
  }

  Device& device;
  Memory q, k, o, lse;
  std::unique_ptr<Memory> workspace;
  std::vector<uint16_t> input;
  AttentionArgs args;
};

Artifact artifact_with_cubin(Device& device) {
  const SearchResult search = search_nvrtc(SearchOptions::from(Environment::read()));
  REQUIRE(search.file != "");
  const auto nvrtc = Nvrtc::load(search.file);
  Artifact artifact = toy_artifact();
  for (KernelModule& module : artifact.modules) {
    const std::string source = read_file(toy_file(module.kernel, ".cu"));
    module.ptx = "this is not PTX";
    module.cubin = nvrtc->compile(source, *device.info().target, true).cubin;
  }
  return artifact;
}

// A function of the driver that the runtime itself does not need.
template <typename Function>
Function driver_function(const char* name) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library);
  return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

TEST_CASE("device: the toy kernels run, together and by phases, again and again") {
  for (const auto& device : devices()) {
    INFO(device->info().name);
    const Kernel kernel(device, toy_artifact());
    Problem problem(*device, kernel);
    for (int i = 0; i < 3; ++i) {
      kernel.launch(problem.args, kBothPhases, nullptr);
      problem.check_result();
    }
    kernel.launch(problem.args, kQuantizePhase, nullptr);
    kernel.launch(problem.args, kAttendPhase, nullptr);
    problem.check_result();
  }
}

TEST_CASE("device: broken PTX is refused with the device's words") {
  for (const auto& device : devices()) {
    INFO(device->info().name);
    Artifact artifact = toy_artifact();
    artifact.modules[1].ptx = "this is not PTX";
    const std::string message = error_of([&] { Kernel(device, artifact); }, ErrorKind::kDevice);
    const bool emulated = device->info().name.starts_with("emulator");
    CHECK(message.starts_with(emulated ? "emulator: loading kernel 'toy_attend': "
                                       : "cuda:0: the driver (CUDA "));
  }
}

TEST_CASE("device: a kernel that the module lacks is a defect") {
  for (const auto& device : devices()) {
    Artifact artifact = toy_artifact();
    artifact.plan.launches[0].kernel = "absent";
    CHECK(error_of([&] { Kernel(device, artifact); }, ErrorKind::kInternal) ==
          "the artifact has no kernel 'absent'");
  }
}

TEST_CASE("device: timers advance") {
  for (const auto& device : devices()) {
    const Kernel kernel(device, toy_artifact());
    Problem problem(*device, kernel);
    const auto timer = device->make_timer();
    timer->start(nullptr);
    kernel.launch(problem.args, kBothPhases, nullptr);
    timer->stop(nullptr);
    CHECK(timer->elapsed_ms() > 0);
  }
}

TEST_CASE("device: the emulator counts, and stops an access outside the operands") {
  const auto device = std::make_shared<EmulatedDevice>(find_target("sm_80"));
  const Kernel kernel(device, toy_artifact());
  Problem problem(*device, kernel);
  kernel.launch(problem.args, kBothPhases, nullptr);
  const auto launches = device->take_launches();
  REQUIRE(launches.size() == 2);
  CHECK(launches[0].kernel == "toy_prepare");
  CHECK(launches[1].report.instructions > 0);
  CHECK(device->take_launches().empty());

  // A plan whose first kernel leaves q far behind: its stride grows after the arguments were
  // checked.
  Artifact wrong = toy_artifact();
  wrong.plan.launches[0].params[1] = i64("q.stride_b * 1000000000");
  const Kernel broken(device, wrong);
  const std::string message =
      error_of([&] { broken.launch(problem.args, kBothPhases, nullptr); }, ErrorKind::kDevice);
  CHECK(message.starts_with("emulator: toy_prepare: "));
  CHECK(message.find("out of bounds") != std::string::npos);
  kernel.launch(problem.args, kBothPhases, nullptr);
  problem.check_result();
}

TEST_CASE("device: a GPU that is not there is named") {
  CHECK(error_of([] { open_device("cuda:4000"); }, ErrorKind::kDevice) != "");
}

TEST_CASE("cuda: machine code runs, loaded in place of PTX", "[cuda]") {
  const auto device = gpu();
  if (!device) return;
  const Kernel kernel(device, artifact_with_cubin(*device));
  Problem problem(*device, kernel);
  kernel.launch(problem.args, kBothPhases, nullptr);
  problem.check_result();
}

TEST_CASE("cuda: host memory is refused before the launch, and the context stays sound", "[cuda]") {
  const auto device = gpu();
  if (!device) return;
  const Kernel kernel(device, toy_artifact());
  Problem problem(*device, kernel);
  alignas(16) static std::array<char, 1 << 16> host;
  AttentionArgs wrong = problem.args;
  wrong.tensors[0].address = reinterpret_cast<uintptr_t>(host.data());
  const std::string message =
      error_of([&] { kernel.launch(wrong, kBothPhases, nullptr); }, ErrorKind::kArgument);
  CHECK(message ==
        fmt::format("q ({:#x}) is not memory that cuda:0 can reach: pass a device address",
                    wrong.tensors[0].address));
  kernel.launch(problem.args, kBothPhases, nullptr);
  problem.check_result();
}

TEST_CASE("cuda: the caller's current context is left as it was", "[cuda]") {
  const auto device = gpu();
  if (!device) return;
  std::string why_not;
  const cuda::Driver* driver = cuda::find_driver(why_not);
  cuda::Context before = nullptr, after = nullptr;
  driver->context_current(&before);
  const Kernel kernel(device, toy_artifact());
  Problem problem(*device, kernel);
  kernel.launch(problem.args, kBothPhases, nullptr);
  driver->context_current(&after);
  CHECK(before == after);
}

TEST_CASE("cuda: launches from many threads", "[cuda]") {
  const auto device = gpu();
  if (!device) return;
  const Kernel kernel(device, toy_artifact());
  std::vector<std::unique_ptr<Problem>> problems;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) problems.push_back(std::make_unique<Problem>(*device, kernel));
  for (auto& problem : problems) {
    threads.emplace_back([&kernel, &problem] {
      for (int i = 0; i < 50; ++i) kernel.launch(problem->args, kBothPhases, nullptr);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& problem : problems) problem->check_result();
}

TEST_CASE("cuda: a launch can be captured into a graph and replayed", "[cuda]") {
  const auto device = gpu();
  if (!device) return;
  const Kernel kernel(device, toy_artifact());
  Problem problem(*device, kernel);
  std::string why_not;
  const cuda::Driver* driver = cuda::find_driver(why_not);
  cuda::Context context = nullptr;
  REQUIRE(driver->primary_retain(&context, 0) == 0);
  REQUIRE(driver->context_push(context) == 0);
  Stream stream = nullptr;
  void* graph = nullptr;
  void* executable = nullptr;
  REQUIRE(driver_function<int (*)(Stream*, unsigned)>("cuStreamCreate")(&stream, 1) == 0);
  REQUIRE(driver_function<int (*)(Stream, int)>("cuStreamBeginCapture_v2")(stream, 0) == 0);
  kernel.launch(problem.args, kBothPhases, stream);
  REQUIRE(driver_function<int (*)(Stream, void**)>("cuStreamEndCapture")(stream, &graph) == 0);
  REQUIRE(driver_function<int (*)(void**, void*, unsigned long long)>(
              "cuGraphInstantiateWithFlags")(&executable, graph, 0) == 0);
  for (int i = 0; i < 3; ++i) {
    REQUIRE(driver_function<int (*)(void*, Stream)>("cuGraphLaunch")(executable, stream) == 0);
  }
  device->synchronize(stream);
  problem.check_result();
  driver->context_pop(&context);
  driver->primary_release(0);
}

TEST_CASE("cuda: the host's share of a launch is small", "[cuda]") {
  const auto device = gpu();
  if (!device) return;
  const Kernel kernel(device, toy_artifact());
  Problem problem(*device, kernel);
  constexpr int kLaunches = 200;
  double best_us = 1e9;
  for (int round = 0; round < 20; ++round) {
    device->synchronize(nullptr);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kLaunches; ++i) kernel.launch(problem.args, kBothPhases, nullptr);
    best_us = std::min(
        best_us, std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
                         .count() /
                     kLaunches);
  }
  WARN("one call of two kernels and one memset: " << best_us << " us");
  CHECK(best_us < 100);
}

}  // namespace sagejit::testing
