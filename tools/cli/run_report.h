// What `run` says, as text or JSON.
#pragma once

#include <string>
#include <vector>

#include "runtime/context/context.h"
#include "tools/cli/build_options.h"
#include "tools/cli/run_judge.h"

namespace sagejit::cli {

struct LayerReport {
  std::string name;
  reference::ProblemShape shape;
  RunTimes times;
  uint64_t workspace_bytes = 0;
  Judgement judgement;
};

struct RunReport {
  std::string variant_name;
  Mask mask;  // what it leaves counts for TFLOP/s
  double bar = 0;
  DeviceInfo device;
  std::string why_no_gpu;  // where --device auto fell back to the emulator
  Artifact artifact;
  std::string cache;  // "hit", "miss" or "off"
  double parse_ms = 0;
  BuildTimes build;
  double load_ms = 0;  // cache look-up and loading the module
  double reference_ms = 0;
  std::vector<LayerReport> layers;

  bool passed() const;
};

std::string to_text(const RunReport& report);
std::string to_json_text(const RunReport& report);  // NaN and infinities are null

}  // namespace sagejit::cli
