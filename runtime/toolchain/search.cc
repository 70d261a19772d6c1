#include "runtime/toolchain/search.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

namespace fs = std::filesystem;

// Newest first.
constexpr std::array<const char*, 2> kLibraryNames = {"libnvrtc.so.13", "libnvrtc.so.12"};

// NVRTC opens its built-in headers by bare name, which the loader finds only if they are loaded
// already or in its own places; so they are loaded from beside the library.
void load_builtins_beside(const fs::path& library) {
  std::error_code error;
  for (const fs::directory_entry& file : fs::directory_iterator(library.parent_path(), error)) {
    const std::string name = file.path().filename();
    if (name.starts_with("libnvrtc-builtins.so."))
      dlopen(file.path().c_str(), RTLD_NOW | RTLD_LOCAL);
  }
}

// The path the loader resolved a library to.
fs::path path_of(void* library) {
  link_map* map = nullptr;
  if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 || !map || !map->l_name) return {};
  return map->l_name;
}

// "" if the library works as NVRTC; then it stays loaded, so that loading it again costs nothing.
std::string try_library(const std::string& name) {
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return dlerror();
  using QueryVersion = int (*)(int* major, int* minor);
  const auto query = reinterpret_cast<QueryVersion>(dlsym(library, "nvrtcVersion"));
  int major = 0, minor = 0;
  if (!query || query(&major, &minor) != 0) {
    dlclose(library);
    return "it is not NVRTC";
  }
  if (major < 12) {
    dlclose(library);
    return fmt::format("it is NVRTC {}.{}; 12.0 or newer is needed", major, minor);
  }
  load_builtins_beside(path_of(library));
  return "";
}

class Searcher {
 public:
  // True if the library was taken.
  bool try_one(std::string origin, const std::string& library) {
    if (std::string outcome = try_library(library); !outcome.empty()) {
      result_.places.push_back({std::move(origin), library, std::move(outcome)});
      return false;
    }
    result_.places.push_back({std::move(origin), library, ""});
    result_.library = library;
    return true;
  }

  bool try_folder(const std::string& origin, const fs::path& folder) {
    return std::any_of(kLibraryNames.begin(), kLibraryNames.end(),
                       [&](const char* name) { return try_one(origin, folder / name); });
  }

  bool try_toolkit(const std::string& origin, const std::string& root) {
    return !root.empty() && try_folder(origin, fs::path(root) / "lib64");
  }

  // Sub-folders of `parent` whose name starts with `prefix`, newest name first, each with `tail`
  // behind.
  bool try_matching(const std::string& origin, const fs::path& parent, const std::string& prefix,
                    const fs::path& tail) {
    std::vector<fs::path> folders;
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(parent, error)) {
      if (entry.path().filename().string().starts_with(prefix)) folders.push_back(entry.path());
    }
    if (folders.empty()) {
      result_.places.push_back({origin, parent / (prefix + "*") / tail, "there is no such folder"});
      return false;
    }
    std::sort(folders.rbegin(), folders.rend());
    return std::any_of(folders.begin(), folders.end(),
                       [&](const fs::path& folder) { return try_folder(origin, folder / tail); });
  }

  ToolchainSearch take() { return std::move(result_); }

 private:
  ToolchainSearch result_;
};

// Folders that the set-up fills: the one fixed when this was built, and ../.. of where this code
// lies, for a build tree or an installation that was moved.
std::vector<std::string> private_folders() {
  std::vector<std::string> folders;
#ifdef SAGEJIT_DEPS_DIR
  folders.push_back(SAGEJIT_DEPS_DIR "/nvrtc");
#endif
  Dl_info self;
  std::error_code error;
  if (dladdr(reinterpret_cast<void*>(&search_toolchain), &self) && self.dli_fname) {
    fs::path folder = fs::weakly_canonical(self.dli_fname, error).parent_path();
    // <repo>/build/<preset>/{bin,lib}/FILE is three below the repository; an installed lib/FILE is
    // one.
    for (int up = 0; up < 3 && folder.has_relative_path(); ++up) {
      folder = folder.parent_path();
      const std::string candidate = folder / ".deps" / "nvrtc";
      if (fs::is_directory(candidate, error)) folders.push_back(candidate);
    }
  }
  std::vector<std::string> unique;
  for (std::string& candidate : folders) {
    if (std::find(unique.begin(), unique.end(), candidate) == unique.end()) {
      unique.push_back(std::move(candidate));
    }
  }
  return unique;
}

}  // namespace

std::string ToolchainSearch::failure_message() const {
  std::string message = "NVRTC, NVIDIA's run-time compiler, was not found. Searched:";
  for (const ToolchainPlace& place : places) {
    message += fmt::format("\n  {} ({}): {}", place.library, place.origin, place.outcome);
  }
  message +=
      "\nInstall it with: pip install --target .deps/nvrtc nvidia-cuda-nvrtc (in sagejit's "
      "folder), "
      "or set SAGEJIT_NVRTC to the path of libnvrtc.so";
  return message;
}

ToolchainOptions ToolchainOptions::from(const Environment& environment, std::string library) {
  return {.library = std::move(library),
          .cuda_home = environment.cuda_home,
          .cuda_path = environment.cuda_path,
          .variable = environment.nvrtc,
          .private_dirs = private_folders()};
}

ToolchainSearch search_toolchain(const ToolchainOptions& options) {
  Searcher searcher;
  const auto search = [&] {
    if (!options.library.empty()) return searcher.try_one("option", options.library);
    if (!options.variable.empty()) return searcher.try_one("SAGEJIT_NVRTC", options.variable);
    for (const char* name : kLibraryNames) {
      if (searcher.try_one("dynamic loader", name)) return true;
    }
    if (searcher.try_toolkit("CUDA_HOME", options.cuda_home)) return true;
    if (searcher.try_toolkit("CUDA_PATH", options.cuda_path)) return true;
    if (searcher.try_matching("CUDA toolkit", options.system_prefix, "cuda", "lib64")) return true;
    return std::any_of(
        options.private_dirs.begin(), options.private_dirs.end(), [&](const std::string& folder) {
          return searcher.try_matching("private folder", fs::path(folder) / "nvidia", "cu", "lib");
        });
  };
  search();
  return searcher.take();
}

Toolchain& LazyToolchain::get() {
  const std::scoped_lock lock(mutex_);
  if (!toolchain_) {
    const ToolchainSearch search = search_toolchain(options_);
    if (search.library.empty()) throw Error(ErrorKind::kToolchain, search.failure_message());
    toolchain_ = Toolchain::load(search.library);
  }
  return *toolchain_;
}

Toolchain* LazyToolchain::get_if_any() {
  try {
    return &get();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kToolchain) throw;
    return nullptr;
  }
}

}  // namespace sagejit
