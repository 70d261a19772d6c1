#include "runtime/toolchain/nvdisasm.h"

#include "compiler/support/error.h"
#include "runtime/toolchain/private_folder.h"
#include "runtime/toolchain/process.h"
#include "runtime/toolchain/version.h"

namespace sagejit {
namespace {

constexpr std::chrono::minutes kTimeout{1};

}  // namespace

std::string nvdisasm_version(const std::string& program, std::string& why_not) {
  return cuda_tool_version(program, "nvdisasm", why_not);
}

std::string disassemble(const std::string& program, std::span<const uint8_t> cubin,
                        const std::string& temporary_dir) {
  const PrivateFolder folder(temporary_dir);
  const std::string file =
      folder.write("kernel.cubin", {reinterpret_cast<const char*>(cubin.data()), cubin.size()});
  ProcessResult result = run_process(program, {"--print-code", file}, kTimeout);
  if (result.succeeded()) return std::move(result.output);
  throw Error(ErrorKind::kToolchain,
              fmt::format("{} does not read the cubin: {}", program, result.failure()),
              std::move(result.output));
}

}  // namespace sagejit
