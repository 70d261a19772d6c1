#include "tools/cli/explain_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "compiler/sema/print.h"
#include "tools/cli/artifact_report.h"
#include "tools/cli/table.h"

namespace sagejit::cli {
namespace {

using nlohmann::json;

std::string formulas_text(const Explanation& e) {
  Table table({"what", "formula"});
  for (const Formula& formula : e.formulas) {
    for (size_t i = 0; i < formula.lines.size(); ++i) {
      table.add({i == 0 ? formula.subject : "", formula.lines[i]});
    }
  }
  return table.text("  ");
}

// A column for what stands behind a vote.
std::string ops_text(const cost::LoopCount& loop) {
  Table table({"operation", ">a warp, an iteration", ">rarely more"});
  std::vector<cost::OpCount> all = loop.ops;
  for (const cost::OpCount& rare : loop.rare) {
    const bool known = std::any_of(all.begin(), all.end(), [&](const cost::OpCount& op) {
      return cost::name_of(op) == cost::name_of(rare);
    });
    if (!known) all.push_back({rare.op, rare.columns, rare.a_in_registers, 0});
  }
  for (const cost::OpCount& op : all) {
    int rarely = 0;
    for (const cost::OpCount& rare : loop.rare) {
      if (cost::name_of(rare) == cost::name_of(op)) rarely = rare.count;
    }
    table.add(
        {cost::name_of(op), fmt::format("{}", op.count), rarely ? fmt::format("{}", rarely) : ""});
  }
  return table.text("    ");
}

std::string loops_text(const Explanation& e) {
  std::string text;
  for (const ExplainedKernel& kernel : e.kernels) {
    for (const cost::LoopCount& loop : kernel.loops) {
      const std::string label = !loop.label.empty()   ? loop.label
                                : loop.has_products() ? "products"
                                                      : "bulk copies";
      text +=
          fmt::format("  {}, loop: {}{}\n{}", kernel.kernel, label,
                      loop.bulk_copy_bytes ? fmt::format(" ({} bytes)", loop.bulk_copy_bytes) : "",
                      ops_text(loop));
    }
  }
  return text;
}

std::string tflops_text(double tflops) {
  return std::isfinite(tflops) ? fmt::format("{:.0f}", tflops) : "-";
}

std::string units_text(const Explanation& e) {
  Table table({"unit", ">clocks of a tile", ">TFLOPS at most", ""});
  for (int i = 0; i < cost::kNumUnits; ++i) {
    const auto unit = static_cast<cost::Unit>(i);
    table.add({std::string(cost::name_of(unit)), fmt::format("{:.0f}", e.roofline.tile_clocks[i]),
               tflops_text(e.roofline.tflops_by(unit, *e.throughput)),
               unit == e.roofline.binding ? "binds" : ""});
  }
  return table.text("  ");
}

std::string limit_text(const Explanation& e) {
  if (!e.throughput) {
    return fmt::format(
        "predicted limit: none, as the rates of mma.sync's products on {} are not published\n",
        e.target->name);
  }
  const Throughput& t = *e.throughput;
  const ExplainedProblem& p = e.problem;
  return fmt::format(
      "predicted limit, not measured: a tile of {} queries by {} keys in the steady state, units "
      "overlapping perfectly,\non {} ({} multiprocessors at {} MHz, the data sheet's clock)\n{}\n"
      "predicted least times for b={} hq={} hkv={} m={} n={}, masks not counted: prepare {:.3f} ms "
      "({:.0f} MB at {} GB/s), attend {:.3f} ms\n(limited by {}; its {:.0f} MB take {:.3f} ms)\n",
      e.schedule.block_m, e.schedule.block_n, t.gpu, t.num_sms, t.clock_mhz, units_text(e), p.b,
      p.hq, p.hkv, p.m, p.n, e.times.quantize_dram_ms, e.traffic.quantize_bytes / 1e6, t.dram_gb_s,
      std::max(e.times.attend_units_ms, e.times.attend_dram_ms),
      e.times.attend_units_ms >= e.times.attend_dram_ms ? cost::name_of(e.roofline.binding)
                                                        : "DRAM",
      e.traffic.attend_bytes / 1e6, e.times.attend_dram_ms);
}

json ops_json(const std::vector<cost::OpCount>& ops) {
  json result = json::object();
  for (const cost::OpCount& op : ops) result[cost::name_of(op)] = op.count;
  return result;
}

json loops_json(const ExplainedKernel& kernel) {
  json loops = json::array();
  for (const cost::LoopCount& loop : kernel.loops) {
    loops.push_back({{"label", loop.label},
                     {"ops_per_warp", ops_json(loop.ops)},
                     {"rare_ops_per_warp", ops_json(loop.rare)},
                     {"bulk_copy_bytes", loop.bulk_copy_bytes}});
  }
  return loops;
}

json plan_json(const Explanation& e) {
  json launches = json::array(), workspace = json::array();
  for (size_t i = 0; i < e.plan.launches.size(); ++i) {
    const KernelLaunch& launch = e.plan.launches[i];
    launches.push_back(
        {{"kernel", launch.kernel},
         {"phase", launch.phase == Phase::kQuantize ? "quantize" : "attend"},
         {"block_threads", launch.block_threads},
         {"smem_bytes", e.kernels[i].smem_bytes},
         {"grid", {launch.grid[0].text(), launch.grid[1].text(), launch.grid[2].text()}},
         {"loops", loops_json(e.kernels[i])}});
  }
  for (const WorkspaceBuffer& buffer : e.plan.workspace) {
    workspace.push_back(
        {{"name", buffer.name}, {"bytes", buffer.bytes.text()}, {"zeroed", buffer.zeroed}});
  }
  return {{"launches", launches}, {"workspace", workspace}};
}

json limit_json(const Explanation& e) {
  if (!e.throughput) return nullptr;
  const Throughput& t = *e.throughput;
  json units = json::object();
  for (int i = 0; i < cost::kNumUnits; ++i) {
    const auto unit = static_cast<cost::Unit>(i);
    const double tflops = e.roofline.tflops_by(unit, t);
    units[std::string(cost::name_of(unit))] = {
        {"tile_clocks", e.roofline.tile_clocks[i]},
        {"tflops", std::isfinite(tflops) ? json(tflops) : json()}};
  }
  const ExplainedProblem& p = e.problem;
  return {{"measured", false},
          {"gpu", t.gpu},
          {"num_sms", t.num_sms},
          {"clock_mhz", t.clock_mhz},
          {"tile", {{"queries", e.schedule.block_m}, {"keys", e.schedule.block_n}}},
          {"units", units},
          {"binding", cost::name_of(e.roofline.binding)},
          {"tflops", e.roofline.bound_tflops},
          {"problem", {{"b", p.b}, {"hq", p.hq}, {"hkv", p.hkv}, {"m", p.m}, {"n", p.n}}},
          {"quantize_bytes", e.traffic.quantize_bytes},
          {"attend_bytes", e.traffic.attend_bytes},
          {"quantize_dram_ms", e.times.quantize_dram_ms},
          {"attend_dram_ms", e.times.attend_dram_ms},
          {"attend_units_ms", e.times.attend_units_ms}};
}

}  // namespace

std::string to_text(const Explanation& e) {
  std::string cautions;
  for (const std::string& caution : e.cautions) cautions += fmt::format("warning: {}\n", caution);
  std::vector<int> smem_bytes;
  for (const ExplainedKernel& kernel : e.kernels) smem_bytes.push_back(kernel.smem_bytes);
  return fmt::format(
      "target    {}\nschedule  {}{}\n{}\n{}\nwhat is computed:\n{}\nlaunches:\n{}\n{}\n"
      "operations of the main loops, from the kernel IR:\n{}\n{}",
      e.target->name, print_schedule(e.schedule),
      e.num_schedules > 1
          ? fmt::format("\n          the first of {}; the next is taken should the assembler spill",
                        e.num_schedules)
          : "",
      cautions, print_variant(e.variant), formulas_text(e), describe_launches(e.plan, smem_bytes),
      describe_workspace(e.plan), loops_text(e), limit_text(e));
}

std::string to_json_text(const Explanation& e) {
  json formulas = json::array();
  for (const Formula& formula : e.formulas) {
    formulas.push_back({{"subject", formula.subject}, {"lines", formula.lines}});
  }
  json result = {{"variant", e.variant.name},
                 {"variant_text", canonical_key_text(e.variant)},
                 {"target", e.target->name},
                 {"cautions", e.cautions},
                 {"schedule", print_schedule(e.schedule)},
                 {"num_schedules", e.num_schedules},
                 {"formulas", formulas},
                 {"plan", plan_json(e)},
                 {"predicted_limit", limit_json(e)}};
  return result.dump(2) + "\n";
}

}  // namespace sagejit::cli
