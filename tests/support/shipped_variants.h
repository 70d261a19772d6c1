// Every variant of specs/variants, by file and name.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/sema/check.h"
#include "compiler/sema/resolve.h"
#include "compiler/target/target.h"

namespace sagejit {

// root: the repository. Throws Error{kSpec}.
inline std::vector<Variant> shipped_variants(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(root / "specs/variants")) {
    if (entry.path().extension() == ".attn") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<Variant> variants;
  for (const auto& path : files) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    for (Variant& v : resolve_variants(path.string(), text.str())) {
      variants.push_back(std::move(v));
    }
  }
  return variants;
}

// "sage1_b[head_dim=64, mask=none, ...]" -> its sweep's name, and the values
inline std::string family_of(const Variant& variant) {
  return variant.name.substr(0, variant.name.find('['));
}

// One of each group of the same key: the groups take turns in which of theirs, so that every value
// of the sweeps is met, and another `turn` meets others.
template <typename Key>
std::vector<Variant> taking_turns(const std::vector<Variant>& variants, Key key, size_t turn) {
  std::map<std::string, std::vector<const Variant*>> groups;
  std::vector<std::string> order;
  for (const Variant& v : variants) {
    std::vector<const Variant*>& group = groups[key(v)];
    if (group.empty()) order.push_back(key(v));
    group.push_back(&v);
  }
  std::vector<Variant> taken;
  for (size_t i = 0; i < order.size(); ++i) {
    const auto& group = groups[order[i]];
    taken.push_back(*group[(i + turn + i / group.size()) % group.size()]);
  }
  return taken;
}

// What back ends are compared by: of the shipped variants that the target has, with LSE, one of
// each family and head dim; all of them if the environment's SAGEJIT_BACKENDS is "all".
inline std::vector<Variant> variants_to_compare(const std::filesystem::path& root,
                                                const Target& target) {
  std::vector<Variant> variants;
  for (Variant& variant : shipped_variants(root)) {
    if (nearest_supported(variant, target) != variant) continue;
    variant.lse = true;
    variants.push_back(std::move(variant));
  }
  const char* which = std::getenv("SAGEJIT_BACKENDS");
  if (which && std::string_view(which) == "all") return variants;
  const auto family_and_head_dim = [](const Variant& v) {
    return family_of(v) + " " + std::to_string(v.head_dim);
  };
  return taking_turns(variants, family_and_head_dim, 0);
}

}  // namespace sagejit
