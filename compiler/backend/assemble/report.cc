#include "compiler/backend/assemble/report.h"

#include <algorithm>
#include <charconv>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

// The number that stands before `unit` in `line`, e.g. (" bytes stack frame"); 0 if it does not
// occur.
int number_before(std::string_view line, std::string_view unit) {
  const size_t at = line.find(unit);
  if (at == std::string_view::npos) return 0;
  size_t begin = at;
  while (begin > 0 && line[begin - 1] >= '0' && line[begin - 1] <= '9') --begin;
  int value = 0;
  std::from_chars(line.data() + begin, line.data() + at, value);
  return value;
}

// Messages that mean the assembler serialized wgmma or ignored setmaxnreg: correct code, wrong
// speed.
constexpr std::string_view kFatalWarnings[] = {"C7504", "C7508", "C7511",
                                               "C7512", "C7514", "C7520"};
constexpr std::string_view kElfMagic = "\177ELF";

}  // namespace

std::vector<KernelResources> parse_ptxas_report(std::string_view log) {
  std::vector<KernelResources> result;
  while (!log.empty()) {
    const size_t end = std::min(log.find('\n'), log.size());
    const std::string_view line = log.substr(0, end);
    log.remove_prefix(std::min(end + 1, log.size()));
    constexpr std::string_view kEntry = "Compiling entry function '";
    if (const size_t at = line.find(kEntry); at != std::string_view::npos) {
      const std::string_view rest = line.substr(at + kEntry.size());
      result.push_back({.kernel = std::string(rest.substr(0, rest.find('\'')))});
    } else if (!result.empty() && line.find("spill stores") != std::string_view::npos) {
      result.back().stack_bytes = number_before(line, " bytes stack frame");
      result.back().spill_store_bytes = number_before(line, " bytes spill stores");
      result.back().spill_load_bytes = number_before(line, " bytes spill loads");
    } else if (!result.empty() && line.find("Used ") != std::string_view::npos) {
      result.back().registers = number_before(line, " registers");
      result.back().static_smem_bytes = number_before(line, " bytes smem");
    }
  }
  return result;
}

std::string find_assembly_fault(const MachineCode& code) {
  for (const KernelResources& kernel : code.resources) {
    const int bytes = std::max(kernel.spill_store_bytes, kernel.spill_load_bytes);
    if (bytes) {
      return fmt::format("the assembler spills {} bytes of registers in kernel '{}'", bytes,
                         kernel.kernel);
    }
  }
  for (const std::string_view warning : kFatalWarnings) {
    if (code.log.find(warning) != std::string::npos) {
      return fmt::format("the assembler reports {}: the kernel runs serialized", warning);
    }
  }
  return "";
}

void check_machine_code(const MachineCode& code, std::string_view assembler) {
  const auto complain = [&](std::string_view what) {
    throw Error(ErrorKind::kToolchain,
                fmt::format("{} returned {}; use another release of it, or another --assembler",
                            assembler, what),
                code.log);
  };
  const std::string_view elf(reinterpret_cast<const char*>(code.cubin.data()), code.cubin.size());
  if (!elf.empty() && !elf.starts_with(kElfMagic)) complain("what is no machine code");
  const auto& kernels = code.resources;
  if (kernels.empty() || std::any_of(kernels.begin(), kernels.end(),
                                     [](const auto& kernel) { return kernel.registers == 0; })) {
    complain("no report of the kernel's registers");
  }
}

}  // namespace sagejit
