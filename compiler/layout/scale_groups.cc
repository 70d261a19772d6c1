#include "compiler/layout/scale_groups.h"

#include <numeric>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

ScaleGroups scale_groups(const Quantization& quantization, int thread_groups) {
  switch (quantization.granularity) {
    case Granularity::kTensor:
      return {.span = 0, .groups = 1, .per_head = false};
    case Granularity::kHead:
      return {.span = 0, .groups = 1};
    case Granularity::kBlock:
    case Granularity::kWarp:
      return {.span = quantization.span, .groups = 1};
    case Granularity::kThread:
      return {.span = quantization.span, .groups = thread_groups};
    case Granularity::kToken:
      return {.span = 1, .groups = 1};
    default:
      fail(ErrorKind::kInternal, "no scale groups for this granularity");
  }
}

}  // namespace

int scale_run(const ScaleGroups& groups, int tile_tokens) {
  return groups.is_dynamic() ? tile_tokens : std::gcd(groups.span, tile_tokens);
}

ScaleGroups scale_groups_of_q(const Quantization& q) {
  return scale_groups(q, 8);
}
ScaleGroups scale_groups_of_k(const Quantization& k) {
  return scale_groups(k, 4);
}

std::string scale_head_stride(const ScaleGroups& groups, std::string_view tokens) {
  if (groups.is_dynamic()) return groups.per_head ? "1" : "0";
  return fmt::format("ceil_div(ceil_div({}, {}) * {}, {}) * {}", tokens, kScaleRunTokens,
                     kScaleRunTokens, groups.span, groups.groups);
}

}  // namespace sagejit
