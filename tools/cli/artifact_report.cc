#include "tools/cli/artifact_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "tools/cli/table.h"

namespace sagejit::cli {
namespace {

int dynamic_smem_bytes(const Artifact& artifact, const std::string& kernel) {
  int bytes = 0;
  for (const KernelLaunch& launch : artifact.plan.launches) {
    if (launch.kernel == kernel) bytes = std::max(bytes, launch.dynamic_smem_bytes);
  }
  return bytes;
}

// The expression for the heads that share a tile, of which many others are made; may be none.
constexpr std::string_view kPackedHeads = "packed_heads";
std::string packed_heads_of(const Plan& plan) {
  for (const KernelLaunch& launch : plan.launches) {
    for (const KernelParam& param : launch.params) {
      if (param.name == kPackedHeads) return param.value.text();
    }
  }
  return "";
}

// With its name in its place.
std::string readable(const SizeExpr& expression, const std::string& packed_heads) {
  std::string text = expression.text();
  for (size_t at = 0; !packed_heads.empty();) {
    at = text.find(packed_heads, at);
    if (at == std::string::npos) break;
    text.replace(at, packed_heads.size(), kPackedHeads);
  }
  return text;
}

}  // namespace

std::string describe_launches(const Plan& plan, std::span<const int> smem_bytes) {
  const std::string packed_heads = packed_heads_of(plan);
  const bool has_smem = !smem_bytes.empty();
  std::vector<std::string> titles = {"step", "kernel", "phase", ">threads"};
  if (has_smem) titles.emplace_back(">shared memory");
  titles.emplace_back("grid");
  Table table(titles);
  for (size_t i = 0; i < plan.launches.size(); ++i) {
    const KernelLaunch& launch = plan.launches[i];
    std::vector<std::string> cells = {fmt::format("{}", i + 1), launch.kernel,
                                      launch.phase == Phase::kQuantize ? "quantize" : "attend",
                                      fmt::format("{}", launch.block_threads)};
    if (has_smem) cells.push_back(fmt::format("{} B", smem_bytes[i]));
    std::vector<std::string> grid;
    for (const SizeExpr& size : launch.grid) grid.push_back(readable(size, packed_heads));
    cells.push_back(fmt::format("{}", fmt::join(grid, "  x  ")));
    table.add(std::move(cells));
  }
  return table.text("  ");
}

std::string describe_workspace(const Plan& plan) {
  const std::string packed_heads = packed_heads_of(plan);
  Table table({"workspace", "bytes"});
  for (const WorkspaceBuffer& buffer : plan.workspace) {
    table.add(
        {buffer.name, readable(buffer.bytes, packed_heads) + (buffer.zeroed ? "  (zeroed)" : "")});
  }
  std::string text = table.empty() ? "  no workspace\n" : table.text("  ");
  if (packed_heads.empty()) return text;
  return fmt::format("{}\n  {}, query heads that share tiles:\n    {}\n", text, kPackedHeads,
                     packed_heads);
}

std::string describe_toolchain(std::string_view backend, std::string_view assembler) {
  std::string text = fmt::format("back end  {}\n", backend);
  if (!assembler.empty()) text += fmt::format("assembler {}\n", assembler);
  return text;
}

std::string describe_resources(const Artifact& artifact) {
  if (artifact.resources.empty()) return "  not assembled: registers are unknown\n";
  Table table(
      {"kernel", ">registers", ">spill stores", ">spill loads", ">stack", ">shared memory"});
  for (const KernelResources& r : artifact.resources) {
    table.add({r.kernel, fmt::format("{}", r.registers), fmt::format("{} B", r.spill_store_bytes),
               fmt::format("{} B", r.spill_load_bytes), fmt::format("{} B", r.stack_bytes),
               fmt::format("{} B", r.static_smem_bytes + dynamic_smem_bytes(artifact, r.kernel))});
  }
  return table.text("  ");
}

std::string describe_artifact(const Artifact& artifact) {
  std::string variant;
  for (size_t begin = 0; begin < artifact.variant_text.size();) {
    const size_t end =
        std::min(artifact.variant_text.find('\n', begin), artifact.variant_text.size());
    variant += "  " + artifact.variant_text.substr(begin, end - begin) + "\n";
    begin = end + 1;
  }
  size_t ptx_bytes = 0, cubin_bytes = 0;
  for (const KernelModule& module : artifact.modules) {
    ptx_bytes += module.ptx.size();
    cubin_bytes += module.cubin.size();
  }
  return fmt::format(
      "variant   {}\ntarget    {}\n{}schedule  {}\nPTX       {} bytes\ncubin     {} "
      "bytes\n\n{}\n{}\n{}\n"
      "canonical variant:\n{}",
      artifact.variant_name, artifact.target,
      describe_toolchain(artifact.backend, artifact.assembler), artifact.schedule_text, ptx_bytes,
      cubin_bytes, describe_resources(artifact), describe_launches(artifact.plan),
      describe_workspace(artifact.plan), variant);
}

}  // namespace sagejit::cli
