#include "compiler/cost/traffic.h"

#include <set>
#include <string>

namespace sagejit::cost {
namespace {

struct Touched {
  std::set<std::string> tensors;  // by the name that expressions give their address
  std::set<int> buffers;          // of the workspace
};

Touched touched_by(const Plan& plan, Phase phase) {
  Touched touched;
  for (const KernelLaunch& launch : plan.launches) {
    if (launch.phase != phase) continue;
    for (const KernelParam& param : launch.params) {
      if (param.buffer >= 0) {
        if (!plan.workspace[static_cast<size_t>(param.buffer)].zeroed)
          touched.buffers.insert(param.buffer);
      } else if (param.type == ParamType::kPointer) {
        touched.tensors.insert(param.value.text());
      }
    }
  }
  return touched;
}

}  // namespace

Traffic traffic_of(const Plan& plan, SymbolValues values,
                   const std::function<double(std::string_view)>& tensor_bytes) {
  const Touched quantize = touched_by(plan, Phase::kQuantize);
  const Touched attend = touched_by(plan, Phase::kAttend);
  Traffic traffic;
  for (const int buffer : quantize.buffers) {
    if (!attend.buffers.contains(buffer)) continue;
    const SizeExpr& size = plan.workspace[static_cast<size_t>(buffer)].bytes;
    const auto bytes = static_cast<double>(size.evaluate(values));
    traffic.quantize_bytes += bytes;
    traffic.attend_bytes += bytes;
  }
  for (const std::string& tensor : quantize.tensors) traffic.quantize_bytes += tensor_bytes(tensor);
  for (const std::string& tensor : attend.tensors) traffic.attend_bytes += tensor_bytes(tensor);
  return traffic;
}

}  // namespace sagejit::cost
