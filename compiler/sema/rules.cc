#include "compiler/sema/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "compiler/support/suggest.h"

namespace sagejit::rules {

bool one_of(DType type, std::initializer_list<DType> types) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

bool is_half(DType type) {
  return one_of(type, {DType::kF16, DType::kBF16});
}
bool is_int(DType type) {
  return one_of(type, {DType::kS8, DType::kU8, DType::kS4});
}

namespace {

std::string list_types(std::initializer_list<DType> types) {
  std::vector<std::string_view> names;
  for (DType type : types) names.push_back(name_of(type));
  return list_words(names);
}

}  // namespace

bool has_span(Granularity g) {
  return g == Granularity::kBlock || g == Granularity::kWarp || g == Granularity::kThread;
}

Verdict type_in(DType type, std::string_view role, std::initializer_list<DType> allowed) {
  if (one_of(type, allowed)) return std::nullopt;
  return Finding{fmt::format("{} cannot be {}", role, name_of(type)),
                 fmt::format("it can be {}", list_types(allowed))};
}

Verdict multiple_in(int value, std::string_view what, int step, std::pair<int, int> range) {
  const auto [low, high] = range;
  if (value >= low && value <= high && value % step == 0) return std::nullopt;
  std::string message = fmt::format("{} {} is not a multiple of {}", what, value, step);
  if (value % step == 0 || step == 1) {
    message = fmt::format("{} {} is out of range: from {} to {}", what, value, low, high);
  }
  const int below = std::clamp(value / step * step, low, high);
  const int above = std::clamp(below + (below <= value ? step : 0), low, high);
  return Finding{message,
                 below == above || value < low || value > high
                     ? fmt::format("the nearest that works is {}", value < low ? low : high)
                     : fmt::format("the nearest that work are {} and {}", below, above)};
}

Verdict finite_in(double value, std::string_view what, double low, double high) {
  if (value >= low && value <= high) return std::nullopt;
  const double nearest = value > high ? high : low;
  return Finding{fmt::format("{} {} is out of range: from {} to {}", what, value, low, high),
                 fmt::format("the nearest that works is {}", nearest)};
}

}  // namespace sagejit::rules
