// What `bench` says, as text or JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/device.h"
#include "runtime/launch/args.h"
#include "tools/cli/bench_measure.h"
#include "tools/cli/bench_problem.h"

namespace sagejit::cli {

// "attend", "quantize" or "both".
std::string_view name_of(PhaseSet phases);

struct BenchCandidate {
  std::string schedule;          // canonical line
  std::optional<int> registers;  // of a thread of the attention kernel
  std::vector<double> host_us;   // per sagejit_kernel_launch; one of each phase of the report
};

struct SkippedSchedule {
  std::string line, reason;
};

struct BenchSeries {
  size_t candidate = 0;  // index
  size_t phase = 0;      // index
  double work = 0;       // what a launch does at least: bytes of quantize, else operations
  Series series;
};

struct BenchShape {
  reference::ProblemShape shape;
  int copies = 1;
  uint64_t copy_bytes = 0;  // tensors and workspace
  std::vector<BenchSeries> series;
};

struct BenchReport {
  std::string variant_name;
  DeviceInfo device;
  std::string backend, assembler;  // Artifact
  int rounds = 0;
  double min_time_ms = 0;
  DataOptions data;
  std::vector<PhaseSet> phases;
  std::vector<BenchCandidate> candidates;
  std::vector<SkippedSchedule> skipped;
  std::vector<BenchShape> shapes;
};

std::string to_text(const BenchReport& report);
std::string to_json_text(const BenchReport& report);

}  // namespace sagejit::cli
