// Every variant of specs/variants, by file and name.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "compiler/sema/resolve.h"

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

}  // namespace sagejit
