// DiskCache: artifacts in one file each, in a directory of the user's own.
//
// Nothing here fails a compilation: an entry that cannot be read is a miss, one that cannot be
// written is dropped, and without a usable directory the cache is simply off. Each of these is
// reported once through the log. Safe to use from several threads and processes at once.
#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/artifact.h"
#include "runtime/cache/entry.h"
#include "runtime/cache/private_directory.h"
#include "runtime/cache/sha256.h"
#include "runtime/log.h"

namespace sagejit {

class DiskCache {
 public:
  // An empty path: the cache is off, for the reason given.
  DiskCache(const std::string& path, std::string reason_if_empty, Log log);

  bool enabled() const { return directory_.has_value(); }
  const std::string& path() const { return path_; }
  const std::string& why_disabled() const { return why_disabled_; }

  // The artifact stored for exactly this key; empty on a miss.
  std::optional<Artifact> find(const CacheKey& key) const;

  // The newest artifact of this request, whichever toolchain made it; empty if there is none. For
  // those who cannot compile or may not.
  std::optional<Artifact> find_newest(const std::string& request) const;

  // Stores it, replacing any entry of that key. True if it is on disk now.
  bool store(const CacheKey& key, const Artifact& artifact) const;

  // Keeps other processes from compiling the same key at once; a hint, not needed for correctness.
  FileDescriptor lock(const CacheKey& key, std::chrono::milliseconds timeout) const;

  // For tools.
  struct Entry {
    std::string file;
    uint64_t bytes = 0;
    int64_t modified_s = 0;
    std::string damage;        // why it is no valid entry; "" if it is one
    std::string variant_name;  // of a valid one
    std::string target;
  };
  std::vector<Entry> list() const;            // reads and checks every entry
  uint64_t shrink(uint64_t max_bytes) const;  // removes oldest entries first; returns bytes removed

  // "0123...-4567....sagejit": the file of a key.
  static std::string file_name(const CacheKey& key);

 private:
  // The valid entry of that file; otherwise a warning, unless the file does not exist.
  std::optional<DecodedEntry> read(const std::string& name) const;
  void warn_once(std::atomic<bool>& warned, std::string_view message) const;

  std::string path_;
  std::string why_disabled_;
  Log log_;
  std::optional<PrivateDirectory> directory_;
  mutable std::atomic<bool> warned_read_ = false, warned_write_ = false, swept_ = false;
};

}  // namespace sagejit
