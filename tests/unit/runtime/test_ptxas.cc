// Programs that are run, and ptxas among them: those that work, and all the ways in which one may
// not.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>

#include "compiler/backend/assemble/report.h"
#include "compiler/support/stopwatch.h"
#include "runtime/toolchain/process.h"
#include "runtime/toolchain/ptxas.h"
#include "tests/support/catch.h"
#include "tests/unit/backend/find_ptxas.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr milliseconds kLong{20000};

ProcessResult shell(const std::string& command, milliseconds timeout = kLong) {
  return run_process("/bin/sh", {"-c", command}, timeout);
}

// A ptxas that does what the script says; "$1" is the PTX, "$2" the output.
std::shared_ptr<const Assembler> fake(const TemporaryDirectory& dir, const std::string& script,
                                      milliseconds timeout = kLong) {
  // --verbose --gpu-name=TARGET SOURCE --output-file OUTPUT
  write_file(dir / "ptxas", "#!/bin/sh\nset -- \"$3\" \"$5\" \"$2\"\n" + script + "\n");
  fs::permissions(dir / "ptxas", fs::perms::owner_all);
  fs::create_directories(dir / "tmp");
  return make_ptxas_assembler({.program = dir / "ptxas",
                               .version = "13.0.1",
                               .temporary_dir = dir / "tmp",
                               .timeout = timeout});
}

// The error of assembling with that script, "message | log". Nothing is left behind.
std::string failure(const std::string& script, milliseconds timeout = kLong) {
  const TemporaryDirectory dir;
  const auto assembler = fake(dir, script, timeout);
  std::string text;
  try {
    assembler->assemble("the PTX", find_target("sm_80"));
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kToolchain);
    text = error.message().substr(error.message().find("ptxas")) + " | " + error.log();
  }
  CHECK(fs::is_empty(dir / "tmp"));
  return text;
}

constexpr const char* kModule =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry k(.param .b64 p)\n.maxntid 32\n{\n"
    "  .reg .b64 %d<2>;\n  .reg .b32 %r<2>;\n"
    "  ld.param.b64 %d0, [p];\n  mov.u32 %r0, %tid.x;\n  st.global.b32 [%d0], %r0;\n  ret;\n}\n";

}  // namespace

TEST_CASE("process: output, input and exit code") {
  const ProcessResult result = shell("echo out; echo err >&2; cat; echo end; exit 3");
  CHECK(result.output == "out\nerr\nend\n");
  CHECK(result.exit_code == 3);
  CHECK_FALSE(result.succeeded());
  CHECK(result.failure() == "exit code 3");
  CHECK(shell("true").succeeded());
  CHECK(shell("true").failure() == "");
  const std::string odd = "a 'b' \"c\" $d\n";
  CHECK(run_process("/bin/echo", {"-n", odd}, kLong).output == odd);
  CHECK(shell("yes | head -c 1000000").output.size() == 1000000);  // more than a pipe holds
}

TEST_CASE("process: one that is killed, hangs or does not exist") {
  CHECK(shell("kill -9 $$").failure() == "it was killed by signal 9 (Killed)");
  const Stopwatch watch;
  // The child of the shell holds the pipe as well.
  const ProcessResult hanging = shell("echo started; sleep 60; true", milliseconds(300));
  CHECK(watch.elapsed_ms() < 30000);
  CHECK(hanging.timed_out);
  CHECK(hanging.output == "started\n");
  CHECK(hanging.failure() == "it did not end in time and was killed");
  CHECK(error_of([] { run_process("/nonexistent/ptxas", {}, kLong); }, ErrorKind::kToolchain) ==
        "/nonexistent/ptxas cannot be started: No such file or directory");
}

TEST_CASE("process: one that closes its output and lingers is killed in time") {
  const Stopwatch watch;
  const ProcessResult lingering =
      shell("echo started; exec >/dev/null 2>&1; sleep 60; true", milliseconds(300));
  CHECK(watch.elapsed_ms() >= 300);
  CHECK(watch.elapsed_ms() < 30000);
  CHECK(lingering.timed_out);
  CHECK(lingering.output == "started\n");
  const ProcessResult late = shell("exec >/dev/null 2>&1; sleep 0.1; exit 3");
  CHECK(late.failure() == "exit code 3");
}

TEST_CASE("process: it shares the caller's process group, and with it what a terminal sends") {
  CHECK(shell("cut -d ' ' -f 5 /proc/$$/stat").output == fmt::format("{}\n", getpgrp()));
}

TEST_CASE("process: one that writes without end is killed") {
  const ProcessResult flooding = shell("exec yes");
  CHECK(flooding.wrote_too_much);
  CHECK_FALSE(flooding.succeeded());
  CHECK(flooding.output.size() == kMaxProcessOutput);
  CHECK(flooding.failure() == "it wrote more than 16 MiB and was killed");
}

TEST_CASE("process: whatever the host program does with signals") {
  struct sigaction ignore = {}, before = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGCHLD, &ignore, &before);
  const ProcessResult result = shell("trap; echo $(true && echo fine)");
  sigaction(SIGCHLD, &before, nullptr);
  CHECK(result.succeeded());
  CHECK(result.output == "fine\n");
  sigset_t pipe, old;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &pipe, &old);
  CHECK(shell("kill -TERM $$; sleep 60").signal == SIGTERM);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

TEST_CASE("process: several at once, none with another's pipe") {
  std::vector<std::thread> threads;
  std::array<ProcessResult, 8> results;
  for (size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&results, i] {
      results[i] = shell(fmt::format("ls /proc/self/fd | wc -l; sleep 0.1; exit {}", i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < results.size(); ++i) {
    CHECK(results[i].exit_code == static_cast<int>(i));
    CHECK(results[i].output == results[0].output);
  }
}

TEST_CASE("ptxas: what it is given, and what it returns") {
  const TemporaryDirectory dir;
  const auto assembler = fake(dir, R"script(
printf '\177ELF:%s:' "$3" > "$2"
cat "$1" >> "$2"
stat -c %a "$(dirname "$1")" >> "$2"
echo "ptxas info    : Compiling entry function 'k' for 'sm_80'"
echo "ptxas info    : Used 33 registers" >&2)script");
  CHECK(assembler->name() == "ptxas 13.0.1");
  CHECK(assembler->flags(find_target("sm_90a")) ==
        std::vector<std::string>{"--verbose", "--gpu-name=sm_90a"});
  const MachineCode code = assembler->assemble("the PTX ", find_target("sm_80"));
  CHECK(std::string(code.cubin.begin(), code.cubin.end()) ==
        "\177ELF:--gpu-name=sm_80:the PTX 700\n");
  REQUIRE(code.resources.size() == 1);
  CHECK(code.resources[0].registers == 33);
  CHECK(fs::is_empty(dir / "tmp"));
}

TEST_CASE("ptxas: folders of interrupted processes are removed, and nothing else") {
  const TemporaryDirectory dir;
  const auto assembler = fake(dir, "echo code > \"$2\"");
  const fs::path tmp = dir / "tmp";
  const auto two_hours_ago = fs::file_time_type::clock::now() - std::chrono::hours(2);
  for (const char* name : {"sagejit-assemble-aB3dE6", "sagejit-assemble-results", "other"}) {
    fs::create_directories(tmp / name);
    write_file(tmp / name / "kernel.ptx", "old");
    fs::last_write_time(tmp / name, two_hours_ago);
  }
  fs::create_directories(tmp / "sagejit-assemble-aB3dE7");  // of one that may be running
  fs::create_directory_symlink(tmp / "other", tmp / "sagejit-assemble-aB3dE8");
  assembler->assemble("the PTX", find_target("sm_80"));
  CHECK_FALSE(fs::exists(tmp / "sagejit-assemble-aB3dE6"));
  CHECK(fs::exists(tmp / "sagejit-assemble-results/kernel.ptx"));
  CHECK(fs::exists(tmp / "other/kernel.ptx"));
  CHECK(fs::exists(tmp / "sagejit-assemble-aB3dE7"));
  CHECK(fs::is_symlink(tmp / "sagejit-assemble-aB3dE8"));
}

TEST_CASE("ptxas: failures are errors with its words") {
  CHECK(failure("echo 'line 3; error'; exit 255") ==
        "ptxas refuses the generated kernel for sm_80: exit code 255 | line 3; error\n");
  CHECK(failure("echo before; kill -9 $$") ==
        "ptxas fails on the generated kernel for sm_80: it was killed by signal 9 (Killed) | "
        "before\n");
  CHECK(failure("sleep 60", milliseconds(200)) ==
        "ptxas fails on the generated kernel for sm_80: it did not end in time and was killed | ");
  CHECK(failure("exec yes")
            .starts_with("ptxas fails on the generated kernel for sm_80: it wrote more than 16 MiB "
                         "and was killed | "));
  CHECK(failure("echo nothing") == "ptxas left no machine code | nothing\n");
  CHECK(failure(": > \"$2\"") == "ptxas left no machine code | ");
}

TEST_CASE("ptxas: garbage is found out, whatever the exit code") {
  const TemporaryDirectory dir;
  const MachineCode code =
      fake(dir, "echo '<html>' > \"$2\"; echo hello")->assemble("the PTX", find_target("sm_80"));
  CHECK(error_of([&] { check_machine_code(code, "ptxas 13.0.1"); }, ErrorKind::kToolchain)
            .starts_with("ptxas 13.0.1 returned what is no machine code"));
}

TEST_CASE("ptxas: one that is gone, or nowhere to write") {
  const TemporaryDirectory dir;
  const auto assembler = fake(dir, "");
  fs::remove(dir / "ptxas");
  CHECK(error_of([&] { assembler->assemble("", find_target("sm_80")); }, ErrorKind::kToolchain) ==
        dir / "ptxas" + " cannot be started: No such file or directory");
  fs::remove(dir / "tmp");
  CHECK(error_of([&] { assembler->assemble("", find_target("sm_80")); }, ErrorKind::kIo) ==
        "no temporary folder can be made in " + dir / "tmp" +
            ": No such file or directory; set TMPDIR to another");
}

TEST_CASE("ptxas: the real one assembles, reports and refuses") {
  const TemporaryDirectory dir;
  const auto assembler = find_ptxas(dir.str());
  if (!assembler) return;
  for (const Target& target : all_targets()) {
    INFO(target.name);
    std::string module = kModule;
    module.replace(module.find("sm_80"), 5, target.name);
    const int version = std::max(87, target.ptx_version);
    module.replace(module.find("7.0"), 3, fmt::format("{}.{}", version / 10, version % 10));
    const MachineCode code = assembler->assemble(module, target);
    CHECK_NOTHROW(check_machine_code(code, assembler->name()));
    REQUIRE(code.resources.size() == 1);
    CHECK(code.resources[0].kernel == "k");
    CHECK(find_assembly_fault(code) == "");
  }
  try {
    assembler->assemble(std::string(kModule) + "nonsense;", find_target("sm_80"));
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kToolchain);
    CHECK_THAT(error.message(),
               Catch::Contains("refuses the generated kernel for sm_80: exit code 255"));
    CHECK_THAT(error.log(), Catch::Contains("nonsense"));
  }
  CHECK(fs::is_empty(dir.str()));
}

}  // namespace sagejit::testing
