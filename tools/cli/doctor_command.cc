// sagejit doctor: what was found on this machine, and what to do about what was not.
#include <fmt/format.h>

#include <memory>

#include "runtime/context/context.h"
#include "runtime/toolchain/search.h"
#include "tools/cli/build_options.h"
#include "tools/cli/commands.h"
#include "tools/cli/table.h"

namespace sagejit::cli {
namespace {

constexpr int kMaxGpus = 64;
constexpr const char* kProbeKernel = "extern \"C\" __global__ void probe(int* out) { *out = 1; }\n";

void print_gpus() {
  std::string why_no_gpu;
  try {
    open_device("auto", &why_no_gpu);
  } catch (const Error& error) {
    why_no_gpu = error.message();
  }
  Table table({"device", "product", "target", ">SMs", ">driver's CUDA"});
  std::string last_error;
  for (int ordinal = 0; ordinal < kMaxGpus; ++ordinal) {
    try {
      const DeviceInfo info = open_device(fmt::format("cuda:{}", ordinal))->info();
      table.add(
          {info.name, info.product, std::string(info.target->name), fmt::format("{}", info.num_sms),
           fmt::format("{}.{}", info.driver_version / 1000, info.driver_version % 1000 / 10)});
    } catch (const Error& error) {
      last_error = error.message();
      // An unsupported GPU does not hide the ones after it.
      if (error.kind() != ErrorKind::kUnsupported) break;
      fmt::print("  cuda:{}: {}\n", ordinal, last_error);
    }
  }
  if (!table.empty()) {
    fmt::print("GPUs: found\n{}", table.text("  "));
    return;
  }
  fmt::print(
      "GPUs: none\n  {}\n  what to do: install NVIDIA's driver, or run on the emulator: "
      "--device emulator\n",
      why_no_gpu.empty() ? last_error : why_no_gpu);
}

// Compiles and assembles a kernel of one line: finding a library is not yet proof that it works.
bool probe_toolchain(const std::string& library) {
  try {
    const std::unique_ptr<Toolchain> toolchain = Toolchain::load(library);
    const ToolchainOutput output = toolchain->compile(kProbeKernel, find_target("sm_80"), true);
    fmt::print("  {}; compiles ({} bytes of PTX) and assembles ({} bytes of machine code)\n",
               toolchain->version(), output.ptx.size(), output.cubin.size());
    return true;
  } catch (const Error& error) {
    fmt::print("  it does not work: {}\n{}", error.message(),
               error.log().empty() ? "" : error.log() + "\n");
    return false;
  }
}

bool print_toolchain(const std::string& nvrtc) {
  const ToolchainSearch search =
      search_toolchain(ToolchainOptions::from(Environment::read(), nvrtc));
  if (search.library.empty()) {
    fmt::print("NVRTC (compiler and assembler): not found\n{}\n", search.failure_message());
    return false;
  }
  fmt::print("NVRTC (compiler and assembler): found, {} ({})\n", search.library,
             search.places.back().origin);
  return probe_toolchain(search.library);
}

void print_cache(const BuildOptions& options) {
  BuildTimes times;
  const std::unique_ptr<Context> context = make_context(options, times);
  const DiskCache& cache = context->disk_cache();
  if (!cache.enabled()) {
    fmt::print(
        "kernel cache: off\n  {}\n  what to do: set SAGEJIT_CACHE_DIR to a folder of your own\n",
        cache.why_disabled());
    return;
  }
  uint64_t bytes = 0;
  size_t damaged = 0;
  std::string first_damage;
  const std::vector<DiskCache::Entry> entries = cache.list();
  for (const DiskCache::Entry& entry : entries) {
    bytes += entry.bytes;
    damaged += !entry.damage.empty();
    if (first_damage.empty()) first_damage = entry.damage;
  }
  fmt::print("kernel cache: {}\n  {} entries, {:.1f} MB\n", cache.path(), entries.size(),
             static_cast<double>(bytes) / 1e6);
  if (damaged) {
    fmt::print("  {} cannot be read and count as misses; the first: {}\n", damaged, first_damage);
    fmt::print("  what to do: nothing, or free the space: rm -r '{}'\n", cache.path());
  }
}

ExitCode run_doctor(const BuildOptions& options) {
  fmt::print("sagejit " SAGEJIT_RELEASE "\n");
  print_gpus();
  const bool compiles = print_toolchain(options.nvrtc);
  print_cache(options);
  fmt::print("PTX emulator: built in\n\n");
  fmt::print("{}\n", compiles ? "Kernels can be compiled and run."
                              : "Kernels cannot be compiled; cached ones can be run.");
  return compiles ? kSuccess : kEnvironment;
}

}  // namespace

void add_doctor(CLI::App& app, ExitCode& result) {
  auto options = std::make_shared<BuildOptions>();
  CLI::App* command =
      app.add_subcommand("doctor", "Say what was found here, and what to do about the rest");
  command->add_option("--cache-dir", options->cache_dir, "Kernel cache to use")->type_name("DIR");
  command->add_option("--nvrtc", options->nvrtc, "NVRTC library to use")->type_name("PATH");
  command->footer("Exit code 3 if kernels cannot be compiled.");
  command->callback([options, &result] { result = run_doctor(*options); });
}

}  // namespace sagejit::cli
