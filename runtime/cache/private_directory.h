// A directory that only the user can write: where code that will be executed may be kept.
//
// It is opened once and all work goes through the descriptor, so that renaming or replacing the
// path afterwards changes nothing. Safe to use from several threads and processes at once. Linux
// and POSIX.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace sagejit {

// Owns a file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release();

 private:
  int fd_ = -1;
};

struct FileInfo {
  std::string name;
  uint64_t bytes = 0;
  int64_t modified_s = 0;  // seconds since 1970
};

// Why what lies in that directory is not to be executed: it belongs neither to the user nor to
// root, or group or others can write it. "" if there is no reason, or no such directory.
std::string why_untrusted(const std::string& path);

class PrivateDirectory {
 public:
  // Creates what is missing of the path, with mode 0700. Empty with the reason in `why_not` if it
  // cannot be made, belongs to another user, or can be written by group or others.
  static std::optional<PrivateDirectory> open(const std::string& path, std::string& why_not);

  const std::string& path() const { return path_; }

  // The whole file; empty if there is none, it is no regular file of the user's own, or it is
  // longer than `max_bytes`. The reason is "" in `why_not` where the file merely does not exist.
  std::optional<std::string> read(const std::string& name, uint64_t max_bytes,
                                  std::string& why_not) const;

  // Writes a temporary file beside it, syncs it and renames it into place: readers see the old
  // contents or the new, never a part. False with the reason in `why_not` on failure, which leaves
  // no trace.
  bool replace(const std::string& name, std::string_view contents, std::string& why_not) const;

  bool remove(const std::string& name) const;  // true if it was there
  // Regular files whose name starts with `prefix`, by name.
  std::vector<FileInfo> list(std::string_view prefix = "") const;

  // Removes temporary files that writers older than `age` left behind.
  void remove_stale_temporaries(std::chrono::seconds age) const;

  // Waits up to `timeout` for the exclusive lock of that name, held until the result is destroyed.
  // Empty (no descriptor) on time-out or where locks do not work. Lock files are kept: unlinking
  // one would let two processes hold "the" lock.
  FileDescriptor lock(const std::string& name, std::chrono::milliseconds timeout) const;

 private:
  PrivateDirectory(std::string path, FileDescriptor directory)
      : path_(std::move(path)), directory_(std::move(directory)) {}

  std::string path_;
  FileDescriptor directory_;
};

}  // namespace sagejit
