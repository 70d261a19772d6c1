#include "runtime/toolchain/search.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <system_error>

#include "compiler/backend/llvm/llvm_backend.h"
#include "compiler/support/error.h"
#include "runtime/cache/private_directory.h"
#include "runtime/toolchain/nvdisasm.h"
#include "runtime/toolchain/ptxas.h"

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

// What is looked for, and where it lies in a toolkit.
struct Wanted {
  std::vector<const char*> names;                                // newest first
  const char* toolkit_folder;                                    // below a toolkit's root
  const char* package_folder;                                    // below a package's
  std::function<std::string(const std::string& file)> try_file;  // "" if it works, else why not
};

class Searcher {
 public:
  explicit Searcher(Wanted wanted) : wanted_(std::move(wanted)) {}

  // True if the file was taken.
  bool try_one(std::string origin, const std::string& file) {
    std::string outcome = wanted_.try_file(file);
    const bool taken = outcome.empty();
    result_.places.push_back({std::move(origin), file, std::move(outcome)});
    if (taken) result_.file = file;
    return taken;
  }

  bool try_folder(const std::string& origin, const fs::path& folder) {
    return std::any_of(wanted_.names.begin(), wanted_.names.end(),
                       [&](const char* name) { return try_one(origin, folder / name); });
  }

  bool try_toolkit(const std::string& origin, const std::string& root) {
    return !root.empty() && try_folder(origin, fs::path(root) / wanted_.toolkit_folder);
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

  // Toolkits and private folders.
  bool try_folders(const SearchOptions& options) {
    if (try_toolkit("CUDA_HOME", options.cuda_home)) return true;
    if (try_toolkit("CUDA_PATH", options.cuda_path)) return true;
    if (try_matching("CUDA toolkit", options.system_prefix, "cuda", wanted_.toolkit_folder)) {
      return true;
    }
    return std::any_of(options.private_dirs.begin(), options.private_dirs.end(),
                       [&](const std::string& folder) { return try_private(folder); });
  }

  // Nobody named the folder: it is one only because of where this code lies.
  bool try_private(const std::string& folder) {
    const std::string origin = "private folder";
    if (std::string why_not = why_untrusted(folder); !why_not.empty()) {
      result_.places.push_back({origin, folder, std::move(why_not)});
      return false;
    }
    return try_matching(origin, fs::path(folder) / "nvidia", "cu", wanted_.package_folder);
  }

  SearchResult take() { return std::move(result_); }

 private:
  const Wanted wanted_;
  SearchResult result_;
};

std::vector<std::string> folders_of(const std::string& path) {
  std::vector<std::string> folders;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find(':', begin), path.size());
    // A relative folder of $PATH would run whatever lies in the current one.
    if (path[begin] == '/') folders.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return folders;
}

std::vector<std::string> without_repetitions(const std::vector<fs::path>& folders) {
  std::vector<std::string> unique;
  for (const fs::path& folder : folders) {
    if (std::find(unique.begin(), unique.end(), folder) == unique.end()) unique.push_back(folder);
  }
  return unique;
}

// Of the library or program that this code is in. A program is known by what it was called as,
// which need not be a path from here.
fs::path own_folder() {
  std::error_code error;
  Dl_info self;
  fs::path file;
  if (dladdr(reinterpret_cast<void*>(&search_nvrtc), &self) && self.dli_fname) {
    file = fs::weakly_canonical(self.dli_fname, error);
  }
  if (!fs::is_regular_file(file, error)) file = fs::read_symlink("/proc/self/exe", error);
  return file.parent_path();
}

// Folders that the set-up fills, one for each package: below the one fixed when this was built, and
// ../.. of where this code lies, for a build tree or an installation that was moved.
std::vector<std::string> private_folders() {
  std::vector<fs::path> places;
#ifdef SAGEJIT_DEPS_DIR
  places.emplace_back(SAGEJIT_DEPS_DIR);
#endif
  // <repo>/build/<preset>/{bin,lib}/FILE is three below the repository; an installed lib/FILE is
  // one.
  fs::path folder = own_folder();
  for (int up = 0; up < 3 && folder.has_relative_path(); ++up) {
    folder = folder.parent_path();
    places.push_back(folder / ".deps");
  }
  std::vector<fs::path> folders;
  std::error_code error;
  for (const fs::path& place : places) {
    for (const char* package : {"nvrtc", "ptxas", "nvdisasm"}) {
      if (fs::is_directory(place / package, error)) folders.push_back(place / package);
    }
  }
  // Where nothing was set up, this is where it would be.
  if (folders.empty() && !places.empty()) folders.push_back(places.front() / "nvrtc");
  return without_repetitions(folders);
}

std::vector<std::string> library_folders() {
  const fs::path own = own_folder();
  return without_repetitions({own, own.parent_path() / "lib"});
}

}  // namespace

namespace {

std::string failure_text(const SearchResult& search, const char* what, const char* how_to_mend) {
  std::string message = fmt::format("{} was not found. Searched:", what);
  for (const SearchPlace& place : search.places) {
    message += fmt::format("\n  {} ({}): {}", place.file, place.origin, place.outcome);
  }
  return message + "\n" + how_to_mend;
}

}  // namespace

std::string nvrtc_failure(const SearchResult& search) {
  return failure_text(search, "NVRTC, NVIDIA's run-time compiler,",
                      "Install it with: pip install --target .deps/nvrtc nvidia-cuda-nvrtc (in "
                      "sagejit's folder), or set SAGEJIT_NVRTC to the path of libnvrtc.so");
}

std::string ptxas_failure(const SearchResult& search) {
  return failure_text(
      search, "ptxas, the assembler of a CUDA toolkit,",
      "Install it with: pip install --no-deps --target .deps/ptxas nvidia-cuda-nvcc (in "
      "sagejit's folder), or set SAGEJIT_PTXAS to its path");
}

std::string nvdisasm_failure(const SearchResult& search) {
  return failure_text(
      search, "nvdisasm, the disassembler of a CUDA toolkit,",
      "Install it with: pip install --no-deps --target .deps/nvdisasm nvidia-cuda-nvdisasm (in "
      "sagejit's folder)");
}

std::string llvm_failure(const SearchResult& search) {
  return failure_text(search, "The LLVM back end, libsagejit_llvm.so,",
                      "It is built with sagejit where LLVM 19 is installed (llvm-19-dev); "
                      "SAGEJIT_LLVM says where it is. Or take another back end: ptx needs nothing");
}

SearchOptions SearchOptions::from(const Environment& environment) {
  return {.nvrtc_variable = environment.nvrtc,
          .ptxas_variable = environment.ptxas,
          .llvm_variable = environment.llvm,
          .cuda_home = environment.cuda_home,
          .cuda_path = environment.cuda_path,
          .path = environment.path,
          .private_dirs = private_folders(),
          .own_dirs = library_folders()};
}

SearchResult search_nvrtc(const SearchOptions& options) {
  Searcher searcher({{kLibraryNames.begin(), kLibraryNames.end()}, "lib64", "lib", try_library});
  const auto search = [&] {
    if (!options.nvrtc.empty()) return searcher.try_one("option", options.nvrtc);
    if (!options.nvrtc_variable.empty()) {
      return searcher.try_one("SAGEJIT_NVRTC", options.nvrtc_variable);
    }
    for (const char* name : kLibraryNames) {
      if (searcher.try_one("dynamic loader", name)) return true;
    }
    return searcher.try_folders(options);
  };
  search();
  return searcher.take();
}

namespace {

// A program of a toolkit, by the option or variable if it is given, else by $PATH and the folders.
struct Program {
  const char* name;
  std::string option, variable_name, variable;
  std::string (*version)(const std::string& file, std::string& why_not);
};

SearchResult search_program(const Program& program, const SearchOptions& options) {
  std::string version;
  Searcher searcher({{program.name}, "bin", "bin", [&](const std::string& file) -> std::string {
                       if (access(file.c_str(), F_OK) != 0) return "there is no such file";
                       std::string why_not;
                       version = program.version(file, why_not);
                       return why_not;
                     }});
  const auto search = [&] {
    if (!program.option.empty()) return searcher.try_one("option", program.option);
    if (!program.variable.empty()) {
      return searcher.try_one(program.variable_name, program.variable);
    }
    for (const std::string& folder : folders_of(options.path)) {
      // Most of them have none, and are not worth a line each.
      if (access((fs::path(folder) / program.name).c_str(), F_OK) != 0) continue;
      if (searcher.try_folder("PATH", folder)) return true;
    }
    return searcher.try_folders(options);
  };
  search();
  SearchResult result = searcher.take();
  result.version = std::move(version);
  return result;
}

}  // namespace

SearchResult search_ptxas(const SearchOptions& options) {
  return search_program(
      {"ptxas", options.ptxas, "SAGEJIT_PTXAS", options.ptxas_variable, ptxas_version}, options);
}

SearchResult search_nvdisasm(const SearchOptions& options) {
  return search_program({"nvdisasm", "", "", "", nvdisasm_version}, options);
}

SearchResult search_llvm(const SearchOptions& options) {
  constexpr const char* kName = "libsagejit_llvm.so";
  std::string version;
  Searcher searcher({{kName}, "", "", [&](const std::string& file) -> std::string {
                       try {
                         version = LlvmPlugin::load(file)->version();
                         return "";
                       } catch (const Error& error) {
                         return error.message();
                       }
                     }});
  const auto search = [&] {
    if (!options.llvm_variable.empty()) {
      return searcher.try_one("SAGEJIT_LLVM", options.llvm_variable);
    }
    for (const std::string& folder : options.own_dirs) {
      if (searcher.try_folder("beside sagejit", folder)) return true;
    }
    return searcher.try_one("dynamic loader", kName);
  };
  search();
  SearchResult result = searcher.take();
  result.version = std::move(version);
  return result;
}

}  // namespace sagejit
