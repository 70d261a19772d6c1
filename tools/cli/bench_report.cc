#include "tools/cli/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/cli/artifact_report.h"
#include "tools/cli/shape.h"
#include "tools/cli/statistics.h"
#include "tools/cli/table.h"

namespace sagejit::cli {
namespace {

using nlohmann::json;

std::string cuda_version(const DeviceInfo& device) {
  return fmt::format("{}.{}", device.driver_version / 1000, device.driver_version % 1000 / 10);
}

std::string clock_text(const BenchReport& report) {
  std::vector<int> clocks;
  for (const BenchShape& shape : report.shapes) {
    for (const BenchSeries& s : shape.series) {
      clocks.insert(clocks.end(), s.series.sm_clock_mhz.begin(), s.series.sm_clock_mhz.end());
    }
  }
  if (clocks.empty()) return "unknown";
  const auto [least, most] = std::minmax_element(clocks.begin(), clocks.end());
  return fmt::format("SMs at {}..{} MHz while timed", *least, *most);
}

std::string candidate_table(const BenchReport& report) {
  std::vector<std::string> titles = {">#", "schedule", ">registers"};
  for (const PhaseSet phases : report.phases) {
    titles.push_back(fmt::format(">host us: {}", name_of(phases)));
  }
  Table table(std::move(titles));
  for (size_t i = 0; i < report.candidates.size(); ++i) {
    const BenchCandidate& candidate = report.candidates[i];
    std::vector<std::string> cells = {
        fmt::format("{}", i + 1), candidate.schedule,
        candidate.registers ? fmt::format("{}", *candidate.registers) : "-"};
    for (const double us : candidate.host_us) cells.push_back(fmt::format("{:.2f}", us));
    table.add(std::move(cells));
  }
  return table.text("  ");
}

std::string skipped_text(const BenchReport& report) {
  std::string text;
  for (const SkippedSchedule& skipped : report.skipped) {
    text += fmt::format("  skipped '{}': {}\n", skipped.line, skipped.reason);
  }
  return text;
}

// Launches come no faster than the host makes them: the device waited, and its time says nothing.
bool host_bound(const BenchReport& report, const BenchSeries& s) {
  constexpr double kMargin = 1.1;
  const double host_us = report.candidates[s.candidate].host_us[s.phase];
  return median(s.series.ms) * 1e3 < kMargin * host_us;
}

// Of operations TFLOP/s, of bytes GB/s.
double rate(const BenchReport& report, const BenchSeries& s) {
  const double scale = report.phases[s.phase] == kQuantizePhase ? 1e6 : 1e9;
  return s.work / (median(s.series.ms) * scale);
}

double spread_percent(const std::vector<double>& ms) {
  return 100 * (quantile(ms, 0.75) - quantile(ms, 0.25)) / median(ms);
}

std::string time_table(const BenchReport& report) {
  Table table(
      {"shape", ">copies", "phase", ">#", ">launches", ">ms", ">spread", ">TFLOP/s", ">GB/s", ""});
  for (const BenchShape& shape : report.shapes) {
    for (const BenchSeries& s : shape.series) {
      const PhaseSet phases = report.phases[s.phase];
      const bool moves = phases == kQuantizePhase;
      table.add({shape_text(shape.shape), fmt::format("{}", shape.copies),
                 std::string(name_of(phases)), fmt::format("{}", s.candidate + 1),
                 fmt::format("{}", s.series.launches), fmt::format("{:.4f}", median(s.series.ms)),
                 fmt::format("{:.1f}%", spread_percent(s.series.ms)),
                 moves ? "-" : fmt::format("{:.1f}", rate(report, s)),
                 moves ? fmt::format("{:.0f}", rate(report, s)) : "-",
                 host_bound(report, s) ? "host-bound" : ""});
    }
  }
  return table.text("  ");
}

json candidate_json(const BenchReport& report, const BenchCandidate& candidate) {
  json result = {{"schedule", candidate.schedule},
                 {"registers", candidate.registers ? json(*candidate.registers) : json()}};
  for (size_t i = 0; i < report.phases.size(); ++i) {
    result["host_us_per_call"][std::string(name_of(report.phases[i]))] = candidate.host_us[i];
  }
  return result;
}

json series_json(const BenchReport& report, const BenchSeries& s) {
  const bool moves = report.phases[s.phase] == kQuantizePhase;
  return {{"schedule", report.candidates[s.candidate].schedule},
          {"phase", name_of(report.phases[s.phase])},
          {"launches", s.series.launches},
          {"ms", s.series.ms},
          {"median_ms", median(s.series.ms)},
          {"quartiles_ms", {quantile(s.series.ms, 0.25), quantile(s.series.ms, 0.75)}},
          {"sm_clock_mhz", s.series.sm_clock_mhz},
          {moves ? "bytes" : "flops", s.work},
          {moves ? "gb_per_s" : "tflops", rate(report, s)},
          {"host_bound", host_bound(report, s)}};
}

json shape_report_json(const BenchReport& report, const BenchShape& shape) {
  json result = {{"shape", shape_json(shape.shape)},
                 {"copies", shape.copies},
                 {"copy_bytes", shape.copy_bytes},
                 {"series", json::array()}};
  for (const BenchSeries& s : shape.series) result["series"].push_back(series_json(report, s));
  return result;
}

}  // namespace

std::string_view name_of(PhaseSet phases) {
  return phases == kBothPhases ? "both" : phases == kAttendPhase ? "attend" : "quantize";
}

std::string to_text(const BenchReport& report) {
  return fmt::format(
             "variant   {}\ndevice    {} ({}), {}, driver's CUDA {}\n{}"
             "data      {}, seed {}\n"
             "timing    median of {} rounds of at least {} ms; spread: interquartile range\n"
             "clocks    {}\n"
             "host us   of a call of sagejit_kernel_launch (C API) on a tiny problem\n\n",
             report.variant_name, report.device.name, report.device.product,
             report.device.target->name, cuda_version(report.device),
             describe_toolchain(report.backend, report.assembler), report.data.distribution,
             report.data.seed, report.rounds, report.min_time_ms, clock_text(report)) +
         candidate_table(report) + skipped_text(report) + "\n" + time_table(report);
}

std::string to_json_text(const BenchReport& report) {
  json result = {{"variant", report.variant_name},
                 {"device",
                  {{"name", report.device.name},
                   {"product", report.device.product},
                   {"target", report.device.target->name},
                   {"driver_cuda", cuda_version(report.device)},
                   {"num_sms", report.device.num_sms},
                   {"l2_bytes", report.device.l2_bytes}}},
                 {"backend", report.backend},
                 {"assembler", report.assembler},
                 {"distribution", report.data.distribution},
                 {"seed", report.data.seed},
                 {"rounds", report.rounds},
                 {"min_time_ms", report.min_time_ms},
                 {"schedules", json::array()},
                 {"skipped", json::array()},
                 {"shapes", json::array()}};
  for (const BenchCandidate& candidate : report.candidates) {
    result["schedules"].push_back(candidate_json(report, candidate));
  }
  for (const SkippedSchedule& skipped : report.skipped) {
    result["skipped"].push_back({{"schedule", skipped.line}, {"reason", skipped.reason}});
  }
  for (const BenchShape& shape : report.shapes) {
    result["shapes"].push_back(shape_report_json(report, shape));
  }
  return result.dump(2) + "\n";
}

}  // namespace sagejit::cli
