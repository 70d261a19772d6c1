#include "runtime/toolchain/process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <utility>

#include "compiler/support/error.h"

extern char** environ;

namespace sagejit {
namespace {

using Clock = std::chrono::steady_clock;

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
// defaults and unblocked, a process group of its own, so that its children can be ended with it.
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
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
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

// Until the last writer has closed its end; false if the time was up first.
bool read_all(int reader, Clock::time_point deadline, std::string& output) {
  std::array<char, 4096> buffer;
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waiting = {.fd = reader, .events = POLLIN, .revents = 0};
    const int ready = left > 0 ? poll(&waiting, 1, static_cast<int>(left)) : 0;
    if (ready == 0) return false;
    if (ready < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    const ssize_t bytes = read(reader, buffer.data(), buffer.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return true;
    output.append(buffer.data(), static_cast<size_t>(bytes));
  }
}

void wait_for(pid_t child, ProcessResult& result) {
  int status = 0;
  pid_t ended = -1;
  do {
    ended = waitpid(child, &status, 0);
  } while (ended < 0 && errno == EINTR);
  if (ended < 0) return;
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
}

}  // namespace

std::string ProcessResult::failure() const {
  if (timed_out) return "it did not end in time and was killed";
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
  result.timed_out = !read_all(pipe.reader(), deadline, result.output);
  if (result.timed_out) kill(-child, SIGKILL);
  wait_for(child, result);
  return result;
}

}  // namespace sagejit
