// Artifact <-> JSON: everything but the code itself, which a cache entry stores as bytes.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "compiler/artifact.h"

namespace sagejit {

// The fields of specs/cache_format.md, section "Metadata".
nlohmann::json to_json(const Artifact& artifact);

// The code of all modules, one after another.
struct CodeSections {
  std::string_view ptx, cubin;
};

// The inverse. Throws nlohmann::json::exception for a missing or mistyped field, Error{kInternal}
// for an expression that does not parse, a name that is not known, or sections that are not as long
// as the modules say.
Artifact artifact_from_json(const nlohmann::json& json, CodeSections code);

}  // namespace sagejit
