// The search for NVRTC and ptxas: its order, its words; and the choice of back end and assembler.
#include <set>

#include "compiler/backend/toolchain.h"
#include "compiler/compile.h"
#include "compiler/sema/resolve.h"
#include "runtime/device/cuda/driver_assembler.h"
#include "runtime/toolchain/lazy_toolchain.h"
#include "runtime/toolchain/search.h"
#include "tests/support/catch.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

namespace fs = std::filesystem;

// What a search finds nothing with, unless the loader knows NVRTC.
SearchOptions nowhere(const TemporaryDirectory& dir) {
  SearchOptions options;
  options.system_prefix = dir / "usr";
  options.cuda_home = dir / "home";
  options.cuda_path = dir / "path";
  options.private_dirs = {dir / "deps"};
  fs::create_directories(dir / "deps");
  fs::permissions(dir / "deps", static_cast<fs::perms>(0755));  // whatever the umask
  return options;
}

// Nothing anywhere.
ToolchainOptions no_tools(const TemporaryDirectory& dir) {
  ToolchainOptions options;
  options.search = nowhere(dir);
  options.search.nvrtc = dir / "none.so";
  options.search.llvm_variable = dir / "none.so";
  return options;
}

std::string origins(const SearchResult& search) {
  std::string text;
  for (const SearchPlace& place : search.places) text += place.origin + " " + place.file + "\n";
  return text;
}

bool loader_knows_nvrtc(const SearchResult& search) {
  return !search.file.empty() && search.places.back().origin == "dynamic loader";
}

// A program that says it is ptxas of that release.
std::string fake_ptxas(const std::string& path, const std::string& version) {
  fs::create_directories(fs::path(path).parent_path());
  write_file(path, fmt::format("#!/bin/sh\necho 'ptxas: release, V{}'\n", version));
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

}  // namespace

TEST_CASE("toolchain: an option or variable is final") {
  const TemporaryDirectory dir;
  SearchOptions options = nowhere(dir);
  options.nvrtc_variable = dir / "b.so";
  CHECK(origins(search_nvrtc(options)) == fmt::format("SAGEJIT_NVRTC {}\n", dir / "b.so"));
  options.nvrtc = dir / "a.so";
  const SearchResult search = search_nvrtc(options);
  CHECK(origins(search) == fmt::format("option {}\n", dir / "a.so"));
  CHECK(search.file == "");
  CHECK(nvrtc_failure(search) ==
        fmt::format(
            "NVRTC, NVIDIA's run-time compiler, was not found. Searched:\n  {0} (option): {0}: "
            "cannot open shared object file: No such file or directory\nInstall it with: pip "
            "install --target .deps/nvrtc nvidia-cuda-nvrtc (in sagejit's folder), or set "
            "SAGEJIT_NVRTC to the path of libnvrtc.so",
            dir / "a.so"));
}

TEST_CASE("toolchain: an option or variable is final for ptxas, too") {
  const TemporaryDirectory dir;
  SearchOptions options = nowhere(dir);
  options.ptxas_variable = dir / "b";
  options.path = fs::path(fake_ptxas(dir / "bin/ptxas", "13.0.88")).parent_path();
  CHECK(origins(search_ptxas(options)) == fmt::format("SAGEJIT_PTXAS {}\n", dir / "b"));
  options.ptxas = dir / "a";
  const SearchResult search = search_ptxas(options);
  CHECK(origins(search) == fmt::format("option {}\n", dir / "a"));
  CHECK(search.file == "");
  CHECK(ptxas_failure(search) ==
        fmt::format(
            "ptxas, the assembler of a CUDA toolkit, was not found. Searched:\n  {} "
            "(option): there is no such file\nInstall it with: pip install --no-deps --target "
            ".deps/ptxas nvidia-cuda-nvcc (in sagejit's folder), or set SAGEJIT_PTXAS to "
            "its path",
            dir / "a"));
}

TEST_CASE(
    "toolchain: ptxas is searched in PATH, toolkits and private folders, and asked its version") {
  const TemporaryDirectory dir;
  SearchOptions options = nowhere(dir);
  fs::create_directories(dir / "usr/cuda-13.0");
  fs::create_directories(dir / "empty");
  options.path = fmt::format("relative:{}:{}", dir / "empty", dir / "bin");
  fake_ptxas(dir / "bin/ptxas", "11.8.89");
  write_file(dir / "home", "");
  const std::string in_path = fake_ptxas(dir / "path/bin/ptxas", "soup");
  const std::string last = fake_ptxas(dir / "deps/nvidia/cu13/bin/ptxas", "13.1.7");
  const SearchResult search = search_ptxas(options);
  CHECK(search.file == last);
  CHECK(search.version == "13.1.7");
  REQUIRE(search.places.size() == 5);
  CHECK(search.places[0].outcome == "it is ptxas 11.8.89; 12.0 or newer is needed");
  CHECK(search.places[1].outcome == "there is no such file");
  CHECK(search.places[2].outcome == "it is ptxas soup; 12.0 or newer is needed");
  CHECK(search.places[3].file == dir / "usr/cuda-13.0/bin/ptxas");
  CHECK(search.places[4].outcome == "");
  write_file(in_path, "no program");
  CHECK(search_ptxas(options).places[2].outcome.find("cannot be started") != std::string::npos);
  write_file(in_path, "#!/bin/sh\nexit 1\n");
  CHECK(search_ptxas(options).places[2].outcome == "it is not ptxas");
}

TEST_CASE("toolchain: nvdisasm is searched as ptxas is") {
  const TemporaryDirectory dir;
  SearchOptions options = nowhere(dir);
  options.path = dir / "bin";
  const SearchResult none = search_nvdisasm(options);
  CHECK(none.file == "");
  CHECK_THAT(nvdisasm_failure(none),
             Catch::StartsWith("nvdisasm, the disassembler of a CUDA toolkit, was not found.") &&
                 Catch::Contains("--target .deps/nvdisasm nvidia-cuda-nvdisasm"));
  const std::string program = dir / "deps/nvidia/cu13/bin/nvdisasm";
  fs::create_directories(fs::path(program).parent_path());
  write_file(program, "#!/bin/sh\necho 'nvdisasm: release 13.2, V13.2.86'\n");
  fs::permissions(program, fs::perms::owner_all);
  fake_ptxas(dir / "bin/nvdisasm", "13.0.88");
  const SearchResult search = search_nvdisasm(options);
  CHECK(search.file == program);
  CHECK(search.version == "13.2.86");
  CHECK(search.places[0].outcome == "it is not nvdisasm");
}

TEST_CASE(
    "toolchain: a private folder that others can write is passed over, and nothing in it run") {
  const TemporaryDirectory dir;
  SearchOptions options = nowhere(dir);
  fs::create_directories(dir / "deps/nvidia/cu13/bin");
  const std::string ran = dir / "ran", ptxas = dir / "deps/nvidia/cu13/bin/ptxas";
  write_file(ptxas, fmt::format("#!/bin/sh\n: > {}\necho 'ptxas: release, V13.0.1'\n", ran));
  fs::permissions(ptxas, fs::perms::owner_all);
  for (const auto& [mode, text] : {std::pair{0777, "0777"}, {0775, "0775"}, {01757, "1757"}}) {
    fs::permissions(dir / "deps", static_cast<fs::perms>(mode));
    const SearchResult search = search_ptxas(options);
    CHECK(search.file == "");
    CHECK(search.places.back().file == dir / "deps");
    CHECK(search.places.back().outcome ==
          fmt::format("its mode {} lets others write it; run: chmod -R go-w '{}'", text,
                      dir / "deps"));
  }
  CHECK_FALSE(fs::exists(ran));
  fs::permissions(dir / "deps", static_cast<fs::perms>(0755));
  CHECK(search_ptxas(options).file == ptxas);
  CHECK(fs::exists(ran));
}

TEST_CASE("toolchain: a private folder of another user is passed over") {
  const TemporaryDirectory dir;
  SearchOptions options = nowhere(dir);
  fs::create_directories(dir / "deps");
  constexpr uid_t kAnother = 12345;
  if (chown((dir / "deps").c_str(), kAnother, static_cast<gid_t>(-1)) != 0) {
    WARN("skipped: only root can give folders away");
    return;
  }
  CHECK(search_ptxas(options).places.back().outcome ==
        fmt::format("it belongs to user 12345, neither to {} nor to root", geteuid()));
}

TEST_CASE("toolchain: a library that is not NVRTC is refused") {
  const TemporaryDirectory dir;
  SearchOptions options = nowhere(dir);
  options.nvrtc = "libm.so.6";
  const SearchResult search = search_nvrtc(options);
  CHECK(search.file == "");
  CHECK(search.places.at(0).outcome == "it is not NVRTC");
}

TEST_CASE("toolchain: the LLVM plug-in is searched beside sagejit; a variable is final") {
  const TemporaryDirectory dir;
  SearchOptions options;
  options.own_dirs = {dir / "bin", dir / "lib"};
  fs::create_directories(dir / "lib");
  write_file(dir / "lib/libsagejit_llvm.so", "no library");
  SearchResult search = search_llvm(options);
  REQUIRE(search.places.size() == 3);
  CHECK(origins(search) ==
        fmt::format("beside sagejit {0}/bin/libsagejit_llvm.so\nbeside sagejit "
                    "{0}/lib/libsagejit_llvm.so\ndynamic loader libsagejit_llvm.so\n",
                    dir.str()));
  CHECK(search.places[0].outcome.find("No such file") != std::string::npos);
  CHECK(search.places[1].outcome.find("file too short") != std::string::npos);
  options.llvm_variable = dir / "x.so";
  search = search_llvm(options);
  CHECK(origins(search) == fmt::format("SAGEJIT_LLVM {}\n", dir / "x.so"));
  CHECK(search.file == "");
  CHECK(llvm_failure(search) ==
        fmt::format("The LLVM back end, libsagejit_llvm.so, was not found. Searched:\n  {0} "
                    "(SAGEJIT_LLVM): {0}: cannot open shared object file: No such file or "
                    "directory\nIt is built with sagejit where LLVM 19 is installed "
                    "(llvm-19-dev); SAGEJIT_LLVM says where it is. Or take another back end: ptx "
                    "needs nothing",
                    dir / "x.so"));
}

TEST_CASE("toolchain: the places are searched in order") {
  const TemporaryDirectory dir;
  fs::create_directories(dir / "usr/cuda-12.4/lib64");
  fs::create_directories(dir / "usr/cuda-13.0/lib64");
  fs::create_directories(dir / "deps/nvidia/cu13/lib");
  const SearchResult search = search_nvrtc(nowhere(dir));
  if (loader_knows_nvrtc(search)) return;  // then nothing behind it is looked at
  const std::string root = dir.str();
  std::string expected = "dynamic loader libnvrtc.so.13\ndynamic loader libnvrtc.so.12\n";
  const std::vector<std::pair<std::string, std::string>> folders = {
      {"CUDA_HOME", "home/lib64"},
      {"CUDA_PATH", "path/lib64"},
      {"CUDA toolkit", "usr/cuda-13.0/lib64"},
      {"CUDA toolkit", "usr/cuda-12.4/lib64"},
      {"private folder", "deps/nvidia/cu13/lib"}};
  for (const auto& [origin, folder] : folders) {
    for (const char* name : {"libnvrtc.so.13", "libnvrtc.so.12"}) {
      expected += fmt::format("{} {}/{}/{}\n", origin, root, folder, name);
    }
  }
  CHECK(origins(search) == expected);
  CHECK(search.file == "");
}

TEST_CASE("toolchain: missing folders are named") {
  const TemporaryDirectory dir;
  SearchOptions options = nowhere(dir);
  options.cuda_home = options.cuda_path = "";
  const SearchResult search = search_nvrtc(options);
  if (loader_knows_nvrtc(search)) return;
  CHECK(search.places.at(2).file == dir / "usr/cuda*/lib64");
  CHECK(search.places.at(3).file == dir / "deps/nvidia/cu*/lib");
  CHECK(search.places.at(3).outcome == "there is no such folder");
}

// A machine with a GPU always has an assembler, which no option hides.
bool has_driver() {
  try {
    make_driver_assembler();
  } catch (const Error&) {
    return false;
  }
  WARN("skipped: the driver's assembler is here");
  return true;
}

TEST_CASE("toolchain: PTX takes no tool; machine code names all that would do, each time") {
  const TemporaryDirectory dir;
  LazyToolchain toolchain(no_tools(dir));
  CHECK(toolchain.get(false).backend() == "ptx");
  CHECK(&toolchain.get(false) == &toolchain.get(false));
  if (has_driver()) return;
  for (int i = 0; i < 2; ++i) {
    const std::string message = error_of([&] { toolchain.get(true); }, ErrorKind::kToolchain);
    CHECK(message.starts_with("There is no assembler; one of these will do.\nptxas, the "));
    CHECK(message.find("\nNVRTC, NVIDIA's run-time compiler, was not found. ") != message.npos);
    CHECK(message.find("\nThe driver's assembler is not there: ") != message.npos);
    CHECK(toolchain.get_if_any(true) == nullptr);
  }
}

TEST_CASE("toolchain: what is asked for and not here is named alone") {
  const TemporaryDirectory dir;
  const auto message = [&](BackendChoice backend, AssemblerChoice assembler, bool assemble) {
    ToolchainOptions options = no_tools(dir);
    options.backend = backend;
    options.assembler = assembler;
    return error_of([&] { LazyToolchain(options).get(assemble); }, ErrorKind::kToolchain);
  };
  CHECK(message(BackendChoice::kCuda, AssemblerChoice::kAuto, false).starts_with("NVRTC, "));
  CHECK(message(BackendChoice::kCuda, AssemblerChoice::kPtxas, true).starts_with("NVRTC, "));
  CHECK(message(BackendChoice::kLlvm, AssemblerChoice::kAuto, false).starts_with("The LLVM back"));
  CHECK(message(BackendChoice::kLlvm, AssemblerChoice::kPtxas, true).starts_with("The LLVM back"));
  CHECK(message(BackendChoice::kPtx, AssemblerChoice::kNvrtc, true).starts_with("NVRTC, "));
  CHECK(message(BackendChoice::kPtx, AssemblerChoice::kPtxas, true).starts_with("ptxas, "));
  CHECK(message(BackendChoice::kAuto, AssemblerChoice::kPtxas, false) == "");
  if (has_driver()) return;
  CHECK(message(BackendChoice::kAuto, AssemblerChoice::kDriver, true)
            .starts_with("The driver's assembler is not there: "));
}

TEST_CASE("toolchain: names of back ends and assemblers") {
  CHECK(backend_named("", "x") == BackendChoice::kAuto);
  CHECK(backend_named("ptx", "x") == BackendChoice::kPtx);
  CHECK(backend_named("llvm", "x") == BackendChoice::kLlvm);
  CHECK(assembler_named("driver", "x") == AssemblerChoice::kDriver);
  CHECK(error_of([] { backend_named("nvcc", "options.backend"); }, ErrorKind::kArgument) ==
        "options.backend is 'nvcc': use one of auto, cuda, ptx, llvm");
  CHECK(error_of([] { assembler_named("as", "--assembler"); }, ErrorKind::kArgument) ==
        "--assembler is 'as': use one of auto, nvrtc, ptxas, driver");
}

TEST_CASE("toolchain: auto takes ptxas where it is; each pair has a key of its own") {
  const TemporaryDirectory dir;
  ToolchainOptions options = ToolchainOptions::from(Environment::read());
  options.search.ptxas = fake_ptxas(dir / "ptxas", "13.9.1");
  CHECK(LazyToolchain(options).get(true).assembler() == "ptxas 13.9.1");
  const bool has_nvrtc = !search_nvrtc(options.search).file.empty();
  if (!has_nvrtc) WARN("skipped where it takes NVRTC, which is not on this machine");
  const bool has_llvm = !search_llvm(options.search).file.empty();
  if (!has_llvm) WARN("skipped, for llvm: it was not built");
  std::set<std::string> keys;
  size_t num_pairs = 0;
  for (const auto backend : {BackendChoice::kPtx, BackendChoice::kLlvm, BackendChoice::kCuda}) {
    for (const auto assembler : {AssemblerChoice::kPtxas, AssemblerChoice::kNvrtc}) {
      const bool is_without_nvrtc =
          backend != BackendChoice::kCuda && assembler == AssemblerChoice::kPtxas;
      if (!has_nvrtc && !is_without_nvrtc) continue;
      if (!has_llvm && backend == BackendChoice::kLlvm) continue;
      options.backend = backend;
      options.assembler = assembler;
      keys.insert(LazyToolchain(options).get(true).key_text(find_target("sm_80"), true));
      ++num_pairs;
    }
  }
  CHECK(keys.size() == num_pairs);
}

TEST_CASE("toolchain: auto passes over a ptxas that is too old for the target") {
  const TemporaryDirectory dir;
  ToolchainOptions options = ToolchainOptions::from(Environment::read());
  options.search.ptxas = fake_ptxas(dir / "ptxas", "12.4.131");
  LazyToolchain lazy(options);
  for (const char* target : {"sm_80", "sm_86", "sm_90a"}) {
    CHECK(lazy.get(true, &find_target(target)).assembler() == "ptxas 12.4.131");
  }
  CHECK(&lazy.get(true, &find_target("sm_80")) == &lazy.get(true, &find_target("sm_80")));
  const SearchResult nvrtc = search_nvrtc(options.search);
  const bool has_newer =
      !nvrtc.file.empty() && Nvrtc::load(nvrtc.file)->release() >= NvrtcVersion{12, 8};
  if (has_newer) {
    for (const char* target : {"sm_89", "sm_120", "sm_120a"}) {
      CHECK(lazy.get(true, &find_target(target)).assembler().starts_with("nvrtc "));
    }
  } else {
    WARN("skipped in part: no NVRTC 12.8 on this machine");
  }
}

TEST_CASE("toolchain: where all are too old, auto takes what reads some kernels, or says why not") {
  if (has_driver()) return;
  const TemporaryDirectory dir;
  ToolchainOptions options = no_tools(dir);
  options.search.ptxas = fake_ptxas(dir / "ptxas", "12.0.140");
  LazyToolchain lazy(options);
  CHECK(lazy.get(true, &find_target("sm_89")).assembler() == "ptxas 12.0.140");
  const std::string too_old = "ptxas 12.0.140 is too old: sm_120 takes PTX 8.7 (CUDA 12.8)";
  const auto get = [&] { lazy.get(true, &find_target("sm_120")); };
  CHECK(error_of(get, ErrorKind::kToolchain)
            .starts_with("There is no assembler; one of these will do.\n" + too_old + "\nNVRTC, "));
  CHECK(lazy.get_if_any(true, &find_target("sm_120")) == nullptr);
  options.assembler = AssemblerChoice::kPtxas;
  LazyToolchain asked_for(options);
  CHECK(error_of([&] { asked_for.get(true, &find_target("sm_120")); }, ErrorKind::kToolchain) ==
        too_old);
}

TEST_CASE("toolchain: with the cuda back end, auto takes NVRTC in one go") {
  ToolchainOptions options = ToolchainOptions::from(Environment::read());
  options.backend = BackendChoice::kCuda;
  LazyToolchain lazy(options);
  const Toolchain* toolchain = lazy.get_if_any(true);
  if (!toolchain) {
    WARN("skipped: no NVRTC on this machine");
    return;
  }
  CHECK(toolchain == &lazy.get(true));
  CHECK(toolchain->key_text(find_target("sm_80"), true).find("in one go") != std::string::npos);
}

TEST_CASE("toolchain: variants are compiled by several threads, each kernel by its own") {
  ToolchainOptions options = ToolchainOptions::from(Environment::read());
  for (const BackendChoice backend :
       {BackendChoice::kPtx, BackendChoice::kLlvm, BackendChoice::kCuda}) {
    options.backend = backend;
    LazyToolchain lazy(options);
    if (!lazy.get_if_any(false)) {
      WARN("skipped: no " << kBackendNames[static_cast<size_t>(backend)] << " on this machine");
      continue;
    }
    CompileRequest request;
    request.variant =
        resolve_variants("v.attn", "v { head_dim = 16; q = int8 per head; p = f16; v = f16 }")
            .at(0);
    request.target = &find_target("sm_80");
    request.assemble = false;
    std::array<Artifact, 3> artifacts;
    std::vector<std::thread> threads;
    for (Artifact& artifact : artifacts) {
      threads.emplace_back([&] { artifact = compile(request, lazy.get(false)); });
    }
    for (std::thread& thread : threads) thread.join();
    REQUIRE(artifacts[0].modules.size() > 1);
    for (const Artifact& artifact : artifacts) {
      CHECK(artifact.modules == artifacts[0].modules);
      CHECK(artifact.plan == artifacts[0].plan);
    }
  }
}

}  // namespace sagejit::testing
