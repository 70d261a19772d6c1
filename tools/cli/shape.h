// The sizes of a problem: from the command line, and into reports.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tests/reference/inputs.h"

namespace sagejit::cli {

struct ShapeOption {
  reference::ProblemShape shape;
  bool has_d = false, has_dv = false;  // whether the text gave them; else the variant does
};

// "b=1,hq=8,hkv=2,m=100,n=128,d=64,dv=64", any of them; hkv follows hq, n follows m and dv follows
// d; what is missing otherwise is as in `defaults`. Throws Error{kArgument} for unknown names and
// values out of range.
ShapeOption parse_shape(const std::string& text, const reference::ProblemShape& defaults);

std::string shape_text(const reference::ProblemShape& shape);     // "b=1 hq=8 hkv=2 ..."
nlohmann::json shape_json(const reference::ProblemShape& shape);  // an object of the same names

}  // namespace sagejit::cli
