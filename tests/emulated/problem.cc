#include "tests/emulated/problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "compiler/support/error.h"

namespace sagejit::test {
namespace {

using reference::Shape4;

constexpr uint8_t kGuardByte = 0xA5;
constexpr uint8_t kNanByte = 0xFF;   // all bits set: NaN in every float type
constexpr int64_t kGapElements = 8;  // rows stay on 16-byte boundaries

Shape4 padded_strides(const Shape4& s) {
  const int64_t row = s[3] + kGapElements;
  const int64_t head = row * s[2] + 3 * kGapElements;
  return {head * s[1] + 5 * kGapElements, head, row, 1};
}

Shape4 strides_of(const Shape4& shape, Layout layout, bool is_key_side) {
  switch (layout) {
    case Layout::kBthd:
      return reference::strides_bthd(shape);
    case Layout::kPadded:
      return padded_strides(shape);
    default:
      break;
  }
  Shape4 strides = reference::strides_bhtd(shape);
  if (layout == Layout::kBroadcast && is_key_side) strides[0] = 0;
  return strides;
}

// The LSE's rows have stride 1 along m; other layouts than padded are contiguous.
Shape4 lse_strides(const Shape4& shape, Layout layout) {
  if (layout != Layout::kPadded) return reference::strides_bhtd(shape);
  const int64_t head = shape[2] + 3;
  return {head * shape[1] + 5, head, 1, 1};
}

std::unique_ptr<GuardedBuffer> place(Device& device, const HostTensor& tensor) {
  return std::make_unique<GuardedBuffer>(device, tensor.bytes());
}

// Whether `after` differs from `before` outside of the tensor's elements.
bool gaps_touched(const HostTensor& form, const std::vector<uint8_t>& before,
                  std::vector<uint8_t> after) {
  const size_t size = static_cast<size_t>(bits_of(form.type()) / 8);
  reference::for_each_index(form.shape(), [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    const size_t at = static_cast<size_t>(form.offset(b, h, t, d)) * size;
    std::memcpy(after.data() + at, before.data() + at, size);
  });
  return after != before;
}

}  // namespace

const char* name_of(Layout layout) {
  constexpr const char* kNames[] = {"bhtd", "bthd", "padded", "broadcast"};
  return kNames[static_cast<int>(layout)];
}

GuardedBuffer::GuardedBuffer(Device& device, std::vector<uint8_t> contents)
    : device_(device),
      initial_(std::move(contents)),
      base_(device.allocate(initial_.size() + 2 * kGuardBytes)) {
  const std::vector<uint8_t> guard(kGuardBytes, kGuardByte);
  device_.copy_in(base_, guard.data(), kGuardBytes, nullptr);
  device_.copy_in(address(), initial_.data(), initial_.size(), nullptr);
  device_.copy_in(address() + initial_.size(), guard.data(), kGuardBytes, nullptr);
}

GuardedBuffer::~GuardedBuffer() {
  device_.free(base_);
}

std::vector<uint8_t> GuardedBuffer::read() const {
  std::vector<uint8_t> bytes(initial_.size());
  device_.copy_out(bytes.data(), address(), bytes.size(), nullptr);
  return bytes;
}

bool GuardedBuffer::guards_intact() const {
  std::vector<uint8_t> guards(2 * kGuardBytes);
  device_.copy_out(guards.data(), base_, kGuardBytes, nullptr);
  device_.copy_out(guards.data() + kGuardBytes, address() + initial_.size(), kGuardBytes, nullptr);
  return std::all_of(guards.begin(), guards.end(), [](uint8_t byte) { return byte == kGuardByte; });
}

Problem::Problem(const Kernel& kernel, const Inputs& inputs, Layout layout) : kernel_(kernel) {
  const auto laid_out = [&](const HostTensor& tensor, bool is_key_side) {
    return tensor.restrided(strides_of(tensor.shape(), layout, is_key_side));
  };
  inputs_ = {laid_out(inputs.q, false), laid_out(inputs.k, true), laid_out(inputs.v, true)};
  const TensorContract& contract = kernel.artifact().tensors;
  const Shape4& q = inputs.q.shape();
  const Shape4 o_shape = {q[0], q[1], q[2], inputs.v.shape()[3]};
  const Shape4 lse_shape = {q[0], q[1], contract.lse ? q[2] : 0, 1};
  o_host_ = HostTensor(contract.output, o_shape, strides_of(o_shape, layout, false));
  lse_host_ = HostTensor(DType::kF32, lse_shape, lse_strides(lse_shape, layout));

  Device& device = kernel.device();
  q_ = place(device, inputs_.q);
  k_ = place(device, inputs_.k);
  v_ = place(device, inputs_.v);
  o_ = place(device, o_host_);
  lse_ = place(device, lse_host_);
  args_.tensors = {argument(inputs_.q, *q_, 4),
                   argument(inputs_.k, *k_, 4),
                   argument(inputs_.v, *v_, 4),
                   argument(o_host_, *o_, 4),
                   {}};
  if (contract.lse) {
    args_.tensors[static_cast<size_t>(Operand::kLse)] = argument(lse_host_, *lse_, 3);
  }
  args_.workspace_bytes = kernel.workspace_bytes(args_);
  workspace_ = std::make_unique<GuardedBuffer>(
      device, std::vector<uint8_t>(args_.workspace_bytes, kNanByte));
  args_.workspace = workspace_->address();
}

void Problem::launch(PhaseSet phases) {
  kernel_.launch(args_, phases, nullptr);
  kernel_.device().synchronize(nullptr);
}

HostTensor Problem::read(const HostTensor& form, const GuardedBuffer& buffer) const {
  HostTensor tensor = form;
  tensor.bytes() = buffer.read();
  return tensor;
}

Tensor Problem::argument(const HostTensor& tensor, const GuardedBuffer& buffer, int rank) const {
  Tensor argument{true, buffer.address(), tensor.type(), rank, {}, {}};
  for (size_t axis = 0; axis < static_cast<size_t>(rank); ++axis) {
    argument.shape[axis] = tensor.shape()[axis];
    argument.strides[axis] = tensor.strides()[axis];
  }
  return argument;
}

std::string Problem::damage() const {
  const std::pair<const char*, const GuardedBuffer*> buffers[] = {
      {"q", q_.get()}, {"k", k_.get()},     {"v", v_.get()},
      {"o", o_.get()}, {"lse", lse_.get()}, {"workspace", workspace_.get()}};
  for (const auto& [name, buffer] : buffers) {
    if (!buffer->guards_intact()) return fmt::format("memory around {} was written", name);
  }
  for (const auto& [name, buffer] : {buffers[0], buffers[1], buffers[2]}) {
    if (buffer->read() != buffer->initial()) return fmt::format("input {} was written", name);
  }
  if (gaps_touched(o_host_, o_->initial(), o_->read())) return "gaps of o were written";
  if (gaps_touched(lse_host_, lse_->initial(), lse_->read())) return "gaps of lse were written";
  return "";
}

bool Problem::has_workspace(std::string_view name) const {
  const auto& buffers = kernel_.artifact().plan.workspace;
  return std::any_of(buffers.begin(), buffers.end(),
                     [&](const WorkspaceBuffer& buffer) { return buffer.name == name; });
}

std::vector<uint8_t> Problem::workspace(std::string_view name) const {
  BoundArgs bound = bind_args(kernel_.artifact().tensors, args_, 0);
  bound.symbols[static_cast<size_t>(Symbol::kNumSms)] = kernel_.device().info().num_sms;
  const std::vector<uint8_t> all = workspace_->read();
  uint64_t begin = 0;
  for (const WorkspaceBuffer& buffer : kernel_.artifact().plan.workspace) {
    const auto bytes = static_cast<uint64_t>(buffer.bytes.evaluate(bound.symbols));
    if (buffer.name == name) {
      const auto first = all.begin() + static_cast<ptrdiff_t>(begin);
      return {first, first + static_cast<ptrdiff_t>(bytes)};
    }
    begin += (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
  }
  fail(ErrorKind::kArgument, "the plan has no buffer '{}'", name);
}

}  // namespace sagejit::test
