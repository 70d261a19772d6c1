#include "tools/cli/accuracy_measure.h"

#include <fmt/ranges.h>

#include <cmath>
#include <optional>

#include "compiler/sema/check.h"
#include "compiler/sema/resolve.h"
#include "tools/cli/run_judge.h"

namespace sagejit::cli {
namespace {

Variant variant_for(std::string_view entries, const Layer& layer) {
  const reference::ProblemShape shape = layer.shape();
  const std::string text = fmt::format("accuracy {{ head_dim = {}; value_head_dim = {}; {} }}",
                                       shape.d, shape.dv, entries);
  return resolve_variants("accuracy row", text).at(0);
}

void add(reference::Closeness& sum, const reference::Closeness& x, double weight) {
  sum.cosine += x.cosine * weight;
  sum.relative_l1 += x.relative_l1 * weight;
  sum.rmse += x.rmse * weight;
}

// NaN is worse than any number.
bool is_worse(const reference::Closeness& a, const reference::Closeness& b) {
  return !std::isnan(b.cosine) && !(a.cosine >= b.cosine);
}

}  // namespace

DataSet make_data_set(std::string name, std::vector<Layer> layers) {
  DataSet data{std::move(name), {}, {}};
  for (Layer& layer : layers) {
    data.layers.push_back(prepared(std::move(layer), DType::kF16, Layout::kBhtd));
    const reference::Inputs& in = data.layers.back().inputs;
    data.answers.push_back(
        reference::exact_attention(variant_for("", data.layers.back()), in.q, in.k, in.v));
  }
  return data;
}

AccuracyLab::AccuracyLab(const std::string& device, const BuildOptions& build)
    : names_{device}, devices_(1), context_(make_context(build, times_)) {
  if (device == "auto") devices_[0] = open_device(device);
  const bool any_target = device == "emulator" ||
                          (device == "auto" && devices_[0]->info().name.starts_with("emulator"));
  if (!any_target) return;
  names_.clear();
  for (const Target& target : all_targets())
    names_.push_back(fmt::format("emulator:{}", target.name));
  devices_.assign(names_.size(), nullptr);
}

std::shared_ptr<Device> AccuracyLab::device(size_t index) {
  if (!devices_[index]) devices_[index] = open_device(names_[index]);
  return devices_[index];
}

std::string AccuracyLab::device_text() const {
  for (const auto& device : devices_) {
    if (device) return device->info().product;
  }
  return names_.front();
}

DataSetFigures AccuracyLab::figures_of(std::string_view entries, const DataSet& data,
                                       const std::shared_ptr<Device>& device) {
  DataSetFigures figures;
  figures.average = {0, 0, 0};
  for (size_t i = 0; i < data.layers.size(); ++i) {
    const Layer& layer = data.layers[i];
    const FoundKernel found = context_->get(make_request(variant_for(entries, layer)), device);
    const DeviceResult output = run_on_device(*found.kernel, layer, Layout::kBhtd, 1);
    const reference::OutputMetrics metrics = metrics_of(output, data.answers[i]);
    add(figures.average, metrics.overall, 1.0 / static_cast<double>(data.layers.size()));
    figures.num_non_finite += metrics.num_non_finite;
    if (i == 0 || is_worse(metrics.overall, figures.worst)) {
      figures.worst = metrics.overall;
      figures.worst_layer = layer.name;
    }
  }
  return figures;
}

Measurement AccuracyLab::measure(std::string_view entries, std::span<const DataSet> data_sets) {
  const Variant probe = variant_for(entries, data_sets.front().layers.front());
  std::vector<std::string> fewest;  // limits, of all devices'
  for (size_t i = 0; i < names_.size(); ++i) {
    const std::vector<std::string> limits = find_limits(probe, *device(i)->info().target);
    if (limits.empty()) {
      Measurement result;
      result.target = device(i)->info().target->name;
      for (const DataSet& data : data_sets) {
        result.figures.push_back(figures_of(entries, data, device(i)));
      }
      return result;
    }
    if (i == 0 || limits.size() < fewest.size()) fewest = limits;
  }
  return {{}, "", fmt::format("{}", fmt::join(fewest, "; "))};
}

}  // namespace sagejit::cli
