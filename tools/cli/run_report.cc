#include "tools/cli/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/cli/artifact_report.h"
#include "tools/cli/shape.h"
#include "tools/cli/statistics.h"
#include "tools/cli/table.h"
#include "tools/cli/work.h"

namespace sagejit::cli {
namespace {

using nlohmann::json;
using reference::ProblemShape;

std::vector<BuildStage> all_stages_of(const RunReport& report) {
  double run_ms = 0;
  for (const LayerReport& layer : report.layers) run_ms += median(layer.times.total_ms);
  std::vector<BuildStage> stages = stages_of(report.build);
  stages.insert(stages.begin(), {"parse", "parse", report.parse_ms});
  stages.insert(stages.end(), {{"load", "look up, load", report.load_ms},
                               {"run", "run", run_ms},
                               {"reference", "reference", report.reference_ms}});
  return stages;
}

std::string head_text(const Judgement& j) {
  return fmt::format("{:.6f} (b{} h{})", j.metrics.worst_head.cosine, j.metrics.worst_b,
                     j.metrics.worst_h);
}

std::string accuracy_table(const RunReport& report) {
  Table table({"layer", ">cosine", ">ideal", ">worst head", ">rel. L1", ">RMSE", ">worst row",
               ">max error", ">NaN/Inf", ">LSE error", ">ideal LSE", ""});
  for (const LayerReport& layer : report.layers) {
    const Judgement& j = layer.judgement;
    const reference::OutputMetrics& m = j.metrics;
    table.add({layer.name, fmt::format("{:.6f}", m.overall.cosine),
               j.ideal_cosine ? fmt::format("{:.6f}", *j.ideal_cosine) : "-", head_text(j),
               fmt::format("{:.4f}", m.overall.relative_l1), fmt::format("{:.2e}", m.overall.rmse),
               fmt::format("{:.4f}", m.worst_row_relative_l1),
               fmt::format("{:.2e}", m.max_abs_error), fmt::format("{}", m.num_non_finite),
               j.lse_error ? fmt::format("{:.2e}", *j.lse_error) : "-",
               j.ideal_lse_error ? fmt::format("{:.2e}", *j.ideal_lse_error) : "-",
               j.passed() ? "ok" : "FAIL"});
  }
  return table.text("  ");
}

double tflops(const RunReport& report, const ProblemShape& s, double ms) {
  return attention_flops(report.mask, s) / (ms * 1e9);
}

std::string time_table(const RunReport& report) {
  Table table({"layer", "shape", ">total ms", ">least", ">quantize", ">attend", ">TFLOP/s",
               ">attend alone", ">workspace"});
  for (const LayerReport& layer : report.layers) {
    const double total = median(layer.times.total_ms), attend = median(layer.times.attend_ms);
    const bool split = !layer.times.attend_ms.empty();
    const double least =
        *std::min_element(layer.times.total_ms.begin(), layer.times.total_ms.end());
    table.add({layer.name, shape_text(layer.shape), fmt::format("{:.4f}", total),
               fmt::format("{:.4f}", least),
               split ? fmt::format("{:.4f}", median(layer.times.quantize_ms)) : "-",
               split ? fmt::format("{:.4f}", attend) : "-",
               fmt::format("{:.3g}", tflops(report, layer.shape, total)),
               split ? fmt::format("{:.3g}", tflops(report, layer.shape, attend)) : "-",
               fmt::format("{:.1f} KB", static_cast<double>(layer.workspace_bytes) / 1e3)});
  }
  return table.text("  ");
}

std::string verdict_text(const RunReport& report) {
  std::string text;
  for (const LayerReport& layer : report.layers) {
    for (const std::string& failure : layer.judgement.failures) {
      text += fmt::format("  {}: {}\n", layer.name, failure);
    }
  }
  return fmt::format(
      "{}verdict: {} (cosine at least {}, no NaN or infinity, LSE within {} of quantization's own "
      "error)\n",
      text, report.passed() ? "PASS" : "FAIL", report.bar, kLseMargin);
}

json layer_json(const RunReport& report, const LayerReport& layer) {
  const Judgement& j = layer.judgement;
  const reference::OutputMetrics& m = j.metrics;
  json result = {{"name", layer.name},
                 {"shape", shape_json(layer.shape)},
                 {"cosine", m.overall.cosine},
                 {"relative_l1", m.overall.relative_l1},
                 {"rmse", m.overall.rmse},
                 {"worst_head",
                  {{"b", m.worst_b},
                   {"h", m.worst_h},
                   {"cosine", m.worst_head.cosine},
                   {"relative_l1", m.worst_head.relative_l1},
                   {"rmse", m.worst_head.rmse}}},
                 {"worst_row",
                  {{"b", m.worst_row_b},
                   {"h", m.worst_row_h},
                   {"row", m.worst_row},
                   {"relative_l1", m.worst_row_relative_l1}}},
                 {"max_abs_error", m.max_abs_error},
                 {"num_non_finite", m.num_non_finite},
                 {"lse_max_abs_error", j.lse_error ? json(*j.lse_error) : json()},
                 {"ideal_lse_max_abs_error", j.ideal_lse_error ? json(*j.ideal_lse_error) : json()},
                 {"ideal_cosine", j.ideal_cosine ? json(*j.ideal_cosine) : json()},
                 {"failures", j.failures},
                 {"passed", j.passed()},
                 {"total_ms", layer.times.total_ms},
                 {"quantize_ms", layer.times.quantize_ms},
                 {"attend_ms", layer.times.attend_ms},
                 {"workspace_bytes", layer.workspace_bytes}};
  result["tflops"] = tflops(report, layer.shape, median(layer.times.total_ms));
  return result;
}

json resources_json(const Artifact& artifact) {
  json list = json::array();
  for (const KernelResources& r : artifact.resources) {
    list.push_back({{"kernel", r.kernel},
                    {"registers", r.registers},
                    {"spill_store_bytes", r.spill_store_bytes},
                    {"spill_load_bytes", r.spill_load_bytes},
                    {"stack_bytes", r.stack_bytes},
                    {"static_smem_bytes", r.static_smem_bytes}});
  }
  return list;
}

}  // namespace

bool RunReport::passed() const {
  return std::all_of(layers.begin(), layers.end(),
                     [](const LayerReport& layer) { return layer.judgement.passed(); });
}

std::string to_text(const RunReport& report) {
  std::string text = fmt::format(
      "variant   {}\ndevice    {} ({}), {}\nschedule  {}\n{}cache     {}\n", report.variant_name,
      report.device.name, report.device.product, report.device.target->name,
      report.artifact.schedule_text,
      describe_toolchain(report.artifact.backend, report.artifact.assembler), report.cache);
  if (!report.why_no_gpu.empty()) {
    text += fmt::format("no GPU    {}; its times are the emulator's\n", report.why_no_gpu);
  }
  return text + "\n" + describe_resources(report.artifact) + "\n" +
         stage_table(all_stages_of(report)) + "\n" + accuracy_table(report) + "\n" +
         time_table(report) + "\n" + verdict_text(report);
}

std::string to_json_text(const RunReport& report) {
  json result = {{"variant", report.variant_name},
                 {"device",
                  {{"name", report.device.name},
                   {"product", report.device.product},
                   {"target", report.device.target->name},
                   {"why_no_gpu", report.why_no_gpu}}},
                 {"schedule", report.artifact.schedule_text},
                 {"backend", report.artifact.backend},
                 {"assembler", report.artifact.assembler},
                 {"cache", report.cache},
                 {"resources", resources_json(report.artifact)},
                 {"cosine_bar", report.bar},
                 {"passed", report.passed()}};
  for (const BuildStage& stage : all_stages_of(report)) {
    if (!stage.key.empty()) result["stages_ms"][std::string(stage.key)] = stage.ms;
  }
  result["compiled_kernels"] = json::array();
  for (const KernelTime& kernel : report.build.compile.kernels) {
    result["compiled_kernels"].push_back({{"kernel", kernel.kernel},
                                          {"backend_ms", kernel.backend_ms},
                                          {"assemble_ms", kernel.assemble_ms}});
  }
  result["layers"] = json::array();
  for (const LayerReport& layer : report.layers)
    result["layers"].push_back(layer_json(report, layer));
  return result.dump(2) + "\n";
}

}  // namespace sagejit::cli
