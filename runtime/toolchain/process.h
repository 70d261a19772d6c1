// Runs another program and waits for it, whatever becomes of it.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace sagejit {

struct ProcessResult {
  std::string output;      // what it wrote to standard output and error, in order
  int exit_code = 0;       // 0 also where the host ignores SIGCHLD, and so loses every exit code
  int signal = 0;          // that ended it; 0 if it ended by itself
  bool timed_out = false;  // it was killed when the time was up

  bool succeeded() const { return exit_code == 0 && signal == 0 && !timed_out; }
  // "exit code 255", "it was killed by signal 9 (Killed)", ...; "" if it succeeded.
  std::string failure() const;
};

// `program`: a path. Its standard input is empty; signals are as a shell would give them, whatever
// the host program does with them. Thread-safe. Throws Error{kToolchain} if it cannot be started.
ProcessResult run_process(const std::string& program, const std::vector<std::string>& arguments,
                          std::chrono::milliseconds timeout);

}  // namespace sagejit
