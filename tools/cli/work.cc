#include "tools/cli/work.h"

#include <algorithm>

#include "compiler/cost/traffic.h"
#include "tests/reference/attention.h"

namespace sagejit::cli {
namespace {

using reference::ProblemShape;

double counted_pairs(const Mask& mask, int64_t m, int64_t n) {
  const double all = static_cast<double>(m) * static_cast<double>(n);
  const bool causal =
      mask.kind == MaskKind::kCausalTopLeft || mask.kind == MaskKind::kCausalBottomRight;
  if (causal && m == n) return all / 2;
  if (mask.kind == MaskKind::kNone) return all;
  int64_t pairs = 0;
  for (int64_t i = 0; i < m; ++i) {
    const reference::KeyRange range = reference::visible_keys(mask, i, m, n);
    pairs += range.end - range.begin;
  }
  return static_cast<double>(pairs);
}

double tensor_bytes(const Tensor& tensor) {
  double bytes = static_cast<double>(bits_of(tensor.dtype)) / 8;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    bytes *= static_cast<double>(tensor.shape[static_cast<size_t>(axis)]);
  }
  return bytes;
}

}  // namespace

double attention_flops(const Mask& mask, const ProblemShape& s) {
  return 2 * static_cast<double>(s.b * s.hq) * counted_pairs(mask, s.m, s.n) *
         static_cast<double>(s.d + s.dv);
}

double quantize_bytes(const Artifact& artifact, const AttentionArgs& args) {
  const BoundArgs bound = bind_args(artifact.tensors, args, 0);
  const auto bytes_of = [&](std::string_view name) {
    const auto* at = std::find(std::begin(kOperandNames), std::end(kOperandNames), name);
    return tensor_bytes(args.tensors[static_cast<size_t>(at - std::begin(kOperandNames))]);
  };
  return cost::traffic_of(artifact.plan, bound.symbols, bytes_of).quantize_bytes;
}

}  // namespace sagejit::cli
