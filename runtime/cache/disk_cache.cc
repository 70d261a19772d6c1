#include "runtime/cache/disk_cache.h"

#include <algorithm>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

constexpr std::string_view kEntrySuffix = ".sagejit";
constexpr uint64_t kMaxEntryBytes = uint64_t{256} << 20;
constexpr std::chrono::seconds kStaleTemporary = std::chrono::hours(1);

// The request first: all its artifacts share that prefix.
std::string name_of(const CacheKey& key) {
  return to_hex(sha256(key.request)) + "-" + to_hex(sha256(key.toolchain)).substr(0, 16);
}

}  // namespace

DiskCache::DiskCache(const std::string& path, std::string reason_if_empty, Log log)
    : path_(path), why_disabled_(std::move(reason_if_empty)), log_(std::move(log)) {
  if (path_.empty()) return;
  directory_ = PrivateDirectory::open(path_, why_disabled_);
  if (!directory_) {
    log_.warn(fmt::format("the kernel cache is off: directory '{}': {}", path_, why_disabled_));
  }
}

std::string DiskCache::file_name(const CacheKey& key) {
  return name_of(key).append(kEntrySuffix);
}

void DiskCache::warn_once(std::atomic<bool>& warned, std::string_view message) const {
  if (!warned.exchange(true)) log_.warn(message);
}

std::optional<DecodedEntry> DiskCache::read(const std::string& name) const {
  std::string why_not;
  const auto contents = directory_->read(name, kMaxEntryBytes, why_not);
  if (contents) {
    auto entry = decode_entry(*contents, why_not);
    if (entry && file_name(entry->key) == name) return entry;
    if (entry) why_not = "it was made for another key";
  }
  if (!why_not.empty()) {
    warn_once(warned_read_, fmt::format("cache entry '{}/{}' is ignored: {}; it will be replaced",
                                        path_, name, why_not));
  }
  return std::nullopt;
}

std::optional<Artifact> DiskCache::find(const CacheKey& key) const {
  if (!directory_) return std::nullopt;
  auto entry = read(file_name(key));
  // Equal names are not yet equal keys, if only by a wonder.
  if (!entry || entry->key != key) return std::nullopt;
  return std::move(entry->artifact);
}

std::optional<Artifact> DiskCache::find_newest(const std::string& request) const {
  if (!directory_) return std::nullopt;
  std::vector<FileInfo> files = directory_->list(to_hex(sha256(request)) + "-");
  std::erase_if(files, [](const FileInfo& file) { return !file.name.ends_with(kEntrySuffix); });
  std::stable_sort(files.begin(), files.end(), [](const FileInfo& a, const FileInfo& b) {
    return a.modified_s > b.modified_s;
  });
  for (const FileInfo& file : files) {
    auto entry = read(file.name);
    if (entry && entry->key.request == request) return std::move(entry->artifact);
  }
  return std::nullopt;
}

bool DiskCache::store(const CacheKey& key, const Artifact& artifact) const {
  if (!directory_) return false;
  if (!swept_.exchange(true)) directory_->remove_stale_temporaries(kStaleTemporary);
  std::string why_not;
  const bool stored = directory_->replace(file_name(key), encode_entry(key, artifact), why_not);
  if (!stored) {
    warn_once(warned_write_,
              fmt::format("kernels are not cached: directory '{}': {}", path_, why_not));
  }
  return stored;
}

FileDescriptor DiskCache::lock(const CacheKey& key, std::chrono::milliseconds timeout) const {
  if (!directory_) return {};
  return directory_->lock(name_of(key) + ".lock", timeout);
}

std::vector<DiskCache::Entry> DiskCache::list() const {
  std::vector<Entry> entries;
  if (!directory_) return entries;
  for (const FileInfo& file : directory_->list()) {
    if (!file.name.ends_with(kEntrySuffix)) continue;
    Entry entry = {file.name, file.bytes, file.modified_s, "", "", ""};
    const auto contents = directory_->read(file.name, kMaxEntryBytes, entry.damage);
    if (!contents && entry.damage.empty()) continue;  // removed meanwhile
    const auto decoded = contents ? decode_entry(*contents, entry.damage) : std::nullopt;
    if (decoded && file_name(decoded->key) != file.name) {
      entry.damage = "its name is not that of its key";
    } else if (decoded) {
      entry.variant_name = decoded->artifact.variant_name;
      entry.target = decoded->artifact.target;
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

uint64_t DiskCache::shrink(uint64_t max_bytes) const {
  if (!directory_) return 0;
  std::vector<FileInfo> files = directory_->list();
  std::erase_if(files, [](const FileInfo& file) { return !file.name.ends_with(kEntrySuffix); });
  std::sort(files.begin(), files.end(),
            [](const FileInfo& a, const FileInfo& b) { return a.modified_s < b.modified_s; });
  uint64_t total = 0, removed = 0;
  for (const FileInfo& file : files) total += file.bytes;
  for (const FileInfo& file : files) {
    if (total - removed <= max_bytes) break;
    if (directory_->remove(file.name)) removed += file.bytes;
  }
  return removed;
}

}  // namespace sagejit
