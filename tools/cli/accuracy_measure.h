// How close variants come to the float64 answer, over data sets.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/reference/attention.h"
#include "tests/reference/metrics.h"
#include "tools/cli/build_options.h"
#include "tools/cli/run_inputs.h"

namespace sagejit::cli {

// Layers that a figure is taken over, with their answers, which no quantization changes: no mask,
// scale 1 / sqrt(d). In f16.
struct DataSet {
  std::string name;
  std::vector<Layer> layers;  // at least one
  std::vector<reference::AttentionResult> answers;
};
DataSet make_data_set(std::string name, std::vector<Layer> layers);

// Of one data set. The average is of the layers' figures; the worst layer has the lowest cosine.
struct DataSetFigures {
  reference::Closeness average, worst;
  std::string worst_layer;
  int64_t num_non_finite = 0;  // outputs that are NaN or infinite; the figures are then NaN
};

struct Measurement {
  std::vector<DataSetFigures>
      figures;                  // one of each data set; empty where the variant is not supported
  std::string target;           // that the kernels were compiled for
  std::string why_unsupported;  // limits, on one line; empty if measured
};

// Devices that a variant may be run on, the first that has it. On the emulator, unless a target is
// named, every target is one.
class AccuracyLab {
 public:
  AccuracyLab(const std::string& device, const BuildOptions& build);

  // `entries`: lines of a variant without head dims, which the data decide. Throws Error of any
  // kind but kUnsupported, which is a result.
  Measurement measure(std::string_view entries, std::span<const DataSet> data_sets);

  std::string device_text() const;  // for people: "PTX emulator" or the GPU's name

 private:
  std::shared_ptr<Device> device(size_t index);
  DataSetFigures figures_of(std::string_view entries, const DataSet& data,
                            const std::shared_ptr<Device>& device);

  std::vector<std::string> names_;
  std::vector<std::shared_ptr<Device>> devices_;  // null until it is needed
  BuildTimes times_;
  std::unique_ptr<Context> context_;
};

}  // namespace sagejit::cli
