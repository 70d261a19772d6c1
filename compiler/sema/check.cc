#include "compiler/sema/check.h"

#include <fmt/format.h>

#include "compiler/support/error.h"

namespace sagejit {

void check_valid(const Variant& variant) {
  const std::vector<Contradiction> found = find_contradictions(variant);
  if (found.empty()) return;
  std::string message = fmt::format("variant `{}` contradicts itself", variant.name);
  for (const Contradiction& c : found) {
    message += fmt::format("\n  {}: {}", c.key, c.message);
    if (!c.note.empty()) message += fmt::format("\n    note: {}", c.note);
  }
  throw Error(ErrorKind::kSpec, std::move(message));
}

}  // namespace sagejit
