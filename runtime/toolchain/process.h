// Runs another program and waits for it, whatever becomes of it.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace sagejit {

// Bytes; a program that writes more is killed.
inline constexpr size_t kMaxProcessOutput = size_t{16} << 20;

struct ProcessResult {
  std::string output;      // what it wrote to standard output and error, in order
  int exit_code = 0;       // 0 also where the host ignores SIGCHLD, and so loses every exit code
  int signal = 0;          // that ended it; 0 if it ended by itself
  bool timed_out = false;  // it was killed when the time was up
  bool wrote_too_much = false;  // it was killed when `output` was full

  bool killed() const { return timed_out || wrote_too_much; }
  bool succeeded() const { return exit_code == 0 && signal == 0 && !killed(); }
  // "exit code 255", "it was killed by signal 9 (Killed)", ...; "" if it succeeded.
  std::string failure() const;
};

// `program`: a path. Its standard input is empty; signals are as a shell would give them, whatever
// the host program does with them, and its process group is the caller's. It is waited for until it
// has ended, at most for `timeout`; children that it leaves behind are not. Thread-safe. Throws
// Error{kToolchain} if it cannot be started.
ProcessResult run_process(const std::string& program, const std::vector<std::string>& arguments,
                          std::chrono::milliseconds timeout);

}  // namespace sagejit
