#include "runtime/toolchain/ptxas.h"

#include <charconv>
#include <mutex>

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/common/ptx_version.h"
#include "compiler/support/error.h"
#include "runtime/toolchain/private_folder.h"
#include "runtime/toolchain/process.h"
#include "runtime/toolchain/version.h"

namespace sagejit {
namespace {

class PtxasAssembler final : public Assembler {
 public:
  explicit PtxasAssembler(Ptxas ptxas) : ptxas_(std::move(ptxas)) {}

  std::string name() const override { return "ptxas " + ptxas_.version; }
  std::vector<std::string> flags(const Target& target) const override {
    return {"--verbose", fmt::format("--gpu-name={}", target.name)};
  }

  int ptx_version() const override {
    // "13.0.88"
    const char* const end = ptxas_.version.data() + ptxas_.version.size();
    int major = 0, minor = 0;
    const char* const point = std::from_chars(ptxas_.version.data(), end, major).ptr;
    if (point != end) std::from_chars(point + 1, end, minor);
    return ptx_version_of_cuda(major, minor);
  }

  MachineCode assemble(std::string_view ptx, const Target& target) const override {
    std::call_once(swept_, [&] { remove_stale_folders(ptxas_.temporary_dir); });
    const PrivateFolder folder(ptxas_.temporary_dir);
    const std::string source = folder.write("kernel.ptx", ptx);
    std::vector<std::string> arguments = flags(target);
    arguments.insert(arguments.end(), {source, "--output-file", folder.file("kernel.cubin")});
    ProcessResult result = run_process(ptxas_.program, arguments, ptxas_.timeout);
    if (!result.succeeded()) refuse(result, target);
    MachineCode code{folder.read("kernel.cubin"), parse_ptxas_report(result.output), result.output};
    if (code.cubin.empty()) {
      throw Error(ErrorKind::kToolchain, fmt::format("{} left no machine code", ptxas_.program),
                  std::move(result.output));
    }
    return code;
  }

 private:
  [[noreturn]] void refuse(const ProcessResult& result, const Target& target) const {
    const bool refused = result.signal == 0 && !result.killed();
    throw Error(ErrorKind::kToolchain,
                fmt::format("{} {} the generated kernel for {}: {}", ptxas_.program,
                            refused ? "refuses" : "fails on", target.name, result.failure()),
                result.output);
  }

  const Ptxas ptxas_;
  mutable std::once_flag swept_;
};

}  // namespace

std::string ptxas_version(const std::string& program, std::string& why_not) {
  return cuda_tool_version(program, "ptxas", why_not);
}

std::shared_ptr<const Assembler> make_ptxas_assembler(Ptxas ptxas) {
  return std::make_shared<PtxasAssembler>(std::move(ptxas));
}

}  // namespace sagejit
