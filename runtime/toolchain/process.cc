#include "runtime/toolchain/process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

#include "compiler/support/error.h"

extern char** environ;

namespace sagejit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::microseconds kLongestPause{10000};

[[noreturn]] void cannot_start(const std::string& program, int code) {
  fail(ErrorKind::kToolchain, "{} cannot be started: {}", program, std::strerror(code));
}

// Both ends are closed in programs that other threads start meanwhile.
class Pipe {
 public:
  explicit Pipe(const std::string& program) {
    if (pipe2(ends_.data(), O_CLOEXEC) != 0) cannot_start(program, errno);
  }
  ~Pipe() {
    close(ends_[0]);
    close_writer();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  int reader() const { return ends_[0]; }
  int writer() const { return ends_[1]; }
  void close_writer() {
    if (const int end = std::exchange(ends_[1], -1); end >= 0) close(end);
  }

 private:
  std::array<int, 2> ends_ = {-1, -1};
};

// What the new process starts with: empty input, output into the pipe, all signals at their
// defaults and unblocked. It stays in the caller's process group, so that what a terminal sends to
// the one (Ctrl-C) ends the other, too.
class StartOptions {
 public:
  explicit StartOptions(int output) {
    posix_spawn_file_actions_init(&files_);
    posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files_, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files_, output, STDERR_FILENO);
    posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~StartOptions() {
    posix_spawn_file_actions_destroy(&files_);
    posix_spawnattr_destroy(&attributes_);
  }
  StartOptions(const StartOptions&) = delete;
  StartOptions& operator=(const StartOptions&) = delete;

  const posix_spawn_file_actions_t* files() const { return &files_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
};

// Until the last writer has closed its end, the time is up, or the output is too long.
void read_all(int reader, Clock::time_point deadline, ProcessResult& result) {
  std::array<char, 4096> buffer;
  while (result.output.size() <= kMaxProcessOutput) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waiting = {.fd = reader, .events = POLLIN, .revents = 0};
    const int ready = left > 0 ? poll(&waiting, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      result.timed_out = true;
      return;
    }
    const ssize_t bytes = read(reader, buffer.data(), buffer.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return;
    result.output.append(buffer.data(), static_cast<size_t>(bytes));
  }
  result.output.resize(kMaxProcessOutput);
  result.wrote_too_much = true;
}

// As waitpid, but for interruptions. What has been waited for keeps no process id, and is never
// signalled.
pid_t wait_for(pid_t child, int& status, int options) {
  pid_t ended = -1;
  do {
    ended = waitpid(child, &status, options);
  } while (ended < 0 && errno == EINTR);
  return ended;
}

// Until the process has ended, which is soon after it closed its output, unless it lingers; it is
// killed at the deadline, or at once where the reader gave it up.
void end(pid_t child, Clock::time_point deadline, ProcessResult& result) {
  int status = 0;
  pid_t ended = wait_for(child, status, WNOHANG);
  std::chrono::microseconds pause{50};
  while (ended == 0 && !result.killed()) {
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, kLongestPause);
    ended = wait_for(child, status, WNOHANG);
    result.timed_out = ended == 0 && Clock::now() >= deadline;
  }
  if (ended == 0) {
    kill(child, SIGKILL);
    ended = wait_for(child, status, 0);
  }
  if (ended < 0) return;  // the host ignores SIGCHLD
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
}

}  // namespace

std::string ProcessResult::failure() const {
  if (timed_out) return "it did not end in time and was killed";
  if (wrote_too_much) {
    return fmt::format("it wrote more than {} MiB and was killed", kMaxProcessOutput >> 20);
  }
  if (signal) return fmt::format("it was killed by signal {} ({})", signal, strsignal(signal));
  return exit_code ? fmt::format("exit code {}", exit_code) : "";
}

ProcessResult run_process(const std::string& program, const std::vector<std::string>& arguments,
                          std::chrono::milliseconds timeout) {
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const Clock::time_point deadline = Clock::now() + timeout;
  Pipe pipe(program);
  pid_t child = -1;
  {
    const StartOptions options(pipe.writer());
    if (const int code = posix_spawn(&child, program.c_str(), options.files(), options.attributes(),
                                     argv.data(), environ)) {
      cannot_start(program, code);
    }
  }
  pipe.close_writer();
  ProcessResult result;
  read_all(pipe.reader(), deadline, result);
  end(child, deadline, result);
  return result;
}

}  // namespace sagejit
