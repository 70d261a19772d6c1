// Artifact <-> JSON: everything but the code itself, which a cache entry stores as bytes.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "compiler/artifact.h"

namespace sagejit {

// The fields of specs/cache_format.md, section "Metadata".
nlohmann::json to_json(const Artifact& artifact);

// The inverse; `ptx` and `cubin` stay empty. Throws nlohmann::json::exception for a missing or
// mistyped field, Error{kInternal} for an expression that does not parse or a name that is not
// known.
Artifact artifact_from_json(const nlohmann::json& json);

}  // namespace sagejit
