#include "runtime/toolchain/private_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

namespace fs = std::filesystem;

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

}  // namespace

PrivateFolder::PrivateFolder(const std::string& parent)
    : path_(fmt::format("{}/{}", parent, kFolderName)) {
  if (mkdtemp(path_.data())) return;
  fail(ErrorKind::kIo, "no temporary folder can be made in {}: {}; set TMPDIR to another", parent,
       std::strerror(errno));
}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string PrivateFolder::write(const char* name, std::span<const char> bytes) const {
  std::string path = file(name);
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) fail(ErrorKind::kIo, "cannot write {}: {}", path, std::strerror(errno));
  return path;
}

std::vector<uint8_t> PrivateFolder::read(const char* name) const {
  std::ifstream in(file(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void remove_stale_folders(const std::string& parent) {
  std::vector<fs::path> stale;
  std::error_code ignored;
  for (fs::directory_iterator it(parent, ignored), end; it != end; it.increment(ignored)) {
    if (is_stale_folder(it->path())) stale.push_back(it->path());
  }
  for (const fs::path& folder : stale) fs::remove_all(folder, ignored);
}

}  // namespace sagejit
