// Context: turns a variant and a device into a loaded kernel, by the cheapest way there is.
//
// Look-up order: kernels in memory, the disk cache, the compiler. Where nothing can be compiled, or
// may be, or the toolchain is a last resort, a cached kernel of any toolchain will do; otherwise
// only one of this toolchain. Of
// several threads that ask for the same kernel one does the work and the others wait; among
// processes a lock file does the same, for at most kLockTimeout. Kernels stay in memory as long as
// the context. All members are thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "compiler/schedule/schedule.h"
#include "compiler/sema/variant.h"
#include "runtime/cache/disk_cache.h"
#include "runtime/cache/memory_cache.h"
#include "runtime/cache/sha256.h"
#include "runtime/context/compiler.h"
#include "runtime/device/device.h"
#include "runtime/environment.h"
#include "runtime/launch/kernel.h"
#include "runtime/log.h"

namespace sagejit {

struct ContextOptions {
  bool compile = true;  // false: a kernel that is in no cache is Error{kNotFound}
  bool disk_cache = true;
  bool verify_cache =
      false;  // compile on every disk hit and compare: Error{kInternal} if they differ
  std::string cache_dir = {};  // "": as the environment says
  ToolchainChoice toolchain = {};
  Log log = {};
};

// What to compile, with the digest that stands for it in look-ups.
struct KernelRequest {
  Variant variant;
  std::optional<Schedule> schedule;  // unset: the default for the device
  Digest identity = {};              // of canonical variant text and schedule line
};

KernelRequest make_request(Variant variant, std::optional<Schedule> schedule = std::nullopt);

enum class Origin { kMemory, kDisk, kCompiled };
std::string_view name_of(Origin origin);  // "memory", "disk", "jit"

struct FoundArtifact {
  Artifact artifact;
  Origin origin = Origin::kCompiled;  // never kMemory
};

struct FoundKernel {
  std::shared_ptr<const Kernel> kernel;
  Origin origin = Origin::kMemory;  // where this look-up found it
};

// A snapshot; every kernel look-up counts in exactly one of the first three.
struct Counters {
  uint64_t memory_hits = 0;
  uint64_t disk_hits = 0;
  uint64_t misses = 0;    // in neither cache
  uint64_t compiles = 0;  // completed, verification included
  uint64_t stores = 0;    // entries written to disk
};

class Context {
 public:
  Context(const ContextOptions& options, const Environment& environment);
  // With a compiler of the caller's.
  Context(ContextOptions options, const Environment& environment,
          std::unique_ptr<Compiler> compiler);

  static constexpr std::chrono::milliseconds kLockTimeout{30000};

  // Throws Error: kUnsupported, kToolchain, kNotFound (compiling is off), kDevice, kInternal.
  // The latter looks on disk and compiles, but loads nothing.
  FoundKernel get(const KernelRequest& request, const std::shared_ptr<Device>& device);
  FoundArtifact obtain(const CompileRequest& request);

  Counters counters() const;
  const DiskCache& disk_cache() const { return disk_; }
  const Log& log() const { return options_.log; }

 private:
  struct Key {
    Digest identity;
    const Device* device;  // kept alive by the kernels of this key
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  std::optional<Artifact> find_on_disk(const CompileRequest& request, const CacheKey& key) const;
  std::optional<Artifact> find_of_any_toolchain(const CacheKey& key) const;
  FoundArtifact serve(const CompileRequest& request, Artifact cached);
  Artifact compile(const CompileRequest& request);
  Artifact compile_after_miss(const CompileRequest& request, const CacheKey& key);
  std::string miss_of(const CompileRequest& request) const;
  std::string how_to_build(const CompileRequest& request) const;
  void verify(const CompileRequest& request, const Artifact& cached);

  const ContextOptions options_;
  const std::unique_ptr<Compiler> compiler_;
  const DiskCache disk_;
  MemoryCache<Key, Kernel, KeyHash> kernels_;
  std::atomic<uint64_t> memory_hits_ = 0, disk_hits_ = 0, misses_ = 0, compiles_ = 0, stores_ = 0;
};

// Where the disk cache is; "" with the reason in `why_not` if the environment names no place.
std::string cache_directory(const std::string& option, const Environment& environment,
                            std::string& why_not);

}  // namespace sagejit
