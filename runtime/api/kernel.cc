#include <algorithm>

#include "runtime/api/handles.h"

namespace sagejit::api {
namespace {

// Dtypes that a caller's tensor can have, by their public number.
DType dtype_of(int32_t number, const char* name) {
  switch (number) {
    case SAGEJIT_F16:
      return DType::kF16;
    case SAGEJIT_BF16:
      return DType::kBF16;
    case SAGEJIT_F32:
      return DType::kF32;
    default:
      fail(ErrorKind::kArgument, "{}.dtype is {}: use SAGEJIT_F16, SAGEJIT_BF16 or SAGEJIT_F32",
           name, number);
  }
}

Tensor read_tensor(const sagejit_tensor* given, const char* name) {
  if (!given) return {};
  const auto source = read_struct(given, sizeof(sagejit_tensor), name);
  if (source.ndim < 1 || source.ndim > kMaxRank) {
    fail(ErrorKind::kArgument, "{}.ndim is {}: tensors have 1 to {} axes", name, source.ndim,
         kMaxRank);
  }
  if (source.reserved != 0) {
    fail(ErrorKind::kArgument, "{}.reserved is {}: set it to 0", name, source.reserved);
  }
  Tensor tensor;
  tensor.given = true;
  tensor.address = reinterpret_cast<uintptr_t>(source.data);
  tensor.dtype = dtype_of(source.dtype, name);
  tensor.rank = source.ndim;
  std::copy_n(source.shape, tensor.rank, tensor.shape.begin());
  std::copy_n(source.strides, tensor.rank, tensor.strides.begin());
  return tensor;
}

AttentionArgs read_args(const sagejit_attention_args* given) {
  const auto source = read_struct(given, sizeof(sagejit_attention_args), "args");
  if (source.reserved != 0) {
    fail(ErrorKind::kArgument, "args.reserved is {}: set it to 0", source.reserved);
  }
  const std::array<const sagejit_tensor*, kNumOperands> tensors = {source.q, source.k, source.v,
                                                                   source.o, source.lse};
  AttentionArgs args;
  for (int i = 0; i < kNumOperands; ++i) {
    args.tensors[i] = read_tensor(tensors[i], kOperandNames[i]);
  }
  args.workspace = reinterpret_cast<uintptr_t>(source.workspace);
  args.workspace_bytes = source.workspace_bytes;
  return args;
}

PhaseSet read_phases(uint32_t phases) {
  if (phases == 0 || (phases & ~uint32_t{SAGEJIT_BOTH})) {
    fail(ErrorKind::kArgument,
         "phases is {:#x}: use SAGEJIT_QUANTIZE, SAGEJIT_ATTEND or SAGEJIT_BOTH", phases);
  }
  return static_cast<PhaseSet>(phases);
}

std::string describe(const sagejit_kernel& kernel) {
  const Artifact& artifact = kernel.impl->artifact();
  std::string text = fmt::format(
      "variant: {}\ndevice: {}\ntarget: {}\nbackend: {}\n{}schedule: {}\norigin: {}\n",
      artifact.variant_name, kernel.impl->device().info().name, artifact.target, artifact.backend,
      artifact.assembler.empty() ? "" : "assembler: " + artifact.assembler + "\n",
      artifact.schedule_text, name_of(kernel.origin));
  for (const KernelLaunch& launch : artifact.plan.launches) {
    text += fmt::format("kernel {}: {} threads, {} B dynamic shared memory", launch.kernel,
                        launch.block_threads, launch.dynamic_smem_bytes);
    const auto resources =
        std::find_if(artifact.resources.begin(), artifact.resources.end(),
                     [&](const KernelResources& item) { return item.kernel == launch.kernel; });
    if (resources != artifact.resources.end()) {
      text += fmt::format(", {} B static, {} registers, {} B spilled", resources->static_smem_bytes,
                          resources->registers, resources->spill_store_bytes);
    }
    text += '\n';
  }
  return text;
}

}  // namespace
}  // namespace sagejit::api

using namespace sagejit;  // NOLINT: the functions below are C
using namespace sagejit::api;

extern "C" {

sagejit_status sagejit_kernel_get(const sagejit_context* context, const sagejit_variant* variant,
                                  const sagejit_device* device, sagejit_kernel** out,
                                  sagejit_error** err) {
  return guarded(err, [&] {
    clear_out(out);
    Context& service = *required(context, "context").impl;
    const KernelRequest& request = required(variant, "variant").request;
    FoundKernel found = service.get(request, required(device, "device").impl);
    *out = new sagejit_kernel{std::move(found.kernel), found.origin};
  });
}

void sagejit_kernel_destroy(sagejit_kernel* kernel) {
  delete kernel;
}

sagejit_status sagejit_kernel_workspace(const sagejit_kernel* kernel,
                                        const sagejit_attention_args* args, size_t* bytes,
                                        sagejit_error** err) {
  return guarded(err, [&] {
    required(bytes, "bytes") = 0;
    *bytes = required(kernel, "kernel").impl->workspace_bytes(read_args(args));
  });
}

sagejit_status sagejit_kernel_launch(const sagejit_kernel* kernel,
                                     const sagejit_attention_args* args, uint32_t phases,
                                     sagejit_stream stream, sagejit_error** err) {
  return guarded(err, [&] {
    required(kernel, "kernel").impl->launch(read_args(args), read_phases(phases), stream);
  });
}

sagejit_status sagejit_kernel_describe(const sagejit_kernel* kernel, char* buffer, size_t* bytes) {
  return guarded(nullptr, [&] {
    const std::string text = describe(required(kernel, "kernel"));
    const size_t capacity = required(bytes, "bytes");
    *bytes = text.size() + 1;
    if (!buffer) return;
    const size_t copied = std::min(text.size(), capacity ? capacity - 1 : 0);
    if (capacity) {
      std::memcpy(buffer, text.data(), copied);
      buffer[copied] = '\0';
    }
    if (copied < text.size()) {
      fail(ErrorKind::kArgument, "the buffer has {} bytes, {} are needed", capacity,
           text.size() + 1);
    }
  });
}

}  // extern "C"
