#include "tools/cli/run_device.h"

#include <utility>

#include "tools/cli/device_buffer.h"

namespace sagejit::cli {
namespace {

using reference::HostTensor;
using reference::Shape4;

// A host tensor with its copy on the device.
struct Pair {
  Pair(Device& device, HostTensor tensor)
      : host(std::move(tensor)), buffer(device, host.bytes().size()) {
    buffer.write(host.bytes().data(), host.bytes().size());
  }
  Tensor argument(int rank) const {
    Tensor tensor{true, buffer.address(), host.type(), rank, {}, {}};
    for (int axis = 0; axis < rank; ++axis) {
      tensor.shape[static_cast<size_t>(axis)] = host.shape()[static_cast<size_t>(axis)];
      tensor.strides[static_cast<size_t>(axis)] = host.strides()[static_cast<size_t>(axis)];
    }
    return tensor;
  }
  HostTensor host;
  DeviceBuffer buffer;
};

HostTensor output_tensor(DType type, const Shape4& shape, Layout layout) {
  return {
      type, shape,
      layout == Layout::kBhtd ? reference::strides_bhtd(shape) : reference::strides_bthd(shape)};
}

class Forward {
 public:
  Forward(const Kernel& kernel, const Layer& layer, Layout layout)
      : kernel_(kernel),
        device_(kernel.device()),
        q_(device_, layer.inputs.q),
        k_(device_, layer.inputs.k),
        v_(device_, layer.inputs.v),
        o_(device_, output_tensor(contract().output, output_shape(layer), layout)),
        lse_(device_, HostTensor(DType::kF32, lse_shape(layer))),
        args_(arguments()),
        workspace_bytes_(kernel.workspace_bytes(args_)),
        workspace_(device_, workspace_bytes_),
        timer_(device_.make_timer()) {
    args_.workspace = workspace_.address();
    args_.workspace_bytes = workspace_bytes_;
  }

  double launch(PhaseSet phases) {
    timer_->start(nullptr);
    kernel_.launch(args_, phases, nullptr);
    timer_->stop(nullptr);
    device_.synchronize(nullptr);
    return timer_->elapsed_ms();
  }

  void read_outputs(HostTensor& o, HostTensor& lse) {
    o = o_.host;
    lse = lse_.host;
    o_.buffer.read(o.bytes().data());
    lse_.buffer.read(lse.bytes().data());
  }

  uint64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  const TensorContract& contract() const { return kernel_.artifact().tensors; }
  Shape4 output_shape(const Layer& layer) const {
    const reference::ProblemShape shape = layer.shape();
    return {shape.b, shape.hq, shape.m, shape.dv};
  }
  Shape4 lse_shape(const Layer& layer) const {
    const reference::ProblemShape shape = layer.shape();
    return {shape.b, shape.hq, contract().lse ? shape.m : 0, 1};
  }
  AttentionArgs arguments() const {
    AttentionArgs args;
    args.tensors = {q_.argument(4), k_.argument(4), v_.argument(4), o_.argument(4), {}};
    if (contract().lse) args.tensors[static_cast<size_t>(Operand::kLse)] = lse_.argument(3);
    return args;
  }

  const Kernel& kernel_;
  Device& device_;
  Pair q_, k_, v_, o_, lse_;
  AttentionArgs args_;
  uint64_t workspace_bytes_;
  DeviceBuffer workspace_;
  std::unique_ptr<Timer> timer_;
};

}  // namespace

DeviceResult run_on_device(const Kernel& kernel, const Layer& layer, Layout layout, int repeats) {
  Forward forward(kernel, layer, layout);
  DeviceResult result;
  result.workspace_bytes = forward.workspace_bytes();
  if (repeats == 1) {
    result.times.total_ms.push_back(forward.launch(kBothPhases));
    forward.read_outputs(result.o, result.lse);
    return result;
  }
  forward.launch(kBothPhases);
  forward.read_outputs(result.o, result.lse);
  for (int i = 0; i < repeats; ++i) result.times.total_ms.push_back(forward.launch(kBothPhases));
  for (int i = 0; i < repeats; ++i) {
    result.times.quantize_ms.push_back(forward.launch(kQuantizePhase));
    result.times.attend_ms.push_back(forward.launch(kAttendPhase));
  }
  HostTensor o, lse;
  forward.read_outputs(o, lse);
  result.repeatable = o.bytes() == result.o.bytes() && lse.bytes() == result.lse.bytes();
  return result;
}

}  // namespace sagejit::cli
