#include "tools/cli/work.h"

#include <set>

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

struct Traffic {
  std::set<std::string> pointers;  // tensors, by the name that expressions give their address
  std::set<int> buffers;           // of the workspace
};

Traffic traffic_of(const Plan& plan, Phase phase) {
  Traffic traffic;
  for (const KernelLaunch& launch : plan.launches) {
    if (launch.phase != phase) continue;
    for (const KernelParam& param : launch.params) {
      if (param.buffer >= 0) {
        traffic.buffers.insert(param.buffer);
      } else if (param.type == ParamType::kPointer) {
        traffic.pointers.insert(param.value.text());
      }
    }
  }
  return traffic;
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
  const Traffic quantize = traffic_of(artifact.plan, Phase::kQuantize);
  const Traffic attend = traffic_of(artifact.plan, Phase::kAttend);
  double bytes = 0;
  for (const Operand input : {Operand::kQ, Operand::kK, Operand::kV}) {
    const auto index = static_cast<size_t>(input);
    if (quantize.pointers.contains(kOperandNames[index]))
      bytes += tensor_bytes(args.tensors[index]);
  }
  const BoundArgs bound = bind_args(artifact.tensors, args, 0);
  for (const int buffer : quantize.buffers) {
    if (!attend.buffers.contains(buffer)) continue;
    const SizeExpr& size = artifact.plan.workspace[static_cast<size_t>(buffer)].bytes;
    bytes += static_cast<double>(size.evaluate(bound.symbols));
  }
  return bytes;
}

}  // namespace sagejit::cli
