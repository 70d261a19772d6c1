// What `explain` says, as text or JSON.
#pragma once

#include <string>

#include "compiler/explain.h"

namespace sagejit::cli {

std::string to_text(const Explanation& explanation);
std::string to_json_text(const Explanation& explanation);

}  // namespace sagejit::cli
