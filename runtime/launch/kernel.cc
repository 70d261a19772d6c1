#include "runtime/launch/kernel.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
constexpr std::array<int64_t, 3> kGridLimits = {2147483647, 65535, 65535};
constexpr std::array<char, 3> kAxisNames = {'x', 'y', 'z'};

constexpr std::array<Symbol, kNumOperands> kAddressSymbols = {Symbol::kQ, Symbol::kK, Symbol::kV,
                                                              Symbol::kO, Symbol::kLse};

int size_of(ParamType type) {
  return type == ParamType::kI32 ? 4 : 8;
}

// Whether the symbol occurs in the expression as a word of its own.
bool mentions(const SizeExpr& expression, Symbol symbol) {
  constexpr std::string_view kWordCharacters =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
  const std::string_view text = expression.text();
  for (size_t begin = text.find_first_of(kWordCharacters); begin != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_not_of(kWordCharacters, begin), text.size());
    if (text.substr(begin, end - begin) == name_of(symbol)) return true;
    begin = text.find_first_of(kWordCharacters, end);
  }
  return false;
}

uint64_t round_up_to_alignment(uint64_t bytes) {
  uint64_t padded = 0;
  if (__builtin_add_overflow(bytes, kWorkspaceAlignment - 1, &padded)) {
    fail(ErrorKind::kArgument, "the workspace of this problem exceeds 64 bits");
  }
  return padded / kWorkspaceAlignment * kWorkspaceAlignment;
}

}  // namespace

Kernel::Kernel(std::shared_ptr<Device> device, Artifact artifact)
    : device_(std::move(device)), artifact_(std::move(artifact)) {
  const Plan& plan = artifact_.plan;
  if (plan.workspace.size() > kMaxBuffers) {
    fail(ErrorKind::kInternal, "the plan has {} workspace buffers; the launcher's limit is {}",
         plan.workspace.size(), kMaxBuffers);
  }
  for (size_t i = 0; i < plan.workspace.size(); ++i) {
    range_names_[i] = "workspace." + plan.workspace[i].name;
  }
  loaded_ = device_->load(artifact_);
  for (const KernelLaunch& launch : plan.launches) steps_.push_back(resolve(launch));
}

Kernel::Step Kernel::resolve(const KernelLaunch& launch) const {
  Step step;
  step.handle = loaded_->kernel(launch.kernel);
  for (const KernelParam& param : launch.params) {
    if (param.buffer >= static_cast<int>(artifact_.plan.workspace.size())) {
      fail(ErrorKind::kInternal, "parameter '{}' of kernel '{}' names workspace buffer {} of {}",
           param.name, launch.kernel, param.buffer, artifact_.plan.workspace.size());
    }
    const uint32_t size = static_cast<uint32_t>(size_of(param.type));
    step.param_bytes = (step.param_bytes + size - 1) / size * size;
    step.offsets.push_back(step.param_bytes);
    step.param_bytes += size;
    for (int i = 0; param.buffer < 0 && i < kNumOperands; ++i) {
      if (mentions(param.value, kAddressSymbols[i])) step.operands |= bit(static_cast<Operand>(i));
    }
  }
  if (step.param_bytes > kMaxParamBytes) {
    fail(ErrorKind::kInternal, "kernel '{}' takes {} bytes of parameters; the limit is {}",
         launch.kernel, step.param_bytes, kMaxParamBytes);
  }
  return step;
}

OperandSet Kernel::operands_of(PhaseSet phases) const {
  OperandSet result = 0;
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (contains(phases, artifact_.plan.launches[i].phase)) result |= steps_[i].operands;
  }
  return result;
}

Kernel::Layout Kernel::lay_out(SymbolValues symbols) const {
  Layout layout;
  for (size_t i = 0; i < artifact_.plan.workspace.size(); ++i) {
    const WorkspaceBuffer& buffer = artifact_.plan.workspace[i];
    const int64_t bytes = buffer.bytes.evaluate(symbols);
    if (bytes < 0) {
      fail(ErrorKind::kInternal, "workspace buffer '{}' has {} bytes", buffer.name, bytes);
    }
    layout.offsets[i] = layout.total_bytes;
    layout.bytes[i] = static_cast<uint64_t>(bytes);
    if (__builtin_add_overflow(layout.total_bytes, round_up_to_alignment(layout.bytes[i]),
                               &layout.total_bytes)) {
      fail(ErrorKind::kArgument, "the workspace of this problem exceeds 64 bits");
    }
  }
  return layout;
}

BoundArgs Kernel::bind(const AttentionArgs& args, OperandSet in_use) const {
  BoundArgs bound = bind_args(artifact_.tensors, args, in_use);
  bound.symbols[static_cast<size_t>(Symbol::kNumSms)] = device_->info().num_sms;
  return bound;
}

uint64_t Kernel::workspace_bytes(const AttentionArgs& args) const {
  const BoundArgs bound = bind(args, 0);
  return bound.empty ? 0 : lay_out(bound.symbols).total_bytes;
}

void Kernel::check_workspace(const AttentionArgs& args, const Layout& layout) const {
  if (layout.total_bytes == 0) return;
  if (args.workspace == 0) {
    fail(ErrorKind::kArgument, "workspace is null: this problem needs {} bytes",
         layout.total_bytes);
  }
  if (args.workspace_bytes < layout.total_bytes) {
    fail(ErrorKind::kArgument, "workspace_bytes is {}: this problem needs {} bytes",
         args.workspace_bytes, layout.total_bytes);
  }
  if (args.workspace % kWorkspaceAlignment != 0) {
    fail(ErrorKind::kArgument, "workspace is {:#x}: it must be aligned to {} bytes", args.workspace,
         kWorkspaceAlignment);
  }
  uint64_t end = 0;
  if (__builtin_add_overflow(args.workspace, layout.total_bytes, &end)) {
    fail(ErrorKind::kArgument, "workspace reaches beyond the 64-bit address space");
  }
}

std::array<uint32_t, 3> Kernel::evaluate_grid(const KernelLaunch& launch,
                                              SymbolValues symbols) const {
  std::array<uint32_t, 3> grid = {};
  for (int i = 0; i < 3; ++i) {
    const int64_t blocks = launch.grid[i].evaluate(symbols);
    if (blocks < 0) {
      fail(ErrorKind::kInternal, "grid.{} of kernel '{}' is {}", kAxisNames[i], launch.kernel,
           blocks);
    }
    if (blocks > kGridLimits[i]) {
      fail(ErrorKind::kUnsupported,
           "kernel '{}' needs {} blocks along grid.{} ({}), above the limit of {}: split the "
           "problem",
           launch.kernel, blocks, kAxisNames[i], launch.grid[i].text(), kGridLimits[i]);
    }
    grid[i] = static_cast<uint32_t>(blocks);
  }
  return grid;
}

void Kernel::pack_params(const KernelLaunch& launch, const Step& step, SymbolValues symbols,
                         const Layout& layout, uint64_t workspace, std::byte* out) const {
  for (size_t i = 0; i < launch.params.size(); ++i) {
    const KernelParam& param = launch.params[i];
    const int64_t value = param.buffer >= 0
                              ? static_cast<int64_t>(workspace + layout.offsets[param.buffer])
                              : param.value.evaluate(symbols);
    if (param.type != ParamType::kI32) {
      std::memcpy(out + step.offsets[i], &value, sizeof(value));
      continue;
    }
    const auto narrow = static_cast<int32_t>(value);
    if (narrow != value) {
      fail(ErrorKind::kUnsupported,
           "parameter '{}' of kernel '{}' is {} ({}), above the limit of {}: split the problem",
           param.name, launch.kernel, value, param.value.text(), INT32_MAX);
    }
    std::memcpy(out + step.offsets[i], &narrow, sizeof(narrow));
  }
}

// Neighbouring buffers are cleared by one call, the padding between them included.
void Kernel::clear_buffers(const Layout& layout, uint64_t workspace, Stream stream) const {
  const std::vector<WorkspaceBuffer>& buffers = artifact_.plan.workspace;
  for (size_t first = 0; first < buffers.size();) {
    if (!buffers[first].zeroed) {
      ++first;
      continue;
    }
    size_t last = first;
    while (last + 1 < buffers.size() && buffers[last + 1].zeroed) ++last;
    const uint64_t begin = layout.offsets[first];
    const uint64_t end = layout.offsets[last] + layout.bytes[last];
    if (end > begin) device_->memset_async(workspace + begin, 0, end - begin, stream);
    first = last + 1;
  }
}

void Kernel::launch(const AttentionArgs& args, PhaseSet phases, Stream stream) const {
  const BoundArgs bound = bind(args, operands_of(phases));
  if (bound.empty) return;
  const Layout layout = lay_out(bound.symbols);
  check_workspace(args, layout);

  Memory memory;
  int num_ranges = 0;
  for (; num_ranges < bound.num_ranges; ++num_ranges) {
    memory[num_ranges] = bound.ranges[num_ranges];
    device_->check_reachable(memory[num_ranges]);
  }
  if (layout.total_bytes) {
    device_->check_reachable({args.workspace, layout.total_bytes, true, "workspace"});
  }
  for (size_t i = 0; i < artifact_.plan.workspace.size(); ++i) {
    if (layout.bytes[i] == 0) continue;
    memory[num_ranges++] = {args.workspace + layout.offsets[i], layout.bytes[i], true,
                            range_names_[i].c_str()};
  }

  alignas(16) std::array<std::byte, kMaxParamBytes> params;
  // The first pass checks every step before anything is enqueued: a call that fails leaves no half.
  for (const bool enqueue : {false, true}) {
    if (enqueue && contains(phases, Phase::kQuantize)) {
      clear_buffers(layout, args.workspace, stream);
    }
    for (size_t i = 0; i < steps_.size(); ++i) {
      const KernelLaunch& launch = artifact_.plan.launches[i];
      if (!contains(phases, launch.phase)) continue;
      const std::array<uint32_t, 3> grid = evaluate_grid(launch, bound.symbols);
      if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) continue;
      pack_params(launch, steps_[i], bound.symbols, layout, args.workspace, params.data());
      if (!enqueue) continue;
      device_->launch({.kernel = steps_[i].handle,
                       .grid = grid,
                       .block_threads = static_cast<uint32_t>(launch.block_threads),
                       .dynamic_smem_bytes = static_cast<uint32_t>(launch.dynamic_smem_bytes),
                       .waits_for_previous = launch.waits_for_previous,
                       .params = std::span(params.data(), steps_[i].param_bytes),
                       .stream = stream,
                       .memory = std::span(memory.data(), static_cast<size_t>(num_ranges))});
    }
  }
}

}  // namespace sagejit
