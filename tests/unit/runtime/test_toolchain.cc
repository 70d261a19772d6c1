// The search for NVRTC: its order, its words, and that builtins are found beside it.
#include "compiler/compile.h"
#include "compiler/sema/resolve.h"
#include "runtime/toolchain/search.h"
#include "tests/support/catch.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

namespace fs = std::filesystem;

// What a search finds nothing with, unless the loader knows NVRTC.
ToolchainOptions nowhere(const TemporaryDirectory& dir) {
  ToolchainOptions options;
  options.system_prefix = dir / "usr";
  options.cuda_home = dir / "home";
  options.cuda_path = dir / "path";
  options.private_dirs = {dir / "deps"};
  return options;
}

std::string origins(const ToolchainSearch& search) {
  std::string text;
  for (const ToolchainPlace& place : search.places)
    text += place.origin + " " + place.library + "\n";
  return text;
}

bool loader_knows_nvrtc(const ToolchainSearch& search) {
  return !search.library.empty() && search.places.back().origin == "dynamic loader";
}

}  // namespace

TEST_CASE("toolchain: an option or variable is final") {
  const TemporaryDirectory dir;
  ToolchainOptions options = nowhere(dir);
  options.variable = dir / "b.so";
  CHECK(origins(search_toolchain(options)) == fmt::format("SAGEJIT_NVRTC {}\n", dir / "b.so"));
  options.library = dir / "a.so";
  const ToolchainSearch search = search_toolchain(options);
  CHECK(origins(search) == fmt::format("option {}\n", dir / "a.so"));
  CHECK(search.library == "");
  CHECK(search.failure_message() ==
        fmt::format(
            "NVRTC, NVIDIA's run-time compiler, was not found. Searched:\n  {0} (option): {0}: "
            "cannot open shared object file: No such file or directory\nInstall it with: pip "
            "install --target .deps/nvrtc nvidia-cuda-nvrtc (in sagejit's folder), or set "
            "SAGEJIT_NVRTC to the path of libnvrtc.so",
            dir / "a.so"));
}

TEST_CASE("toolchain: a library that is not NVRTC is refused") {
  const TemporaryDirectory dir;
  ToolchainOptions options = nowhere(dir);
  options.library = "libm.so.6";
  const ToolchainSearch search = search_toolchain(options);
  CHECK(search.library == "");
  CHECK(search.places.at(0).outcome == "it is not NVRTC");
}

TEST_CASE("toolchain: the places are searched in order") {
  const TemporaryDirectory dir;
  fs::create_directories(dir / "usr/cuda-12.4/lib64");
  fs::create_directories(dir / "usr/cuda-13.0/lib64");
  fs::create_directories(dir / "deps/nvidia/cu13/lib");
  const ToolchainSearch search = search_toolchain(nowhere(dir));
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
  CHECK(search.library == "");
}

TEST_CASE("toolchain: missing folders are named") {
  const TemporaryDirectory dir;
  ToolchainOptions options = nowhere(dir);
  options.cuda_home = options.cuda_path = "";
  const ToolchainSearch search = search_toolchain(options);
  if (loader_knows_nvrtc(search)) return;
  CHECK(search.places.at(2).library == dir / "usr/cuda*/lib64");
  CHECK(search.places.at(3).library == dir / "deps/nvidia/cu*/lib");
  CHECK(search.places.at(3).outcome == "there is no such folder");
}

TEST_CASE("toolchain: without NVRTC the lazy toolchain fails with the places, each time") {
  const TemporaryDirectory dir;
  ToolchainOptions options = nowhere(dir);
  options.library = dir / "none.so";
  LazyToolchain toolchain(options);
  for (int i = 0; i < 2; ++i) {
    CHECK(error_of([&] { toolchain.get(); }, ErrorKind::kToolchain)
              .starts_with("NVRTC, NVIDIA's run-time compiler, was not found. Searched:"));
  }
}

TEST_CASE("toolchain: what the search finds compiles, loaded once") {
  const ToolchainOptions options = ToolchainOptions::from(Environment::read(), "");
  const ToolchainSearch search = search_toolchain(options);
  if (search.library.empty()) {
    WARN("no NVRTC on this machine: " << search.failure_message());
    return;
  }
  LazyToolchain lazy(options);
  Toolchain& toolchain = lazy.get();
  CHECK(&toolchain == &lazy.get());
  CHECK(toolchain.version().starts_with("nvrtc 1"));
  const ToolchainOutput output = toolchain.compile(
      "extern \"C\" __global__ void k(int* p) { *p = 1; }", find_target("sm_80"), true);
  CHECK(output.ptx.find(".entry k(") != std::string::npos);
  CHECK_FALSE(output.cubin.empty());
}

TEST_CASE("toolchain: variants are compiled by several threads, each kernel by its own") {
  LazyToolchain lazy(ToolchainOptions::from(Environment::read(), ""));
  if (!lazy.get_if_any()) return;
  CompileRequest request;
  request.variant =
      resolve_variants("v.attn", "v { head_dim = 16; q = int8 per head; p = f16; v = f16 }").at(0);
  request.target = &find_target("sm_80");
  request.assemble = false;
  std::array<Artifact, 3> artifacts;
  std::vector<std::thread> threads;
  for (Artifact& artifact : artifacts) {
    threads.emplace_back([&] { artifact = compile(request, lazy.get()); });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(artifacts[0].modules.size() > 1);
  for (const Artifact& artifact : artifacts) {
    CHECK(artifact.modules == artifacts[0].modules);
    CHECK(artifact.plan == artifacts[0].plan);
  }
}

}  // namespace sagejit::testing
