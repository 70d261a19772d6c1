// sagejit doctor: what was found on this machine, and what to do about what was not.
#include <fmt/format.h>

#include <memory>
#include <regex>

#include "compiler/backend/assemble/nvrtc_assembler.h"
#include "compiler/backend/assemble/report.h"
#include "compiler/backend/common/ptx_version.h"
#include "compiler/backend/llvm/llvm_backend.h"
#include "runtime/context/context.h"
#include "runtime/device/cuda/driver_assembler.h"
#include "runtime/toolchain/lazy_toolchain.h"
#include "runtime/toolchain/ptxas.h"
#include "tools/cli/build_options.h"
#include "tools/cli/commands.h"
#include "tools/cli/table.h"

namespace sagejit::cli {
namespace {

constexpr int kMaxGpus = 64;
constexpr std::string_view kProbeKernel =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry probe(.param .b64 out)\n.maxntid 32\n{\n  ret;\n}\n";

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

// Uses the tool on a kernel of one line: finding it is not yet proof that it works.
template <typename Use>
bool probe(const std::string& title, Use use) {
  try {
    fmt::print("  {}: {}\n", title, use());
    return true;
  } catch (const Error& error) {
    std::string text = error.message() + (error.log().empty() ? "" : "\n" + error.log());
    fmt::print("  {}: {}\n", title, std::regex_replace(text, std::regex("\n"), "\n    "));
    return false;
  }
}

std::string where_found(const SearchResult& search) {
  return fmt::format("{} ({})", search.file, search.places.back().origin);
}

std::string assembled(const Assembler& assembler, const Target& target = find_target("sm_80")) {
  const MachineCode code = assembler.assemble(kProbeKernel, target);
  check_machine_code(code, assembler.name());
  return assembler.name() + (code.cubin.empty() ? ", works; code stays PTX" : ", works");
}

// A line of its own; "" for an assembler that is new enough for all targets.
std::string too_old_for(const Assembler& assembler) {
  const std::string beyond = kernels_beyond(assembler.ptx_version());
  return beyond.empty() ? "" : fmt::format("\n    too old for some targets: {}", beyond);
}

void print_back_ends(const ToolchainOptions& options, const SearchResult& nvrtc) {
  fmt::print("back ends\n  ptx: built in\n");
  probe("llvm", [&] {
    const SearchResult llvm = search_llvm(options.search);
    if (llvm.file.empty()) throw Error(ErrorKind::kToolchain, llvm_failure(llvm));
    ir::Function kernel;
    kernel.name = "probe";
    kernel.block_threads = 32;
    LlvmPlugin::load(llvm.file)->to_ptx(kernel, find_target("sm_80"));
    return fmt::format("{}, works: {}", llvm.version, where_found(llvm));
  });
  probe("cuda", [&] {
    if (nvrtc.file.empty()) throw Error(ErrorKind::kToolchain, nvrtc_failure(nvrtc));
    const auto library = Nvrtc::load(nvrtc.file);
    library->compile("extern \"C\" __global__ void probe() {}", find_target("sm_80"), false);
    return fmt::format("{}, works: {}", library->version(), where_found(nvrtc));
  });
}

// True if any of them works.
bool print_assemblers(const ToolchainOptions& options, const SearchResult& nvrtc) {
  fmt::print("assemblers, the fastest first\n");
  const bool has_ptxas = probe("ptxas", [&] {
    SearchResult ptxas = search_ptxas(options.search);
    if (ptxas.file.empty()) throw Error(ErrorKind::kToolchain, ptxas_failure(ptxas));
    const auto assembler = make_ptxas_assembler(
        {.program = ptxas.file, .version = ptxas.version, .temporary_dir = options.temporary_dir});
    return fmt::format("{}: {}{}", assembled(*assembler), where_found(ptxas),
                       too_old_for(*assembler));
  });
  const bool has_nvrtc = probe("nvrtc", [&]() -> std::string {
    if (nvrtc.file.empty()) fail(ErrorKind::kToolchain, "not found, see above");
    const auto assembler = make_nvrtc_assembler(Nvrtc::load(nvrtc.file));
    return assembled(*assembler) + too_old_for(*assembler);
  });
  const bool has_driver = probe("driver", [] {
    const auto assembler = make_driver_assembler();
    return assembled(*assembler, *open_device("cuda:0")->info().target) + too_old_for(*assembler);
  });
  return has_ptxas || has_nvrtc || has_driver;
}

bool print_toolchain(const ToolchainOptions& options) {
  const SearchResult nvrtc = search_nvrtc(options.search);
  print_back_ends(options, nvrtc);
  return print_assemblers(options, nvrtc);
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
  const bool compiles =
      print_toolchain(ToolchainOptions::from(Environment::read(), options.toolchain));
  print_cache(options);
  fmt::print("PTX emulator: built in\n\n");
  fmt::print("{}\n", compiles ? "Kernels can be compiled and run."
                              : "Kernels can be compiled and run for the emulator. For a GPU an "
                                "assembler is missing; cached ones can be run.");
  return compiles ? kSuccess : kEnvironment;
}

}  // namespace

void add_doctor(CLI::App& app, ExitCode& result) {
  auto options = std::make_shared<BuildOptions>();
  CLI::App* command =
      app.add_subcommand("doctor", "Say what was found here, and what to do about the rest");
  command->add_option("--cache-dir", options->cache_dir, "Kernel cache to use")->type_name("DIR");
  command->add_option("--nvrtc", options->toolchain.nvrtc, "NVRTC library to use")
      ->type_name("PATH");
  command->add_option("--ptxas", options->toolchain.ptxas, "ptxas to use")->type_name("PATH");
  command->footer("Exit code 3 if kernels cannot be compiled for a GPU.");
  command->callback([options, &result] { result = run_doctor(*options); });
}

}  // namespace sagejit::cli
