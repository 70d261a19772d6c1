// Contexts: look-up order, single flight among threads and processes, corruption, the counters.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <latch>

#include "tests/support/catch.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

namespace fs = std::filesystem;

KernelRequest named(const std::string& name) {
  KernelRequest request;
  request.variant.name = name;
  request.identity = sha256(name);
  return request;
}

// A context with a fake compiler that can be looked at.
struct Fixture {
  explicit Fixture(const std::string& cache_dir, ContextOptions options = {}) {
    auto owned = std::make_unique<FakeCompiler>();
    compiler = owned.get();
    options.cache_dir = cache_dir;
    options.disk_cache = !cache_dir.empty();
    options.log = warnings.log();
    context = std::make_unique<Context>(options, Environment{}, std::move(owned));
  }
  FoundKernel get(const std::string& name) { return context->get(named(name), device); }

  Warnings warnings;
  FakeCompiler* compiler;
  std::unique_ptr<Context> context;
  std::shared_ptr<FakeDevice> device = std::make_shared<FakeDevice>();
};

std::string counters_of(const Context& context) {
  const Counters c = context.counters();
  return fmt::format("memory {} disk {} miss {} compile {} store {}", c.memory_hits, c.disk_hits,
                     c.misses, c.compiles, c.stores);
}

size_t num_files(const std::string& directory, std::string_view ending) {
  size_t count = 0;
  for (const auto& file : fs::directory_iterator(directory)) {
    count += file.path().string().ends_with(ending);
  }
  return count;
}

}  // namespace

TEST_CASE("context: compiles once, then memory; a new context finds it on disk") {
  const TemporaryDirectory dir;
  Fixture first(dir / "c");
  CHECK(first.get("v").origin == Origin::kCompiled);
  CHECK(first.get("v").origin == Origin::kMemory);
  CHECK(first.get("w").origin == Origin::kCompiled);
  CHECK(counters_of(*first.context) == "memory 1 disk 0 miss 2 compile 2 store 2");
  Fixture second(dir / "c");
  const FoundKernel found = second.get("v");
  CHECK(found.origin == Origin::kDisk);
  CHECK(found.kernel->artifact().plan == toy_artifact().plan);
  CHECK(counters_of(*second.context) == "memory 0 disk 1 miss 0 compile 0 store 0");
  CHECK(second.warnings.messages().empty());
}

TEST_CASE("context: the label of a cached kernel is that of the request") {
  const TemporaryDirectory dir;
  Fixture f(dir / "c");
  f.get("v");
  Fixture second(dir / "c");
  CHECK(second.get("v").kernel->artifact().variant_name == "v");
}

TEST_CASE("context: a changed key misses") {
  const TemporaryDirectory dir;
  Fixture(dir / "c").get("v");
  Fixture second(dir / "c");
  second.compiler->generation = "2";
  CHECK(second.get("v").origin == Origin::kCompiled);
}

TEST_CASE("context: with a toolchain, only what that one made is taken from disk") {
  const TemporaryDirectory dir;
  Fixture(dir / "c").get("v");
  Fixture second(dir / "c");
  second.compiler->generation = "2";
  second.get("v");
  CHECK(num_files(dir / "c", ".sagejit") == 2);
  Fixture first(dir / "c");
  CHECK(first.get("v").origin == Origin::kDisk);
}

TEST_CASE("context: without a toolchain, a filled cache will do, whoever filled it") {
  const TemporaryDirectory dir;
  Fixture(dir / "c").get("v");
  Fixture f(dir / "c");
  f.compiler->generation = "";
  CHECK(f.get("v").origin == Origin::kDisk);
  CHECK(counters_of(*f.context) == "memory 0 disk 1 miss 0 compile 0 store 0");
  CHECK(num_files(dir / "c", ".lock") == 1);  // of the one that compiled
}

TEST_CASE("context: with a last resort, what any toolchain has made is preferred to compiling") {
  const TemporaryDirectory dir;
  Fixture f(dir / "c");
  f.compiler->generation = "2";
  f.compiler->last_resort = true;
  CHECK(f.get("w").origin == Origin::kCompiled);
  Fixture(dir / "c").get("v");
  CHECK(f.get("v").origin == Origin::kDisk);
  CHECK(counters_of(*f.context) == "memory 0 disk 1 miss 1 compile 1 store 1");
  Fixture verifying(dir / "c", {.verify_cache = true});
  verifying.compiler->generation = "2";
  verifying.compiler->last_resort = true;
  CHECK(verifying.get("v").origin == Origin::kCompiled);
}

TEST_CASE("context: where the toolchain fails, what another has made will do, with a warning") {
  const TemporaryDirectory dir;
  Fixture(dir / "c").get("v");
  Fixture f(dir / "c");
  f.compiler->generation = "2";
  f.compiler->failure = [] { fail(ErrorKind::kToolchain, "ptxas is too old"); };
  CHECK(f.get("v").origin == Origin::kDisk);
  CHECK(error_of([&] { f.get("w"); }, ErrorKind::kToolchain) == "ptxas is too old");
  CHECK(counters_of(*f.context) == "memory 0 disk 1 miss 1 compile 0 store 0");
  REQUIRE(f.warnings.messages().size() == 1);
  CHECK_THAT(f.warnings.messages()[0],
             Catch::Contains("variant 'v' for sm_80 cannot be compiled here") &&
                 Catch::Contains("ptxas is too old"));
  f.compiler->failure = [] { fail(ErrorKind::kInternal, "a defect"); };
  Fixture(dir / "c").get("x");
  CHECK(error_of([&] { f.get("x"); }, ErrorKind::kInternal) == "a defect");
}

TEST_CASE("context: without a toolchain, a miss says so, and how to fill the cache") {
  const TemporaryDirectory dir;
  Fixture f(dir / "c");
  f.compiler->generation = "";
  CHECK(error_of([&] { f.get("v"); }, ErrorKind::kToolchain) ==
        fmt::format(
            "the kernel of variant 'v' for sm_80 is not in the cache '{}', and nothing here "
            "can compile it. There is no toolchain.\nOr build it on a machine that has "
            "what it takes, and copy its cache here: sagejit compile FILE --variant 'v' --target "
            "sm_80 --emit ptx",
            dir / "c"));
  CHECK(num_files(dir / "c", "") == 0);
}

TEST_CASE("context: without a toolchain nothing can be verified") {
  const TemporaryDirectory dir;
  Fixture(dir / "c").get("v");
  Fixture f(dir / "c", {.verify_cache = true});
  f.compiler->generation = "";
  CHECK(error_of([&] { f.get("v"); }, ErrorKind::kToolchain).find("There is no toolchain.") !=
        std::string::npos);
}

// The real compiler's keys and the real search, with a library that is not there.
TEST_CASE("context: NVRTC absent, cache filled: works; cache empty: names what would mend it") {
  const TemporaryDirectory dir;
  const auto device = std::make_shared<FakeDevice>();
  const KernelRequest request = make_request(Variant{});
  const auto context = [&](const char* cache) {
    return Context({.cache_dir = dir / cache,
                    .toolchain = {.backend = BackendChoice::kCuda, .nvrtc = dir / "libnvrtc.so"}},
                   Environment{});
  };
  const std::string key = request_key_text({.variant = request.variant,
                                            .target = device->info().target,
                                            .schedule = std::nullopt,
                                            .assemble = device->info().runs_machine_code});
  REQUIRE(DiskCache(dir / "filled", "", Log()).store({key, "backend: another\n"}, toy_artifact()));
  CHECK(context("filled").get(request, device).origin == Origin::kDisk);
  const std::string message =
      error_of([&] { context("empty").get(request, device); }, ErrorKind::kToolchain);
  INFO(message);
  CHECK(message.find("is not in the cache '" + (dir / "empty") + "'") != std::string::npos);
  CHECK(message.find(dir / "libnvrtc.so") != std::string::npos);
  CHECK(message.find("pip install") != std::string::npos);
  CHECK(message.find("sagejit compile FILE") != std::string::npos);
}

TEST_CASE("context: with compiling turned off, the toolchain's own kernel is preferred") {
  const TemporaryDirectory dir;
  for (const char* generation : {"1", "2"}) {
    Fixture f(dir / "c");
    f.compiler->generation = generation;
    f.compiler->ptx_suffix = generation;
    f.get("v");
  }
  const fs::path first = fs::path(dir / "c") / DiskCache::file_name({"v sm_80", "1"});
  fs::last_write_time(first, fs::file_time_type::clock::now() - std::chrono::hours(1));
  for (const auto& [generation, expected] : {std::pair{"1", '1'}, {"2", '2'}, {"3", '2'}}) {
    Fixture f(dir / "c", {.compile = false});
    f.compiler->generation = generation;
    CHECK(f.get("v").kernel->artifact().modules.back().ptx.back() == expected);
  }
}

TEST_CASE("context: each device loads for itself, without compiling again") {
  const TemporaryDirectory dir;
  Fixture f(dir / "c");
  f.get("v");
  const auto other = std::make_shared<FakeDevice>();
  CHECK(f.context->get(named("v"), other).origin == Origin::kDisk);
  CHECK(other->num_loads == 1);
  CHECK(f.compiler->started == 1);
}

TEST_CASE("context: works without a disk cache") {
  Fixture f("");
  CHECK(f.get("v").origin == Origin::kCompiled);
  CHECK(f.get("v").origin == Origin::kMemory);
  CHECK(counters_of(*f.context) == "memory 1 disk 0 miss 1 compile 1 store 0");
  CHECK(f.warnings.messages().empty());
}

TEST_CASE("context: the cache directory comes from the option, then the environment") {
  std::string why_not;
  Environment env{.cache_dir = "/a", .xdg_cache_home = "/x", .home = "/h"};
  CHECK(cache_directory("/option", env, why_not) == "/option");
  CHECK(cache_directory("", env, why_not) == "/a");
  env.cache_dir = "";
  CHECK(cache_directory("", env, why_not) == "/x/sagejit");
  env.xdg_cache_home = "relative";
  CHECK(cache_directory("", env, why_not) == "/h/.cache/sagejit");
  env.home = "";
  CHECK(cache_directory("", env, why_not) == "");
  CHECK(why_not == "none of SAGEJIT_CACHE_DIR, XDG_CACHE_HOME and HOME is set");
}

TEST_CASE("context: with compiling turned off, a miss names the command that builds it") {
  const TemporaryDirectory dir;
  Fixture f(dir / "c", {.compile = false});
  CHECK(
      error_of([&] { f.get("v"); }, ErrorKind::kNotFound) ==
      fmt::format("the kernel of variant 'v' for sm_80 is not in the cache '{}', and compiling is "
                  "turned off; to build it, run: sagejit compile FILE --variant 'v' --target sm_80 "
                  "--emit ptx",
                  dir / "c"));
  Fixture(dir / "c").get("v");
  CHECK(f.get("v").origin == Origin::kDisk);
  CHECK(f.compiler->started == 0);
  Fixture uncached("", {.compile = false});
  CHECK(
      error_of([&] { uncached.get("v"); }, ErrorKind::kNotFound) ==
      "the kernel of variant 'v' for sm_80 is not in the cache (it is off: it was turned off), and "
      "compiling is turned off; to build it, run: sagejit compile FILE --variant 'v' --target "
      "sm_80 "
      "--emit ptx");
}

TEST_CASE("context: an error of the compiler reaches the caller, and the next call tries again") {
  Fixture f("");
  f.compiler->failure = [] { throw Error(ErrorKind::kToolchain, "refused", "the log"); };
  CHECK(error_of([&] { f.get("v"); }, ErrorKind::kToolchain) == "refused");
  CHECK(error_of([&] { f.get("v"); }, ErrorKind::kToolchain) == "refused");
  f.compiler->failure = nullptr;
  CHECK(f.get("v").origin == Origin::kCompiled);
}

TEST_CASE("context: damaged entries are compiled again and replaced") {
  const TemporaryDirectory dir;
  Fixture(dir / "c").get("v");
  const fs::path entry = fs::path(dir / "c") / DiskCache::file_name({"v sm_80", "1"});
  const std::string good = read_file(entry);
  for (size_t at :
       {size_t{0}, size_t{9}, size_t{20}, size_t{60}, good.size() / 2, good.size() - 1}) {
    std::string bad = good;
    bad[at] ^= 0x10;
    write_file(entry, bad);
    Fixture f(dir / "c");
    CHECK(f.get("v").origin == Origin::kCompiled);
    CHECK(f.warnings.messages().size() == 1);
    CHECK(read_file(entry) == good);
  }
}

TEST_CASE("context: verification compiles on a hit and notices a difference") {
  const TemporaryDirectory dir;
  Fixture(dir / "c").get("v");
  Fixture same(dir / "c", {.verify_cache = true});
  CHECK(same.get("v").origin == Origin::kDisk);
  CHECK(counters_of(*same.context) == "memory 0 disk 1 miss 0 compile 1 store 0");
  Fixture different(dir / "c", {.verify_cache = true});
  different.compiler->ptx_suffix = "// another";
  CHECK(
      error_of([&] { different.get("v"); }, ErrorKind::kInternal) ==
      fmt::format("the cached kernel of variant 'v' for sm_80 differs from a fresh one in its PTX: "
                  "the cache key lacks something that determines the code; empty '{}' and report "
                  "this",
                  dir / "c"));
}

TEST_CASE("context: many threads, one key, one compilation") {
  const TemporaryDirectory dir;
  Fixture f(dir / "c");
  f.compiler->delay = std::chrono::milliseconds(50);
  constexpr int kThreads = 16;
  std::latch start(kThreads);
  std::vector<std::thread> threads;
  std::vector<std::shared_ptr<const Kernel>> kernels(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      kernels[i] = f.get("v").kernel;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(f.compiler->started == 1);
  CHECK(f.device->num_loads == 1);
  for (const auto& kernel : kernels) CHECK(kernel == kernels[0]);
  CHECK(counters_of(*f.context) == "memory 15 disk 0 miss 1 compile 1 store 1");
}

TEST_CASE("context: many threads, many keys, each compiled once") {
  Fixture f("");
  f.compiler->delay = std::chrono::milliseconds(1);
  constexpr int kThreads = 8, kKeys = 20;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int key = 0; key < kKeys; ++key) f.get(std::to_string((key + i) % kKeys));
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(f.compiler->started == kKeys);
}

TEST_CASE("context: when compiling fails, every waiting thread gets the error") {
  Fixture f("");
  f.compiler->delay = std::chrono::milliseconds(5);
  f.compiler->failure = [] { throw Error(ErrorKind::kToolchain, "refused"); };
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&] { failures += error_of([&] { f.get("v"); }, ErrorKind::kToolchain) == "refused"; });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 4);
}

TEST_CASE("context: a kernel outlives context and device handle") {
  std::shared_ptr<const Kernel> kernel;
  {
    Fixture f("");
    kernel = f.get("v").kernel;
  }
  CHECK(kernel->workspace_bytes(recorded_args({})) == 5376);
  kernel->launch(recorded_args({}), kBothPhases, nullptr);
}

TEST_CASE("context: a look-up in memory takes less than 2 us") {
  Fixture f("");
  const KernelRequest request = named("v");
  f.context->get(request, f.device);
  for (int i = 0; i < 1000; ++i) f.context->get(named(std::to_string(i)), f.device);
  constexpr int kLookups = 2000;
  double best_us = 1e9;
  for (int round = 0; round < 10; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kLookups; ++i) f.context->get(request, f.device);
    best_us = std::min(
        best_us, std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
                         .count() /
                     kLookups);
  }
  WARN("memory hit: " << best_us << " us");
  if (!kSanitized) CHECK(best_us < 2.0);
}

// The processes below are forked: they leave by _exit, so that no destructor of the test runs
// twice.

TEST_CASE("context: two processes, one key, one compilation", "[fork]") {
  const TemporaryDirectory dir;
  const std::string counter = dir / "compilations";
  write_file(counter, "");
  constexpr int kProcesses = 4;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      Fixture f(dir / "c");
      f.compiler->delay = std::chrono::milliseconds(200);
      f.compiler->failure = [&] { std::ofstream(counter, std::ios::app) << 'x'; };
      const bool right = f.get("v").kernel->artifact().plan == toy_artifact().plan;
      _exit(right ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  CHECK(read_file(counter) == "x");
  CHECK(num_files(dir / "c", ".sagejit") == 1);
  CHECK(num_files(dir / "c", ".lock") == 1);
}

TEST_CASE("context: a process killed while it writes leaves no wrong entry", "[fork]") {
  const TemporaryDirectory dir;
  for (const int delay_us : {500, 1000, 2000, 4000, 8000, 16000, 32000}) {
    const pid_t child = fork();
    if (child == 0) {
      Artifact artifact = toy_artifact();
      artifact.modules[0].cubin.assign(4 << 20, 7);
      const DiskCache cache(dir / "c", "", Log());
      for (;;) cache.store({"v sm_80", "1"}, artifact);
    }
    usleep(static_cast<useconds_t>(delay_us));
    kill(child, SIGKILL);
    REQUIRE(waitpid(child, nullptr, 0) == child);
    Fixture f(dir / "c");
    const FoundKernel found = f.get("v");
    CHECK(found.kernel->artifact().plan == toy_artifact().plan);
    CHECK(f.warnings.messages().empty());  // whole or absent, never torn
  }
}

}  // namespace sagejit::testing
