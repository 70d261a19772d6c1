#include "runtime/cache/private_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <memory>
#include <system_error>
#include <thread>

namespace sagejit {
namespace {

constexpr mode_t kWritableByOthers = S_IWGRP | S_IWOTH;
constexpr std::string_view kTemporaryPrefix = ".tmp-";

std::string reason(std::string_view what) {
  return fmt::format("{}: {}", what, std::system_category().message(errno));
}

// Creates every missing directory of the path. False with errno set on failure.
bool make_directories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string prefix = path.substr(0, end);
    if (mkdir(prefix.c_str(), 0700) != 0 && errno != EEXIST) {
      // Parents that exist may be unreadable or on a read-only file system; only the last must
      // work.
      if (end == std::string::npos) return false;
    }
    if (end == std::string::npos) return true;
  }
}

// Unlike a process id and a counter, this stays unique among containers that share a directory.
std::string random_suffix() {
  uint64_t bits[2] = {static_cast<uint64_t>(getpid()), static_cast<uint64_t>(std::clock())};
  // Short reads cannot happen below 256 bytes; without getrandom, O_EXCL still prevents sharing a
  // file.
  [[maybe_unused]] const ssize_t got = getrandom(bits, sizeof(bits), 0);
  return fmt::format("{:016x}{:016x}", bits[0], bits[1]);
}

bool write_all(int fd, std::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = write(fd, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    contents.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

std::optional<std::string> read_all(int fd, size_t bytes) {
  std::string contents(bytes, '\0');
  size_t done = 0;
  while (done < bytes) {
    const ssize_t got = ::read(fd, contents.data() + done, bytes - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    if (got == 0) break;  // shortened meanwhile; the caller's checks see it
    done += static_cast<size_t>(got);
  }
  contents.resize(done);
  return contents;
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = other.release();
  }
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

int FileDescriptor::release() {
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

std::string why_untrusted(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0)
    return errno == ENOENT ? "" : reason("it cannot be examined");
  if (status.st_uid != geteuid() && status.st_uid != 0) {
    return fmt::format("it belongs to user {}, neither to {} nor to root", status.st_uid,
                       geteuid());
  }
  if (status.st_mode & kWritableByOthers) {
    return fmt::format("its mode {:04o} lets others write it; run: chmod -R go-w '{}'",
                       status.st_mode & 07777, path);
  }
  return "";
}

std::optional<PrivateDirectory> PrivateDirectory::open(const std::string& path,
                                                       std::string& why_not) {
  const auto reject = [&](std::string why) -> std::optional<PrivateDirectory> {
    why_not = std::move(why);
    return std::nullopt;
  };
  if (path.empty() || path[0] != '/') return reject("the path is not absolute");
  if (!make_directories(path)) return reject(reason("it cannot be created"));
  FileDescriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return reject(reason("it cannot be opened"));
  struct stat status;
  if (fstat(directory.get(), &status) != 0) return reject(reason("it cannot be examined"));
  if (status.st_uid != geteuid()) {
    return reject(fmt::format("it belongs to user {}, not to {}", status.st_uid, geteuid()));
  }
  if (status.st_mode & kWritableByOthers) {
    return reject(fmt::format("its mode {:04o} lets others write it; run: chmod 700 '{}'",
                              status.st_mode & 07777, path));
  }
  return PrivateDirectory(path, std::move(directory));
}

std::optional<std::string> PrivateDirectory::read(const std::string& name, uint64_t max_bytes,
                                                  std::string& why_not) const {
  why_not.clear();
  // O_NONBLOCK: a FIFO of that name must not hang us.
  const FileDescriptor file(
      openat(directory_.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) {
    if (errno != ENOENT) why_not = reason("it cannot be opened");
    return std::nullopt;
  }
  struct stat status;
  if (fstat(file.get(), &status) != 0) {
    why_not = reason("it cannot be examined");
  } else if (!S_ISREG(status.st_mode)) {
    why_not = "it is not a regular file";
  } else if (status.st_uid != geteuid() || (status.st_mode & kWritableByOthers)) {
    why_not = "another user can write it";
  } else if (static_cast<uint64_t>(status.st_size) > max_bytes) {
    why_not = fmt::format("it has {} bytes, more than {}", status.st_size, max_bytes);
  } else {
    auto contents = read_all(file.get(), static_cast<size_t>(status.st_size));
    if (!contents) why_not = reason("it cannot be read");
    return contents;
  }
  return std::nullopt;
}

bool PrivateDirectory::replace(const std::string& name, std::string_view contents,
                               std::string& why_not) const {
  const std::string temporary = fmt::format("{}{}", kTemporaryPrefix, random_suffix());
  FileDescriptor file(openat(directory_.get(), temporary.c_str(),
                             O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) {
    why_not = reason("a file cannot be created there");
    return false;
  }
  const bool done =
      write_all(file.get(), contents) && fsync(file.get()) == 0 &&
      renameat(directory_.get(), temporary.c_str(), directory_.get(), name.c_str()) == 0;
  if (!done) {
    why_not = reason("a file cannot be written there");
    unlinkat(directory_.get(), temporary.c_str(), 0);
    return false;
  }
  // Best effort: losing the new name in a power failure costs one compilation.
  fsync(directory_.get());
  return true;
}

bool PrivateDirectory::remove(const std::string& name) const {
  return unlinkat(directory_.get(), name.c_str(), 0) == 0;
}

std::vector<FileInfo> PrivateDirectory::list(std::string_view prefix) const {
  std::vector<FileInfo> files;
  const auto close_stream = [](DIR* stream) { closedir(stream); };
  // A descriptor of its own: reading moves its position.
  FileDescriptor copy(openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, decltype(close_stream)> stream(copy ? fdopendir(copy.get()) : nullptr);
  if (!stream) return files;
  copy.release();  // the stream owns it
  while (const dirent* item = readdir(stream.get())) {
    if (!std::string_view(item->d_name).starts_with(prefix)) continue;
    struct stat status;
    if (fstatat(directory_.get(), item->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISREG(status.st_mode)) continue;
    files.push_back({item->d_name, static_cast<uint64_t>(status.st_size), status.st_mtime});
  }
  std::sort(files.begin(), files.end(),
            [](const FileInfo& a, const FileInfo& b) { return a.name < b.name; });
  return files;
}

void PrivateDirectory::remove_stale_temporaries(std::chrono::seconds age) const {
  const int64_t oldest = std::time(nullptr) - age.count();
  for (const FileInfo& file : list(kTemporaryPrefix)) {
    if (file.modified_s <= oldest) remove(file.name);
  }
}

FileDescriptor PrivateDirectory::lock(const std::string& name,
                                      std::chrono::milliseconds timeout) const {
  FileDescriptor file(
      openat(directory_.get(), name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (file) {
    if (flock(file.get(), LOCK_EX | LOCK_NB) == 0) return file;
    if (errno != EWOULDBLOCK && errno != EINTR) break;
    if (std::chrono::steady_clock::now() >= deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return {};
}

}  // namespace sagejit
