#include "runtime/cache/artifact_json.h"

#include <nlohmann/json.hpp>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 3> kParamTypeNames = {"pointer", "i64", "i32"};
constexpr std::array<std::string_view, 2> kPhaseNames = {"quantize", "attend"};
constexpr std::array<DType, 10> kDTypes = {DType::kF16,  DType::kBF16, DType::kF32, DType::kE4M3,
                                           DType::kE5M2, DType::kE2M1, DType::kS8,  DType::kU8,
                                           DType::kS4,   DType::kS32};

// The enumerator whose name stands at its index in `names`.
template <typename Enum, size_t kCount>
Enum enum_named(const std::array<std::string_view, kCount>& names, const std::string& name) {
  for (size_t i = 0; i < kCount; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
  }
  fail(ErrorKind::kInternal, "unknown name '{}' in the metadata of an artifact", name);
}

DType dtype_named(const std::string& name) {
  for (const DType type : kDTypes) {
    if (name_of(type) == name) return type;
  }
  fail(ErrorKind::kInternal, "unknown element type '{}' in the metadata of an artifact", name);
}

template <typename T, typename Read>
std::vector<T> read_list(const json& list, Read read) {
  if (!list.is_array()) fail(ErrorKind::kInternal, "the metadata of an artifact lacks a list");
  std::vector<T> result;
  for (const json& item : list) result.push_back(read(item));
  return result;
}

template <typename T, typename Write>
json write_list(const std::vector<T>& list, Write write) {
  json result = json::array();
  for (const T& item : list) result.push_back(write(item));
  return result;
}

json write_param(const KernelParam& param) {
  return {{"name", param.name},
          {"type", kParamTypeNames[static_cast<int>(param.type)]},
          {"buffer", param.buffer},
          {"value", param.value.text()}};
}

KernelParam read_param(const json& item) {
  return {.name = item.at("name"),
          .type = enum_named<ParamType>(kParamTypeNames, item.at("type")),
          .buffer = item.at("buffer"),
          .value = SizeExpr(item.at("value").get<std::string>())};
}

json write_launch(const KernelLaunch& launch) {
  return {{"kernel", launch.kernel},
          {"phase", kPhaseNames[static_cast<int>(launch.phase)]},
          {"grid", {launch.grid[0].text(), launch.grid[1].text(), launch.grid[2].text()}},
          {"block_threads", launch.block_threads},
          {"dynamic_smem_bytes", launch.dynamic_smem_bytes},
          {"waits_for_previous", launch.waits_for_previous},
          {"params", write_list(launch.params, write_param)}};
}

KernelLaunch read_launch(const json& item) {
  KernelLaunch launch;
  launch.kernel = item.at("kernel");
  launch.phase = enum_named<Phase>(kPhaseNames, item.at("phase"));
  for (size_t i = 0; i < 3; ++i) {
    launch.grid[i] = SizeExpr(item.at("grid").at(i).get<std::string>());
  }
  launch.block_threads = item.at("block_threads");
  launch.dynamic_smem_bytes = item.at("dynamic_smem_bytes");
  launch.waits_for_previous = item.at("waits_for_previous");
  launch.params = read_list<KernelParam>(item.at("params"), read_param);
  return launch;
}

json write_buffer(const WorkspaceBuffer& buffer) {
  return {{"name", buffer.name}, {"bytes", buffer.bytes.text()}, {"zeroed", buffer.zeroed}};
}

WorkspaceBuffer read_buffer(const json& item) {
  return {.name = item.at("name"),
          .bytes = SizeExpr(item.at("bytes").get<std::string>()),
          .zeroed = item.at("zeroed")};
}

json write_module(const KernelModule& module) {
  return {{"kernel", module.kernel},
          {"ptx_bytes", module.ptx.size()},
          {"cubin_bytes", module.cubin.size()}};
}

// Cuts the next `item.at(bytes)` bytes off a section.
std::string_view take(std::string_view& section, const json& item, const char* bytes) {
  const uint64_t size = item.at(bytes);
  if (size > section.size()) {
    fail(ErrorKind::kInternal, "{} of an artifact's module reach beyond their section", bytes);
  }
  const std::string_view code = section.substr(0, size);
  section.remove_prefix(size);
  return code;
}

std::vector<KernelModule> read_modules(const json& list, CodeSections code) {
  auto modules = read_list<KernelModule>(list, [&](const json& item) {
    const std::string_view ptx = take(code.ptx, item, "ptx_bytes");
    const std::string_view cubin = take(code.cubin, item, "cubin_bytes");
    return KernelModule{item.at("kernel"), std::string(ptx), {cubin.begin(), cubin.end()}};
  });
  if (!code.ptx.empty() || !code.cubin.empty()) {
    fail(ErrorKind::kInternal, "an artifact has code that belongs to none of its modules");
  }
  return modules;
}

json write_resources(const KernelResources& kernel) {
  return {{"kernel", kernel.kernel},
          {"registers", kernel.registers},
          {"spill_store_bytes", kernel.spill_store_bytes},
          {"spill_load_bytes", kernel.spill_load_bytes},
          {"stack_bytes", kernel.stack_bytes},
          {"static_smem_bytes", kernel.static_smem_bytes}};
}

KernelResources read_resources(const json& item) {
  return {.kernel = item.at("kernel"),
          .registers = item.at("registers"),
          .spill_store_bytes = item.at("spill_store_bytes"),
          .spill_load_bytes = item.at("spill_load_bytes"),
          .stack_bytes = item.at("stack_bytes"),
          .static_smem_bytes = item.at("static_smem_bytes")};
}

json write_contract(const TensorContract& contract) {
  return {{"head_dim", contract.head_dim},
          {"value_head_dim", contract.value_head_dim},
          {"input", name_of(contract.input)},
          {"output", name_of(contract.output)},
          {"lse", contract.lse}};
}

TensorContract read_contract(const json& item) {
  return {.head_dim = item.at("head_dim"),
          .value_head_dim = item.at("value_head_dim"),
          .input = dtype_named(item.at("input")),
          .output = dtype_named(item.at("output")),
          .lse = item.at("lse")};
}

}  // namespace

json to_json(const Artifact& artifact) {
  return {{"variant_name", artifact.variant_name},
          {"variant", artifact.variant_text},
          {"schedule", artifact.schedule_text},
          {"target", artifact.target},
          {"backend", artifact.backend},
          {"assembler", artifact.assembler},
          {"tensors", write_contract(artifact.tensors)},
          {"workspace", write_list(artifact.plan.workspace, write_buffer)},
          {"launches", write_list(artifact.plan.launches, write_launch)},
          {"modules", write_list(artifact.modules, write_module)},
          {"resources", write_list(artifact.resources, write_resources)},
          {"assembler_log", artifact.assembler_log}};
}

Artifact artifact_from_json(const json& json, CodeSections code) {
  Artifact artifact;
  artifact.variant_name = json.at("variant_name");
  artifact.variant_text = json.at("variant");
  artifact.schedule_text = json.at("schedule");
  artifact.target = json.at("target");
  artifact.backend = json.at("backend");
  artifact.assembler = json.at("assembler");
  artifact.tensors = read_contract(json.at("tensors"));
  artifact.plan.workspace = read_list<WorkspaceBuffer>(json.at("workspace"), read_buffer);
  artifact.plan.launches = read_list<KernelLaunch>(json.at("launches"), read_launch);
  artifact.modules = read_modules(json.at("modules"), code);
  artifact.resources = read_list<KernelResources>(json.at("resources"), read_resources);
  artifact.assembler_log = json.at("assembler_log");
  return artifact;
}

}  // namespace sagejit
