#include "tools/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace sagejit::cli {
namespace {
constexpr const char* kClearLine = "\r\033[K";
}

Progress::Progress() : on_terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  clear();
}

void Progress::clear() {
  if (shown_) fmt::print(stderr, "{}", kClearLine);
  shown_ = false;
}

void Progress::show(std::string_view what) {
  if (!on_terminal_) return;
  fmt::print(stderr, "{}{} ...", kClearLine, what);
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace sagejit::cli
