#include "runtime/device/cuda/driver_assembler.h"

#include <array>
#include <atomic>
#include <chrono>
#include <vector>

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/common/ptx_version.h"
#include "compiler/support/error.h"
#include "runtime/device/cuda/driver.h"
#include "runtime/device/cuda/nvml.h"

namespace sagejit {
namespace {

using cuda::Driver;

constexpr size_t kLogBytes = size_t{1} << 16;

// The name of the module's entry, as PTX has it behind ".entry".
std::string entry_of(std::string_view ptx) {
  constexpr std::string_view kEntry = ".entry ";
  const size_t at = ptx.find(kEntry);
  if (at == std::string_view::npos) fail(ErrorKind::kInternal, "PTX without an entry");
  const std::string_view rest = ptx.substr(at + kEntry.size());
  return std::string(rest.substr(0, rest.find_first_of("( \t\n")));
}

int compute_capability(const Driver& driver, int device) {
  int major = 0, minor = 0;
  driver.check(driver.device_attribute(&major, cuda::kAttributeComputeMajor, device), "the driver",
               "reading an attribute");
  driver.check(driver.device_attribute(&minor, cuda::kAttributeComputeMinor, device), "the driver",
               "reading an attribute");
  return 10 * major + minor;
}

// A GPU's primary context, current for a scope.
class PrimaryContext {
 public:
  PrimaryContext(const Driver& driver, int device) : driver_(driver), device_(device) {
    cuda::Context context = nullptr;
    driver_.check(driver_.primary_retain(&context, device_), "the driver",
                  "retaining the primary context");
    if (const int result = driver_.context_push(context); result != cuda::kSuccess) {
      driver_.primary_release(device_);
      driver_.check(result, "the driver", "entering the context");
    }
  }
  ~PrimaryContext() {
    cuda::Context popped = nullptr;
    driver_.context_pop(&popped);
    driver_.primary_release(device_);
  }
  PrimaryContext(const PrimaryContext&) = delete;
  PrimaryContext& operator=(const PrimaryContext&) = delete;

 private:
  const Driver& driver_;
  const int device_;
};

// A module made from PTX, and what the driver said while it made it.
class JitModule {
 public:
  JitModule(const Driver& driver, const std::string& ptx) : driver_(driver) {
    std::vector<char> info(kLogBytes), errors(kLogBytes);
    std::array<int, 5> options = {cuda::kJitInfoLogBuffer, cuda::kJitInfoLogBytes,
                                  cuda::kJitErrorLogBuffer, cuda::kJitErrorLogBytes,
                                  cuda::kJitLogVerbose};
    const auto as_value = [](size_t number) { return reinterpret_cast<void*>(number); };
    std::array<void*, 5> values = {info.data(), as_value(kLogBytes), errors.data(),
                                   as_value(kLogBytes), as_value(1)};
    result_ =
        driver_.module_load(&module_, ptx.c_str(), options.size(), options.data(), values.data());
    // A log that is too long is cut off; the last byte stays zero.
    info.back() = errors.back() = '\0';
    log_ = std::string(info.data()) + errors.data();
  }
  ~JitModule() {
    if (module_) driver_.module_unload(module_);
  }
  JitModule(const JitModule&) = delete;
  JitModule& operator=(const JitModule&) = delete;

  int result() const { return result_; }
  const std::string& log() const { return log_; }

  // All local memory counts as spilled: kernels declare none.
  KernelResources resources(const std::string& kernel) const {
    cuda::Function function = nullptr;
    driver_.check(driver_.module_function(&function, module_, kernel.c_str()), "the driver",
                  "finding the kernel");
    const auto attribute = [&](int which) {
      int value = 0;
      driver_.check(driver_.function_attribute(&value, which, function), "the driver",
                    "reading an attribute of the kernel");
      return value;
    };
    const int local_bytes = attribute(cuda::kFunctionLocalBytes);
    return {.kernel = kernel,
            .registers = attribute(cuda::kFunctionNumRegisters),
            .spill_store_bytes = local_bytes,
            .spill_load_bytes = local_bytes,
            .stack_bytes = local_bytes,
            .static_smem_bytes = attribute(cuda::kFunctionSharedBytes)};
  }

 private:
  const Driver& driver_;
  cuda::Module module_ = nullptr;
  int result_ = cuda::kSuccess;
  std::string log_;
};

class DriverAssembler final : public Assembler {
 public:
  explicit DriverAssembler(const Driver& driver) : driver_(driver), name_(name_of(driver)) {}

  std::string name() const override { return name_; }
  std::vector<std::string> flags(const Target&) const override { return {}; }

  int ptx_version() const override {
    const int version = cuda_version(driver_);
    return ptx_version_of_cuda(version / 1000, version % 1000 / 10);
  }

  MachineCode assemble(std::string_view ptx, const Target& target) const override {
    const PrimaryContext current(driver_, device_for(target));
    const std::string text(ptx);
    MachineCode code = assemble_once(text, target);
    if (!parse_ptxas_report(code.log).empty() || !reports_) return code;
    // The driver's cache knew this text, and keeps no warnings: a kernel that is slow for a reason
    // would pass for a good one. A comment makes the text another.
    const auto now = std::chrono::system_clock::now().time_since_epoch().count();
    code = assemble_once(fmt::format("{}// {}\n", text, now), target);
    if (parse_ptxas_report(code.log).empty()) reports_ = false;
    return code;
  }

 private:
  static std::string name_of(const Driver& driver) {
    const cuda::Nvml* nvml = cuda::Nvml::find();
    if (const std::string release = nvml ? nvml->driver_release() : ""; !release.empty()) {
      return "driver " + release;
    }
    const int version = cuda_version(driver);
    return fmt::format("driver of CUDA {}.{}", version / 1000, version % 1000 / 10);
  }

  static int cuda_version(const Driver& driver) {
    int version = 0;  // 13000: 13.0
    driver.check(driver.driver_version(&version), "the driver", "asking its version");
    return version;
  }

  MachineCode assemble_once(const std::string& ptx, const Target& target) const {
    const JitModule module(driver_, ptx);
    if (module.result() != cuda::kSuccess) {
      throw Error(ErrorKind::kToolchain,
                  fmt::format("{} refuses the generated kernel for {}: {}", name_, target.name,
                              driver_.describe(module.result())),
                  module.log());
    }
    std::vector<KernelResources> resources = parse_ptxas_report(module.log());
    if (resources.empty()) resources = {module.resources(entry_of(ptx))};
    return {{}, std::move(resources), module.log()};
  }

  // The first GPU whose own target that is: another's registers and spills, though it may run the
  // code, would pass for the target's.
  int device_for(const Target& target) const {
    int count = 0;
    driver_.check(driver_.device_count(&count), "the driver", "counting GPUs");
    std::vector<std::string> here;
    for (int ordinal = 0; ordinal < count; ++ordinal) {
      int device = 0;
      driver_.check(driver_.device_get(&device, ordinal), "the driver", "opening a GPU");
      const int capability = compute_capability(driver_, device);
      if (is_target_of(target, capability)) return device;
      here.push_back(fmt::format("{}.{}", capability / 10, capability % 10));
    }
    fail(
        ErrorKind::kToolchain,
        "the driver assembles for the GPUs that are here alone, of compute capability {}; {} takes "
        "one of {}.{}, or another assembler: --assembler ptxas or nvrtc",
        fmt::join(here, ", "), target.name, target.sm / 10, target.sm % 10);
  }

  static bool is_target_of(const Target& target, int capability) {
    constexpr int kOldest = 80;  // target_for_device() throws below
    return capability >= kOldest &&
           target_for_device(capability / 10, capability % 10).sm == target.sm;
  }

  const Driver& driver_;
  const std::string name_;
  mutable std::atomic<bool> reports_ = true;  // writes reports into the log when it assembles
};

}  // namespace

std::shared_ptr<const Assembler> make_driver_assembler() {
  std::string why_not;
  const Driver* driver = cuda::find_driver(why_not);
  int count = 0;
  if (driver && (driver->device_count(&count) != cuda::kSuccess || count == 0)) {
    why_not = "the CUDA driver shows no GPU";
  }
  if (count == 0) {
    fail(ErrorKind::kToolchain, "The driver's assembler is not there: {}", why_not);
  }
  return std::make_shared<DriverAssembler>(*driver);
}

}  // namespace sagejit
