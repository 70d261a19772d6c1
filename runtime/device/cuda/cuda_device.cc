#include "runtime/device/cuda/cuda_device.h"

#include <algorithm>
#include <array>
#include <vector>

#include "compiler/support/error.h"
#include "runtime/device/cuda/driver.h"
#include "runtime/device/cuda/nvml.h"

namespace sagejit {
namespace {

using cuda::Driver;

// What every object of one device shares; the last of them releases the context.
struct CudaState {
  explicit CudaState(const Driver& loaded) : driver(loaded) {}
  CudaState(const CudaState&) = delete;
  CudaState& operator=(const CudaState&) = delete;

  const Driver& driver;
  DeviceInfo info;
  int ordinal = 0;
  int device = 0;
  cuda::Context context = nullptr;
  bool retained = false;
  bool reaches_pageable_memory = false;

  ~CudaState() {
    if (retained) driver.primary_release(device);
  }
  void check(int result, std::string_view what) const { driver.check(result, info.name, what); }
};

// Makes the device's context current for a scope.
class CurrentContext {
 public:
  explicit CurrentContext(const CudaState& state) : state_(state) {
    cuda::Context current = nullptr;
    state.check(state.driver.context_current(&current), "reading the current context");
    if (current == state.context) return;
    state.check(state.driver.context_push(state.context), "entering the context");
    pushed_ = true;
  }
  ~CurrentContext() {
    cuda::Context popped = nullptr;
    if (pushed_) state_.driver.context_pop(&popped);
  }
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

 private:
  const CudaState& state_;
  bool pushed_ = false;
};

// One module of the driver, and the kernel in it.
class CudaModule {
 public:
  CudaModule(const CudaState& state, const Artifact& artifact, const KernelModule& code)
      : state_(state), kernel_(code.kernel) {
    const CurrentContext current(state_);
    std::array<char, 8192> log{};
    std::array<int, 2> options = {cuda::kJitErrorLogBuffer, cuda::kJitErrorLogBytes};
    std::array<void*, 2> values = {log.data(), reinterpret_cast<void*>(log.size())};
    const void* image = code.cubin.empty() ? static_cast<const void*>(code.ptx.c_str())
                                           : static_cast<const void*>(code.cubin.data());
    const int result =
        state_.driver.module_load(&module_, image, options.size(), options.data(), values.data());
    if (result != cuda::kSuccess) refuse(result, artifact, log.data());
    if (state_.driver.module_function(&function_, module_, kernel_.c_str()) != cuda::kSuccess) {
      state_.driver.module_unload(module_);
      fail(ErrorKind::kInternal, "the module made for kernel '{}' has no such kernel", kernel_);
    }
  }

  ~CudaModule() {
    // Without a context (the driver is shutting down) there is nothing left to unload.
    if (state_.driver.context_push(state_.context) != cuda::kSuccess) return;
    cuda::Context popped = nullptr;
    state_.driver.module_unload(module_);
    state_.driver.context_pop(&popped);
  }
  CudaModule(const CudaModule&) = delete;
  CudaModule& operator=(const CudaModule&) = delete;

  const std::string& kernel() const { return kernel_; }
  cuda::Function function() const { return function_; }

 private:
  [[noreturn]] void refuse(int result, const Artifact& artifact, const char* log) const {
    const int version = state_.info.driver_version;
    throw Error(
        ErrorKind::kDevice,
        fmt::format(
            "{}: the driver (CUDA {}.{}) refuses kernel '{}' made for {} by {}: {}; a driver "
            "at least as new as the compiler is needed",
            state_.info.name, version / 1000, version % 1000 / 10, kernel_, artifact.target,
            artifact.assembler.empty() ? artifact.backend : artifact.assembler,
            state_.driver.describe(result)),
        log);
  }

  const CudaState& state_;
  std::string kernel_;
  cuda::Module module_ = nullptr;
  cuda::Function function_ = nullptr;
};

class CudaArtifact final : public LoadedArtifact {
 public:
  CudaArtifact(std::shared_ptr<const CudaState> state, const Artifact& artifact)
      : state_(std::move(state)) {
    for (const KernelModule& code : artifact.modules) {
      modules_.push_back(std::make_unique<CudaModule>(*state_, artifact, code));
    }
    allow_dynamic_smem(artifact.plan.launches);
  }

  KernelHandle kernel(const std::string& name) const override { return {function(name)}; }

 private:
  // Beyond 48 KiB a kernel must be allowed its dynamic shared memory once; a launch then needs no
  // call.
  void allow_dynamic_smem(const std::vector<KernelLaunch>& launches) const {
    constexpr int kAllowedByDefault = 48 * 1024;
    const CurrentContext current(*state_);
    for (const KernelLaunch& launch : launches) {
      if (launch.dynamic_smem_bytes <= kAllowedByDefault) continue;
      state_->check(
          state_->driver.function_set(function(launch.kernel), cuda::kFunctionMaxDynamicSmem,
                                      launch.dynamic_smem_bytes),
          fmt::format("giving kernel '{}' {} bytes of shared memory", launch.kernel,
                      launch.dynamic_smem_bytes));
    }
  }

  cuda::Function function(const std::string& name) const {
    for (const auto& module : modules_) {
      if (module->kernel() == name) return module->function();
    }
    fail(ErrorKind::kInternal, "the artifact has no kernel '{}'", name);
  }

  std::shared_ptr<const CudaState> state_;  // outlives the modules
  std::vector<std::unique_ptr<CudaModule>> modules_;
};

class EventTimer final : public Timer {
 public:
  explicit EventTimer(std::shared_ptr<const CudaState> state) : state_(std::move(state)) {
    const CurrentContext current(*state_);
    for (cuda::Event& event : events_) {
      state_->check(state_->driver.event_create(&event, 0), "creating an event");
    }
  }
  ~EventTimer() override {
    for (cuda::Event event : events_) {
      if (event) state_->driver.event_destroy(event);
    }
  }
  void start(Stream stream) override { record(0, stream); }
  void stop(Stream stream) override { record(1, stream); }
  double elapsed_ms() override {
    const CurrentContext current(*state_);
    float ms = 0;
    state_->check(state_->driver.event_synchronize(events_[1]), "waiting for an event");
    state_->check(state_->driver.event_elapsed(&ms, events_[0], events_[1]), "reading a timer");
    return ms;
  }

 private:
  void record(int index, Stream stream) {
    const CurrentContext current(*state_);
    state_->check(state_->driver.event_record(events_[index], stream), "recording an event");
  }

  std::shared_ptr<const CudaState> state_;
  std::array<cuda::Event, 2> events_ = {};
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(std::shared_ptr<const CudaState> state)
      : state_(std::move(state)), driver_(state_->driver) {}

  const DeviceInfo& info() const override { return state_->info; }

  std::unique_ptr<LoadedArtifact> load(const Artifact& artifact) override {
    return std::make_unique<CudaArtifact>(state_, artifact);
  }

  void submit(const Submission& submission) override {
    const CurrentContext current(*state_);
    for (const MemoryRange& range : submission.arguments) check_reachable(range);
    for (const ClearCommand& clear : submission.clears) {
      state_->check(driver_.memset_async(clear.address, 0, clear.bytes, submission.stream),
                    "clearing memory");
    }
    for (const LaunchCommand& command : submission.launches) launch(command, submission.stream);
  }

  uint64_t allocate(uint64_t bytes) override {
    const CurrentContext current(*state_);
    uint64_t address = 0;
    const int result = driver_.allocate(&address, std::max<uint64_t>(bytes, 1));
    if (result != cuda::kSuccess) state_->check(result, fmt::format("allocating {} bytes", bytes));
    return address;
  }

  void free(uint64_t address) override {
    if (!address) return;
    const CurrentContext current(*state_);
    state_->check(driver_.free(address), "freeing memory");
  }

  void copy_in(uint64_t to, const void* from, uint64_t bytes, Stream stream) override {
    if (!bytes) return;
    const CurrentContext current(*state_);
    state_->check(driver_.copy_in_async(to, from, bytes, stream), "copying to the device");
    state_->check(driver_.stream_synchronize(stream), "copying to the device");
  }

  void copy_out(void* to, uint64_t from, uint64_t bytes, Stream stream) override {
    if (!bytes) return;
    const CurrentContext current(*state_);
    state_->check(driver_.copy_out_async(to, from, bytes, stream), "copying from the device");
    state_->check(driver_.stream_synchronize(stream), "copying from the device");
  }

  void synchronize(Stream stream) override {
    const CurrentContext current(*state_);
    state_->check(driver_.stream_synchronize(stream), "waiting for the stream");
  }

  std::unique_ptr<Timer> make_timer() override { return std::make_unique<EventTimer>(state_); }

  // Loads NVML when first asked: those who only launch kernels do not pay for it.
  std::optional<int> sm_clock_mhz() const override {
    const cuda::Nvml* nvml = cuda::Nvml::find();
    if (!nvml) return std::nullopt;
    std::array<char, 32> place{};
    state_->check(driver_.device_pci_bus_id(place.data(), place.size(), state_->device),
                  "its place on the bus");
    const cuda::Nvml::Handle handle = nvml->device_at(place.data());
    return handle ? nvml->sm_clock_mhz(handle) : std::nullopt;
  }

 private:
  void launch(const LaunchCommand& command, Stream stream) const {
    size_t param_bytes = command.params.size();
    void* extra[] = {cuda::kParamBuffer, const_cast<std::byte*>(command.params.data()),
                     cuda::kParamBufferBytes, &param_bytes, cuda::kParamEnd};
    cuda::LaunchAttribute overlap = {.id = cuda::kProgrammaticStreamSerialization, .value = 1};
    const cuda::LaunchConfig config = {.grid = {command.grid[0], command.grid[1], command.grid[2]},
                                       .block = {command.block_threads, 1, 1},
                                       .dynamic_smem_bytes = command.dynamic_smem_bytes,
                                       .stream = stream,
                                       .attributes = &overlap,
                                       .num_attributes = command.waits_for_previous ? 1u : 0u};
    state_->check(
        driver_.launch(&config, static_cast<cuda::Function>(command.kernel.native), nullptr, extra),
        "launching a kernel");
  }

  void check_reachable(const MemoryRange& range) const {
    int owner = -1;
    const int result =
        driver_.pointer_attribute(&owner, cuda::kPointerDeviceOrdinal, range.address);
    if (result == cuda::kSuccess && owner != state_->ordinal) {
      fail(ErrorKind::kArgument, "{} lies in memory of cuda:{}, but the kernel was loaded for {}",
           range.name, owner, state_->info.name);
    }
    // Pageable host memory is unknown to the driver, yet reachable on some systems.
    if (result == cuda::kErrorInvalidValue && !state_->reaches_pageable_memory) {
      fail(ErrorKind::kArgument,
           "{} ({:#x}) is not memory that {} can reach: pass a device address", range.name,
           range.address, state_->info.name);
    }
    if (result != cuda::kSuccess && result != cuda::kErrorInvalidValue) {
      state_->check(result, fmt::format("looking up {}", range.name));
    }
  }

  std::shared_ptr<const CudaState> state_;
  const Driver& driver_;
};

int attribute(const CudaState& state, int which) {
  int value = 0;
  state.check(state.driver.device_attribute(&value, which, state.device), "reading an attribute");
  return value;
}

void choose_context(CudaState& state) {
  cuda::Context current = nullptr;
  int owner = -1;
  if (state.driver.context_current(&current) == cuda::kSuccess && current &&
      state.driver.context_device(&owner) == cuda::kSuccess && owner == state.device) {
    state.context = current;
    return;
  }
  state.check(state.driver.primary_retain(&state.context, state.device),
              "retaining the primary context");
  state.retained = true;
}

std::shared_ptr<Device> open_with(const Driver& driver, int ordinal) {
  auto state = std::make_shared<CudaState>(driver);
  state->ordinal = ordinal;
  state->info.name = fmt::format("cuda:{}", ordinal);
  int count = 0;
  state->check(driver.device_count(&count), "counting devices");
  if (ordinal >= count) {
    fail(ErrorKind::kDevice, "there is no {}: the driver shows {} GPU{}", state->info.name, count,
         count == 1 ? "" : "s");
  }
  state->check(driver.device_get(&state->device, ordinal), "opening the device");
  const int major = attribute(*state, cuda::kAttributeComputeMajor);
  const int minor = attribute(*state, cuda::kAttributeComputeMinor);
  state->info.target = &target_for_device(major, minor);
  std::array<char, 256> product{};
  state->check(driver.device_name(product.data(), product.size(), state->device), "its name");
  state->info.product = product.data();
  state->info.num_sms = attribute(*state, cuda::kAttributeNumSms);
  state->info.l2_bytes = static_cast<uint64_t>(attribute(*state, cuda::kAttributeL2Bytes));
  state->check(driver.driver_version(&state->info.driver_version), "the driver's version");
  state->info.runs_machine_code = true;
  state->reaches_pageable_memory = attribute(*state, cuda::kAttributePageableMemoryAccess) != 0;
  choose_context(*state);
  return std::make_shared<CudaDevice>(state);
}

// A compute capability that kernels exist for; target_for_device() throws below it.
bool supported(const Driver& driver, int ordinal) {
  int device = 0, major = 0;
  return driver.device_get(&device, ordinal) == cuda::kSuccess &&
         driver.device_attribute(&major, cuda::kAttributeComputeMajor, device) == cuda::kSuccess &&
         std::any_of(all_targets().begin(), all_targets().end(),
                     [&](const Target& target) { return target.sm / 10 == major; });
}

}  // namespace

std::shared_ptr<Device> open_cuda_device(int ordinal) {
  std::string why_not;
  const Driver* driver = cuda::find_driver(why_not);
  if (!driver) fail(ErrorKind::kDevice, "cuda:{} cannot be opened: {}", ordinal, why_not);
  return open_with(*driver, ordinal);
}

std::shared_ptr<Device> open_first_cuda_device(std::string& why_not) {
  const Driver* driver = cuda::find_driver(why_not);
  if (!driver) return nullptr;
  int count = 0;
  if (driver->device_count(&count) != cuda::kSuccess || count == 0) {
    why_not = "the CUDA driver shows no GPU";
    return nullptr;
  }
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    if (supported(*driver, ordinal)) return open_with(*driver, ordinal);
  }
  why_not =
      fmt::format("none of the {} GPUs has a compute capability that kernels exist for", count);
  return nullptr;
}

}  // namespace sagejit
