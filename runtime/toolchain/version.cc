#include "runtime/toolchain/version.h"

#include <charconv>

#include "compiler/support/error.h"
#include "runtime/toolchain/process.h"

namespace sagejit {
namespace {

constexpr int kOldestMajor = 12;
constexpr std::chrono::seconds kTimeout{10};

}  // namespace

std::string cuda_tool_version(const std::string& program, std::string_view tool,
                              std::string& why_not) {
  ProcessResult result;
  try {
    result = run_process(program, {"--version"}, kTimeout);
  } catch (const Error& error) {
    why_not = error.message();
    return "";
  }
  // "Cuda compilation tools, release 13.0, V13.0.88"
  const std::string_view text = result.output;
  constexpr std::string_view kBefore = ", V";
  const size_t at = text.find(kBefore);
  if (!result.succeeded() || text.find(tool) == text.npos || at == text.npos) {
    why_not = fmt::format("it is not {}", tool);
    return "";
  }
  const size_t begin = at + kBefore.size();
  std::string version(text.substr(begin, text.find('\n', begin) - begin));
  int major = 0;
  std::from_chars(version.data(), version.data() + version.size(), major);
  if (major >= kOldestMajor) return version;
  why_not = fmt::format("it is {} {}; {}.0 or newer is needed", tool, version, kOldestMajor);
  return "";
}

}  // namespace sagejit
