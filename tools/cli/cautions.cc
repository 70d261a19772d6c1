#include "tools/cli/cautions.h"

#include <fmt/format.h>

#include "compiler/sema/check.h"

namespace sagejit::cli {

void Cautions::add(const Variant& variant, const Target& target) {
  for (const std::string& text : cautions_about(variant, target)) {
    const auto [about, is_new] = about_.try_emplace(text, About{variant.name, 0});
    if (!is_new) ++about->second.num_others;
  }
}

void Cautions::print() const {
  for (const auto& [text, about] : about_) {
    const std::string others =
        about.num_others == 0 ? "" : fmt::format(" and {} more", about.num_others);
    fmt::print(stderr, "sagejit: warning: {}{}: {}\n", about.first, others, text);
  }
}

void print_cautions(const Variant& variant, const Target& target) {
  Cautions cautions;
  cautions.add(variant, target);
  cautions.print();
}

}  // namespace sagejit::cli
