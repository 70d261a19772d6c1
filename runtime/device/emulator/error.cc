#include "runtime/device/emulator/error.h"

#include <fmt/format.h>

#include <utility>

namespace sagejit::emulator {
namespace {

constexpr const char* kKindNames[] = {
    "parse error",        "unsupported",    "out of bounds", "misaligned",
    "uninitialized read", "race",           "missing wait",  "missing grid wait",
    "missing fence",      "barrier misuse", "deadlock",      "divergent collective",
    "bad launch",         "step limit",     "trap"};
static_assert(std::size(kKindNames) == static_cast<size_t>(ErrorKind::kTrap) + 1);

std::string show(const Index3& i) {
  return fmt::format("({},{},{})", i[0], i[1], i[2]);
}

std::string render(const ErrorInfo& e) {
  std::string out = fmt::format("{}: {}", kind_name(e.kind), e.message);
  if (e.line != 0) out += fmt::format("\n  at PTX line {}: {}", e.line, e.text);
  if (!e.kernel.empty()) out += fmt::format("\n  in kernel {}", e.kernel);
  if (e.block) out += fmt::format(", block {}", show(*e.block));
  if (e.thread) out += fmt::format(", thread {}", show(*e.thread));
  if (e.last_writer) {
    const LastWriter& w = *e.last_writer;
    out += fmt::format("\n  last {} by thread {} at PTX line {}", w.is_write ? "written" : "read",
                       show(w.thread), w.line);
  }
  return out;
}

}  // namespace

const char* kind_name(ErrorKind kind) noexcept {
  return kKindNames[static_cast<size_t>(kind)];
}

Error::Error(ErrorInfo info) : info_(std::move(info)), what_(render(info_)) {}

}  // namespace sagejit::emulator
