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
    buffer_bytes_.push_back(program_.add(plan.workspace[i].bytes));
  }
  if (plan.launches.size() > kMaxLaunches) {
    fail(ErrorKind::kInternal, "the plan has {} launches; the launcher's limit is {}",
         plan.launches.size(), kMaxLaunches);
  }
  loaded_ = device_->load(artifact_);
  uint32_t param_bytes = 0;
  for (const KernelLaunch& launch : plan.launches) {
    steps_.push_back(resolve(launch, param_bytes));
    param_bytes = steps_.back().param_end;
  }
}

Kernel::Step Kernel::resolve(const KernelLaunch& launch, uint32_t param_begin) {
  constexpr uint32_t kAlignment = 16;
  Step step;
  step.param_begin = step.param_end = (param_begin + kAlignment - 1) / kAlignment * kAlignment;
  step.handle = loaded_->kernel(launch.kernel);
  for (size_t i = 0; i < 3; ++i) step.grid[i] = program_.add(launch.grid[i]);
  for (const KernelParam& param : launch.params) {
    if (param.buffer >= static_cast<int>(artifact_.plan.workspace.size())) {
      fail(ErrorKind::kInternal, "parameter '{}' of kernel '{}' names workspace buffer {} of {}",
           param.name, launch.kernel, param.buffer, artifact_.plan.workspace.size());
    }
    const uint32_t size = static_cast<uint32_t>(size_of(param.type));
    step.param_end = (step.param_end + size - 1) / size * size;
    const bool is_buffer = param.buffer >= 0;
    step.params.push_back({.is_buffer = is_buffer,
                           .is_32_bit = param.type == ParamType::kI32,
                           .index = is_buffer ? param.buffer : program_.add(param.value),
                           .offset = step.param_end});
    step.param_end += size;
    for (int i = 0; !is_buffer && i < kNumOperands; ++i) {
      if (mentions(param.value, kAddressSymbols[i])) step.operands |= bit(static_cast<Operand>(i));
    }
  }
  if (step.param_end > kMaxParamBytes) {
    fail(
        ErrorKind::kInternal,
        "the parameters of the plan's kernels up to '{}' take {} bytes; the launcher's limit is {}",
        launch.kernel, step.param_end, kMaxParamBytes);
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

Kernel::Layout Kernel::lay_out(const Values& values) const {
  Layout layout;
  for (size_t i = 0; i < artifact_.plan.workspace.size(); ++i) {
    const int64_t bytes = values[buffer_bytes_[i]];
    if (bytes < 0) {
      fail(ErrorKind::kInternal, "workspace buffer '{}' has {} bytes",
           artifact_.plan.workspace[i].name, bytes);
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
  if (bound.empty) return 0;
  Values values;
  program_.evaluate(bound.symbols, values);
  return lay_out(values).total_bytes;
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

std::array<uint32_t, 3> Kernel::grid_of(const KernelLaunch& launch, const Step& step,
                                        const Values& values) {
  std::array<uint32_t, 3> grid = {};
  for (int i = 0; i < 3; ++i) {
    const int64_t blocks = values[step.grid[i]];
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

void Kernel::pack_params(const KernelLaunch& launch, const Step& step, const Values& values,
                         const Layout& layout, uint64_t workspace, std::byte* out) {
  for (size_t i = 0; i < step.params.size(); ++i) {
    const Param& place = step.params[i];
    const int64_t value = place.is_buffer
                              ? static_cast<int64_t>(workspace + layout.offsets[place.index])
                              : values[place.index];
    if (!place.is_32_bit) {
      std::memcpy(out + place.offset, &value, sizeof(value));
      continue;
    }
    const auto narrow = static_cast<int32_t>(value);
    if (narrow != value) {
      const KernelParam& param = launch.params[i];
      fail(ErrorKind::kUnsupported,
           "parameter '{}' of kernel '{}' is {} ({}), above the limit of {}: split the problem",
           param.name, launch.kernel, value, param.value.text(), INT32_MAX);
    }
    std::memcpy(out + place.offset, &narrow, sizeof(narrow));
  }
}

// Neighbouring buffers are cleared at once, the padding between them included.
void Kernel::add_clears(const Layout& layout, uint64_t workspace, Call& call) const {
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
    if (end > begin) call.clears[call.num_clears++] = {workspace + begin, end - begin};
    first = last + 1;
  }
}

void Kernel::add_memory(const BoundArgs& bound, const Layout& layout, uint64_t workspace,
                        Call& call) const {
  for (int i = 0; i < bound.num_ranges; ++i) {
    call.arguments[call.num_arguments++] = call.memory[call.num_ranges++] = bound.ranges[i];
  }
  if (layout.total_bytes) {
    call.arguments[call.num_arguments++] = {workspace, layout.total_bytes, true, "workspace"};
  }
  for (size_t i = 0; i < artifact_.plan.workspace.size(); ++i) {
    if (layout.bytes[i] == 0) continue;
    call.memory[call.num_ranges++] = {workspace + layout.offsets[i], layout.bytes[i], true,
                                      range_names_[i].c_str()};
  }
}

void Kernel::add_launch(size_t index, const Values& values, const Layout& layout,
                        uint64_t workspace, Call& call) const {
  const KernelLaunch& launch = artifact_.plan.launches[index];
  const Step& step = steps_[index];
  const std::array<uint32_t, 3> grid = grid_of(launch, step, values);
  if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return;
  pack_params(launch, step, values, layout, workspace, call.params.data());
  call.launches[call.num_launches++] = {
      .kernel = step.handle,
      .grid = grid,
      .block_threads = static_cast<uint32_t>(launch.block_threads),
      .dynamic_smem_bytes = static_cast<uint32_t>(launch.dynamic_smem_bytes),
      .waits_for_previous = launch.waits_for_previous,
      .params =
          std::span(call.params).subspan(step.param_begin, step.param_end - step.param_begin)};
}

// Every step is checked before anything is enqueued: a call that fails leaves no half.
void Kernel::launch(const AttentionArgs& args, PhaseSet phases, Stream stream) const {
  BoundArgs bound = bind(args, operands_of(phases));
  if (bound.empty) return;
  bound.symbols[static_cast<size_t>(Symbol::kAttendsAlone)] = !contains(phases, Phase::kQuantize);
  Values values;
  program_.evaluate(bound.symbols, values);
  const Layout layout = lay_out(values);
  check_workspace(args, layout);

  Call call;
  add_memory(bound, layout, args.workspace, call);
  if (contains(phases, Phase::kQuantize)) add_clears(layout, args.workspace, call);
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (!contains(phases, artifact_.plan.launches[i].phase)) continue;
    add_launch(i, values, layout, args.workspace, call);
  }
  device_->submit({.stream = stream,
                   .arguments = std::span(call.arguments).first(call.num_arguments),
                   .clears = std::span(call.clears).first(call.num_clears),
                   .launches = std::span(call.launches).first(call.num_launches),
                   .memory = std::span(call.memory).first(call.num_ranges)});
}

}  // namespace sagejit
