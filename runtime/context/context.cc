#include "runtime/context/context.h"

#include <algorithm>
#include <cstring>

#include "compiler/sema/print.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

std::string directory_for(const ContextOptions& options, const Environment& environment,
                          std::string& why_not) {
  if (options.disk_cache) return cache_directory(options.cache_dir, environment, why_not);
  why_not = "it was turned off";
  return "";
}

DiskCache open_cache(const ContextOptions& options, const Environment& environment) {
  std::string why_not;
  const std::string path = directory_for(options, environment, why_not);
  if (path.empty() && options.disk_cache) {
    options.log.warn(fmt::format("the kernel cache is off: {}", why_not));
  }
  return DiskCache(path, why_not, options.log);
}

}  // namespace

std::string cache_directory(const std::string& option, const Environment& environment,
                            std::string& why_not) {
  if (!option.empty()) return option;
  if (!environment.cache_dir.empty()) return environment.cache_dir;
  // The XDG Base Directory Specification has relative paths ignored.
  if (environment.xdg_cache_home.starts_with('/')) return environment.xdg_cache_home + "/sagejit";
  if (environment.home.starts_with('/')) return environment.home + "/.cache/sagejit";
  why_not = "none of SAGEJIT_CACHE_DIR, XDG_CACHE_HOME and HOME is set";
  return "";
}

KernelRequest make_request(Variant variant, std::optional<Schedule> schedule) {
  std::string text = canonical_key_text(variant);
  text += schedule ? print_schedule(*schedule) : "default schedule";
  return {std::move(variant), schedule, sha256(text)};
}

std::string_view name_of(Origin origin) {
  switch (origin) {
    case Origin::kMemory:
      return "memory";
    case Origin::kDisk:
      return "disk";
    case Origin::kCompiled:
      return "jit";
  }
  return "?";
}

Context::Context(const ContextOptions& options, const Environment& environment)
    : Context(options, environment,
              make_jit_compiler(ToolchainOptions::from(environment, options.toolchain))) {}

Context::Context(ContextOptions options, const Environment& environment,
                 std::unique_ptr<Compiler> compiler)
    : options_(std::move(options)),
      compiler_(std::move(compiler)),
      disk_(open_cache(options_, environment)) {}

size_t Context::KeyHash::operator()(const Key& key) const {
  size_t word = 0;  // any bytes of a SHA-256 are a good hash
  std::memcpy(&word, key.identity.data(), sizeof(word));
  return word ^ std::hash<const void*>()(key.device);
}

FoundKernel Context::get(const KernelRequest& request, const std::shared_ptr<Device>& device) {
  const Key key = {request.identity, device.get()};
  Origin origin = Origin::kMemory;
  auto kernel = kernels_.find(key);
  if (!kernel) {
    kernel = kernels_.find_or_make(key, [&] {
      FoundArtifact obtained = obtain({.variant = request.variant,
                                       .target = device->info().target,
                                       .schedule = request.schedule,
                                       .assemble = device->info().runs_machine_code});
      origin = obtained.origin;
      return std::make_shared<const Kernel>(device, std::move(obtained.artifact));
    });
  }
  if (origin == Origin::kMemory) memory_hits_.fetch_add(1, std::memory_order_relaxed);
  return {std::move(kernel), origin};
}

// Artifacts of all toolchains do the same, but not bit for bit the same code: verification compares
// with this one's.
std::optional<Artifact> Context::find_of_any_toolchain(const CacheKey& key) const {
  return options_.verify_cache ? std::nullopt : disk_.find_newest(key.request);
}

std::optional<Artifact> Context::find_on_disk(const CompileRequest& request,
                                              const CacheKey& key) const {
  std::optional<Artifact> found;
  if (!key.toolchain.empty()) found = disk_.find(key);
  if (found) return found;
  const bool would_rather_compile =
      options_.compile && !key.toolchain.empty() && !compiler_->is_last_resort(request);
  return would_rather_compile ? std::nullopt : find_of_any_toolchain(key);
}

FoundArtifact Context::obtain(const CompileRequest& request) {
  const CacheKey key = compiler_->key(request);
  auto cached = find_on_disk(request, key);
  FileDescriptor lock;
  if (!cached && options_.compile && !key.toolchain.empty()) {
    lock = disk_.lock(key, kLockTimeout);
    if (lock) cached = disk_.find(key);  // another process may have made it meanwhile
  }
  if (cached) return serve(request, std::move(*cached));
  try {
    Artifact artifact = compile_after_miss(request, key);
    misses_.fetch_add(1, std::memory_order_relaxed);
    const bool known_maker = !key.toolchain.empty();  // else its tools were installed just now
    if (known_maker && disk_.store(key, artifact)) stores_.fetch_add(1, std::memory_order_relaxed);
    return {std::move(artifact), Origin::kCompiled};
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kToolchain) cached = find_of_any_toolchain(key);
    if (cached) {
      options_.log.warn(fmt::format(
          "the kernel of variant '{}' for {} cannot be compiled here, and is taken from the cache "
          "as {} and {} made it: {}",
          request.variant.name, request.target->name, cached->backend,
          cached->assembler.empty() ? "no assembler" : cached->assembler, error.message()));
      return serve(request, std::move(*cached));
    }
    misses_.fetch_add(1, std::memory_order_relaxed);
    throw;
  }
}

FoundArtifact Context::serve(const CompileRequest& request, Artifact cached) {
  disk_hits_.fetch_add(1, std::memory_order_relaxed);
  cached.variant_name = request.variant.name;  // a label, not part of the key
  if (options_.verify_cache) verify(request, cached);
  return {std::move(cached), Origin::kDisk};
}

std::string Context::miss_of(const CompileRequest& request) const {
  const std::string cache = disk_.enabled() ? fmt::format("'{}'", disk_.path())
                                            : fmt::format("(it is off: {})", disk_.why_disabled());
  return fmt::format("the kernel of variant '{}' for {} is not in the cache {}",
                     request.variant.name, request.target->name, cache);
}

std::string Context::how_to_build(const CompileRequest& request) const {
  return fmt::format("sagejit compile FILE --variant '{}' --target {}{}", request.variant.name,
                     request.target->name, request.assemble ? "" : " --emit ptx");
}

Artifact Context::compile_after_miss(const CompileRequest& request, const CacheKey& key) {
  if (!options_.compile) {
    fail(ErrorKind::kNotFound, "{}, and compiling is turned off; to build it, run: {}",
         miss_of(request), how_to_build(request));
  }
  try {
    return compile(request);
  } catch (const Error& error) {
    if (!key.toolchain.empty() || error.kind() != ErrorKind::kToolchain) throw;
    throw Error(
        ErrorKind::kToolchain,
        fmt::format("{}, and nothing here can compile it. {}\nOr build it on a machine that "
                    "has what it takes, and copy its cache here: {}",
                    miss_of(request), error.message(), how_to_build(request)),
        error.log());
  }
}

Artifact Context::compile(const CompileRequest& request) {
  Artifact artifact = compiler_->compile(request);
  compiles_.fetch_add(1, std::memory_order_relaxed);
  return artifact;
}

// The assembler's log is left out: it may hold times.
void Context::verify(const CompileRequest& request, const Artifact& cached) {
  const Artifact fresh = compile(request);
  const auto same = [&](auto KernelModule::*code) {
    return std::equal(fresh.modules.begin(), fresh.modules.end(), cached.modules.begin(),
                      cached.modules.end(), [&](const KernelModule& a, const KernelModule& b) {
                        return a.kernel == b.kernel && a.*code == b.*code;
                      });
  };
  const char* difference = !same(&KernelModule::ptx)         ? "PTX"
                           : !same(&KernelModule::cubin)     ? "machine code"
                           : fresh.plan != cached.plan       ? "plan"
                           : fresh.tensors != cached.tensors ? "tensor contract"
                                                             : nullptr;
  if (!difference) return;
  fail(ErrorKind::kInternal,
       "the cached kernel of variant '{}' for {} differs from a fresh one in its {}: the cache key "
       "lacks something that determines the code; empty '{}' and report this",
       request.variant.name, request.target->name, difference, disk_.path());
}

Counters Context::counters() const {
  return {.memory_hits = memory_hits_.load(std::memory_order_relaxed),
          .disk_hits = disk_hits_.load(std::memory_order_relaxed),
          .misses = misses_.load(std::memory_order_relaxed),
          .compiles = compiles_.load(std::memory_order_relaxed),
          .stores = stores_.load(std::memory_order_relaxed)};
}

}  // namespace sagejit
