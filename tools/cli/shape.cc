#include "tools/cli/shape.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "compiler/support/error.h"

namespace sagejit::cli {
namespace {

using reference::ProblemShape;

constexpr int64_t kMaxSize = int64_t{1} << 31;

struct ShapeKey {
  std::string_view name;
  int64_t ProblemShape::*field;
  int64_t min;
};
constexpr ShapeKey kShapeKeys[] = {
    {"b", &ProblemShape::b, 0},   {"hq", &ProblemShape::hq, 1}, {"hkv", &ProblemShape::hkv, 1},
    {"m", &ProblemShape::m, 0},   {"n", &ProblemShape::n, 0},   {"d", &ProblemShape::d, 1},
    {"dv", &ProblemShape::dv, 1},
};

int64_t parse_size(std::string_view pair, std::string_view digits, int64_t min) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value < min ||
      value >= kMaxSize) {
    fail(ErrorKind::kArgument, "--shape: '{}' is not a whole number from {} to {}", pair, min,
         kMaxSize - 1);
  }
  return value;
}

}  // namespace

ShapeOption parse_shape(const std::string& text, const ProblemShape& defaults) {
  ShapeOption option;
  option.shape = defaults;
  bool has_hkv = false, has_n = false;
  std::istringstream stream(text);
  for (std::string pair; std::getline(stream, pair, ',');) {
    const size_t equals = pair.find('=');
    const std::string name = pair.substr(0, equals);
    const auto* key = std::find_if(std::begin(kShapeKeys), std::end(kShapeKeys),
                                   [&](const ShapeKey& row) { return row.name == name; });
    if (equals == std::string::npos || key == std::end(kShapeKeys)) {
      fail(ErrorKind::kArgument,
           "--shape: '{}' is not a size of b, hq, hkv, m, n, d or dv; write b=1,hq=8", pair);
    }
    option.shape.*key->field =
        parse_size(pair, std::string_view(pair).substr(equals + 1), key->min);
    has_hkv |= name == "hkv";
    has_n |= name == "n";
    option.has_d |= name == "d";
    option.has_dv |= name == "dv";
  }
  if (!has_hkv) option.shape.hkv = option.shape.hq;
  if (!has_n) option.shape.n = option.shape.m;
  if (option.shape.hq % option.shape.hkv != 0) {
    fail(ErrorKind::kArgument, "--shape: hq {} is not a multiple of hkv {}", option.shape.hq,
         option.shape.hkv);
  }
  return option;
}

std::string shape_text(const ProblemShape& s) {
  return fmt::format("b={} hq={} hkv={} m={} n={} d={} dv={}", s.b, s.hq, s.hkv, s.m, s.n, s.d,
                     s.dv);
}

nlohmann::json shape_json(const ProblemShape& s) {
  nlohmann::json result;
  for (const ShapeKey& key : kShapeKeys) result[std::string(key.name)] = s.*key.field;
  return result;
}

}  // namespace sagejit::cli
