// What the programs of a CUDA toolkit say that they are.
#pragma once

#include <string>
#include <string_view>

namespace sagejit {

// Of what `program --version` says, "13.0.88"; "" with the reason in `why_not` if that is not the
// tool of that name, of CUDA 12 or newer.
std::string cuda_tool_version(const std::string& program, std::string_view tool,
                              std::string& why_not);

}  // namespace sagejit
