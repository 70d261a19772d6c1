// A folder for the files of one run of a tool.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sagejit {

// Only this user can enter it, and it is removed with all that is in it; what an interrupted
// process left is removed by a later one, an hour later. Throws Error{kIo} where it cannot be made.
class PrivateFolder {
 public:
  explicit PrivateFolder(const std::string& parent);
  ~PrivateFolder();
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;

  // Writes, and returns the path. Throws Error{kIo}.
  std::string write(const char* name, std::span<const char> bytes) const;
  // Empty if there is no such file.
  std::vector<uint8_t> read(const char* name) const;
  std::string file(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Of interrupted processes, in `parent`. Does not throw.
void remove_stale_folders(const std::string& parent);

}  // namespace sagejit
