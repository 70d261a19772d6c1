#include "runtime/toolchain/ptxas.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/common/ptx_version.h"
#include "compiler/support/error.h"
#include "runtime/toolchain/process.h"

namespace sagejit {
namespace {

namespace fs = std::filesystem;

constexpr int kOldestMajor = 12;
constexpr std::chrono::seconds kVersionTimeout{10};

constexpr std::string_view kFolderName = "sagejit-assemble-XXXXXX";  // as mkdtemp takes it
constexpr std::chrono::hours kStaleFolder{1};

bool is_stale_folder(const fs::path& path) {
  constexpr std::string_view kPrefix = kFolderName.substr(0, kFolderName.find('X'));
  const std::string name = path.filename();
  struct stat status;
  return name.size() == kFolderName.size() && name.starts_with(kPrefix) &&
         lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
         status.st_uid == geteuid() &&
         std::chrono::seconds(std::time(nullptr) - status.st_mtime) > kStaleFolder;
}

// What processes left behind that were interrupted while they assembled.
void remove_stale_folders(const std::string& parent) {
  std::vector<fs::path> stale;
  std::error_code ignored;
  for (fs::directory_iterator it(parent, ignored), end; it != end; it.increment(ignored)) {
    if (is_stale_folder(it->path())) stale.push_back(it->path());
  }
  for (const fs::path& folder : stale) fs::remove_all(folder, ignored);
}

// A folder that only this user can enter, removed with all that is in it.
class PrivateFolder {
 public:
  explicit PrivateFolder(const std::string& parent)
      : path_(fmt::format("{}/{}", parent, kFolderName)) {
    if (mkdtemp(path_.data())) return;
    fail(ErrorKind::kIo, "no temporary folder can be made in {}: {}; set TMPDIR to another", parent,
         std::strerror(errno));
  }
  ~PrivateFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;

  std::string file(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

void write_text(const std::string& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (!file) fail(ErrorKind::kIo, "cannot write {}: {}", path, std::strerror(errno));
}

// Empty if there is no such file.
std::vector<uint8_t> read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

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
    const std::string source = folder.file("kernel.ptx"), output = folder.file("kernel.cubin");
    write_text(source, ptx);
    std::vector<std::string> arguments = flags(target);
    arguments.insert(arguments.end(), {source, "--output-file", output});
    ProcessResult result = run_process(ptxas_.program, arguments, ptxas_.timeout);
    if (!result.succeeded()) refuse(result, target);
    MachineCode code{read_bytes(output), parse_ptxas_report(result.output), result.output};
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
  ProcessResult result;
  try {
    result = run_process(program, {"--version"}, kVersionTimeout);
  } catch (const Error& error) {
    why_not = error.message();
    return "";
  }
  // "Cuda compilation tools, release 13.0, V13.0.88"
  const std::string_view text = result.output;
  constexpr std::string_view kBefore = ", V";
  const size_t at = text.find(kBefore);
  if (!result.succeeded() || text.find("ptxas") == text.npos || at == text.npos) {
    why_not = "it is not ptxas";
    return "";
  }
  const size_t begin = at + kBefore.size();
  std::string version(text.substr(begin, text.find('\n', begin) - begin));
  int major = 0;
  std::from_chars(version.data(), version.data() + version.size(), major);
  if (major >= kOldestMajor) return version;
  why_not = fmt::format("it is ptxas {}; {}.0 or newer is needed", version, kOldestMajor);
  return "";
}

std::shared_ptr<const Assembler> make_ptxas_assembler(Ptxas ptxas) {
  return std::make_shared<PtxasAssembler>(std::move(ptxas));
}

}  // namespace sagejit
