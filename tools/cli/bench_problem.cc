#include "tools/cli/bench_problem.h"

#include <algorithm>
#include <initializer_list>

namespace sagejit::cli {
namespace {

using reference::HostTensor;
using reference::ProblemShape;

Tensor contiguous(DType type, std::initializer_list<int64_t> shape) {
  Tensor tensor{true, 0, type, static_cast<int>(shape.size()), {}, {}};
  std::copy(shape.begin(), shape.end(), tensor.shape.begin());
  int64_t stride = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    tensor.strides[axis] = stride;
    stride *= tensor.shape[axis];
  }
  return tensor;
}

uint64_t bytes_of(const Tensor& tensor) {
  if (!tensor.given) return 0;
  return static_cast<uint64_t>(tensor.strides[0] * tensor.shape[0]) *
         static_cast<uint64_t>(bits_of(tensor.dtype)) / 8;
}

Tensor& tensor_of(AttentionArgs& args, Operand operand) {
  return args.tensors[static_cast<size_t>(operand)];
}
const Tensor& tensor_of(const AttentionArgs& args, Operand operand) {
  return args.tensors[static_cast<size_t>(operand)];
}

ProblemShape shape_of(const AttentionArgs& args) {
  const Tensor &q = tensor_of(args, Operand::kQ), &k = tensor_of(args, Operand::kK);
  return {q.shape[0],
          q.shape[1],
          k.shape[1],
          q.shape[2],
          k.shape[2],
          q.shape[3],
          tensor_of(args, Operand::kV).shape[3]};
}

// Heads and rows of the block, repeated: head h of every batch is head h % heads of the block.
// Query heads come in whole groups, so those of a repeated key head are repeated with it.
void fill(DeviceBuffer& buffer, const Tensor& tensor, const HostTensor& block) {
  const int64_t heads = block.shape()[1], rows = block.shape()[2];
  const uint64_t row_bytes =
      static_cast<uint64_t>(tensor.shape[3]) * static_cast<uint64_t>(bits_of(tensor.dtype)) / 8;
  for (int64_t head = 0; head < tensor.shape[0] * tensor.shape[1]; ++head) {
    const auto source = static_cast<uint64_t>(head % tensor.shape[1] % heads * rows);
    for (int64_t row = 0; row < tensor.shape[2]; row += rows) {
      const auto count = static_cast<uint64_t>(std::min(rows, tensor.shape[2] - row));
      buffer.write(block.bytes().data() + source * row_bytes, count * row_bytes,
                   static_cast<uint64_t>(head * tensor.shape[2] + row) * row_bytes);
    }
  }
}

}  // namespace

ProblemShape block_shape(const ProblemShape& shape) {
  ProblemShape block = shape;
  block.b = std::min<int64_t>(shape.b, 1);
  block.hkv = std::min(shape.hkv, kBlockKeyHeads);
  block.hq = shape.hq / shape.hkv * block.hkv;
  block.m = std::min(shape.m, kBlockTokens);
  block.n = std::min(shape.n, kBlockTokens);
  return block;
}

AttentionArgs describe_args(const TensorContract& contract, const ProblemShape& s) {
  AttentionArgs args;
  tensor_of(args, Operand::kQ) = contiguous(contract.input, {s.b, s.hq, s.m, s.d});
  tensor_of(args, Operand::kK) = contiguous(contract.input, {s.b, s.hkv, s.n, s.d});
  tensor_of(args, Operand::kV) = contiguous(contract.input, {s.b, s.hkv, s.n, s.dv});
  tensor_of(args, Operand::kO) = contiguous(contract.output, {s.b, s.hq, s.m, s.dv});
  if (contract.lse) tensor_of(args, Operand::kLse) = contiguous(DType::kF32, {s.b, s.hq, s.m});
  return args;
}

PublicArgs::PublicArgs(const AttentionArgs& args) {
  const sagejit_tensor** const places[] = {&args_.q, &args_.k, &args_.v, &args_.o, &args_.lse};
  for (size_t i = 0; i < args.tensors.size(); ++i) {
    const Tensor& source = args.tensors[i];
    if (!source.given) continue;
    sagejit_tensor& target = tensors_[i];
    target.struct_size = sizeof(target);
    target.dtype = source.dtype == DType::kF16    ? SAGEJIT_F16
                   : source.dtype == DType::kBF16 ? SAGEJIT_BF16
                                                  : SAGEJIT_F32;
    target.data = reinterpret_cast<void*>(static_cast<uintptr_t>(source.address));
    target.ndim = source.rank;
    std::copy(source.shape.begin(), source.shape.end(), target.shape);
    std::copy(source.strides.begin(), source.strides.end(), target.strides);
    *places[i] = &target;
  }
  args_.struct_size = sizeof(args_);
  args_.workspace = reinterpret_cast<void*>(static_cast<uintptr_t>(args.workspace));
  args_.workspace_bytes = args.workspace_bytes;
}

uint64_t tensor_bytes(const AttentionArgs& args) {
  uint64_t bytes = 0;
  for (const Tensor& tensor : args.tensors) bytes += bytes_of(tensor);
  return bytes;
}

BenchProblem::BenchProblem(Device& device, const AttentionArgs& description,
                           uint64_t workspace_bytes, const DataOptions& data, int copies) {
  const reference::Inputs block =
      reference::make_inputs(data.distribution, block_shape(shape_of(description)),
                             tensor_of(description, Operand::kQ).dtype, data.seed);
  const HostTensor* const inputs[] = {&block.q, &block.k, &block.v};
  for (int i = 0; i < copies; ++i) {
    AttentionArgs args = description;
    for (size_t operand = 0; operand < args.tensors.size(); ++operand) {
      Tensor& tensor = args.tensors[operand];
      tensor.address = buffers_.emplace_back(device, bytes_of(tensor)).address();
      if (operand < std::size(inputs)) fill(buffers_.back(), tensor, *inputs[operand]);
    }
    args.workspace = buffers_.emplace_back(device, workspace_bytes).address();
    args.workspace_bytes = workspace_bytes;
    copies_.push_back(args);
  }
}

}  // namespace sagejit::cli
