// sagejit calibrate: chooses between a fast and a careful variant for each layer of a model.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/policy/calibrate.h"
#include "tools/cli/build_options.h"
#include "tools/cli/commands.h"
#include "tools/cli/files.h"
#include "tools/cli/progress.h"
#include "tools/cli/run_judge.h"
#include "tools/cli/table.h"
#include "tools/cli/variant_options.h"

namespace sagejit::cli {
namespace {

struct CalibrateOptions {
  std::string fast, careful;  // FILE#SELECTOR
  std::vector<std::string> overrides;
  std::vector<std::string> inputs;
  std::string device = "auto";
  double threshold = kFastCosine;
  std::string output = "-";
  BuildOptions build;
};

struct Sample {
  LayerStep at;
  std::string source;  // file and name, for messages
  Layer layer;
};

std::vector<Sample> load_samples(const CalibrateOptions& options) {
  std::vector<Sample> samples;
  std::map<std::string, std::string> names;  // as given, by word
  for (const std::string& input : options.inputs) {
    for (Layer& layer : load_layers(input)) {
      LayerStep at = layer_step_of(layer.name);
      const std::string given = at.layer;
      at.layer = policy_word(given);
      const std::string& first = names.try_emplace(at.layer, given).first->second;
      if (first != given) {
        fail(ErrorKind::kArgument,
             "{}: the layers `{}` and `{}` would both be `{}` in a policy, whose names are words: "
             "rename the tensors of one",
             input, first, given, at.layer);
      }
      samples.push_back(
          {std::move(at), fmt::format("{}: {}", input, layer.name), std::move(layer)});
    }
  }
  const reference::ProblemShape first = samples.front().layer.shape();
  for (const Sample& sample : samples) {
    const reference::ProblemShape shape = sample.layer.shape();
    if (shape.d == first.d && shape.dv == first.dv) continue;
    fail(ErrorKind::kArgument,
         "{} has head dims {} and {}, {} has {} and {}: a policy's variants have one; calibrate "
         "them apart",
         samples.front().source, first.d, first.dv, sample.source, shape.d, shape.dv);
  }
  return samples;
}

// FILE#SELECTOR, with the data's head dims.
Variant load_candidate(const std::string& text, const CalibrateOptions& options,
                       const Layer& layer) {
  const size_t mark = std::min(text.find('#'), text.size());
  VariantOptions variant;
  variant.overrides = options.overrides;
  variant.selector = text.substr(std::min(mark + 1, text.size()));
  const reference::ProblemShape shape = layer.shape();
  return choose_for_data(load_variants(text.substr(0, mark), variant),
                         {static_cast<int>(shape.d), static_cast<int>(shape.dv)});
}

// Of each sample's output against full precision.
std::vector<Cosines> measure(const Variant& variant, const std::vector<Sample>& samples,
                             const std::shared_ptr<Device>& device, Context& context) {
  Progress progress;
  const FoundKernel found = context.get(make_request(variant), device);
  std::vector<Cosines> cosines;
  for (const Sample& sample : samples) {
    progress.show(fmt::format("{} on {}", variant.name, sample.source));
    const Layer layer = prepared(sample.layer, variant.input, Layout::kBhtd);
    const reference::Inputs& in = layer.inputs;
    const DeviceResult result = run_on_device(*found.kernel, layer, Layout::kBhtd, 1);
    const reference::AttentionResult exact = reference::exact_attention(variant, in.q, in.k, in.v);
    const reference::OutputMetrics metrics = metrics_of(result, exact);
    cosines.push_back({metrics.overall.cosine, metrics.worst_head.cosine});
  }
  return cosines;
}

std::string summary(const std::vector<Sample>& samples, const std::vector<LayerCosines>& measured,
                    const Policy& policy) {
  Table table({"input", ">cosine of fast", ">worst head", ">of careful", ">worst head", "takes"});
  for (size_t i = 0; i < samples.size(); ++i) {
    const LayerCosines& m = measured[i];
    table.add({samples[i].source, fmt::format("{:.6f}", m.fast.overall),
               fmt::format("{:.6f}", m.fast.worst_head), fmt::format("{:.6f}", m.careful.overall),
               fmt::format("{:.6f}", m.careful.worst_head), policy.find(m.layer, m.step).name});
  }
  return table.text();
}

ExitCode run_calibrate(const CalibrateOptions& options) {
  const std::vector<Sample> samples = load_samples(options);
  const Variant fast = load_candidate(options.fast, options, samples.front().layer);
  const Variant careful = load_candidate(options.careful, options, samples.front().layer);
  const std::shared_ptr<Device> device = open_device(options.device);
  BuildTimes times;
  const std::unique_ptr<Context> context = make_context(options.build, times);
  check_candidates(fast, careful);
  const std::vector<Cosines> of_fast = measure(fast, samples, device, *context);
  const std::vector<Cosines> of_careful = measure(careful, samples, device, *context);
  std::vector<LayerCosines> measured;
  for (size_t i = 0; i < samples.size(); ++i) {
    measured.push_back({samples[i].at.layer, samples[i].at.step, of_fast[i], of_careful[i]});
  }
  Policy policy = calibrate(fast, careful, measured, options.threshold);
  const std::string failures = std::move(policy.comment);
  policy.comment = fmt::format(
      "by sagejit calibrate on {} ({}): fast where its cosines against full precision, over the "
      "whole "
      "output and in the worst head, are above {} on all inputs\n"
      "fast is {} of {}, careful is {} of {}{}{}",
      device->info().name, device->info().product, options.threshold, fast.name, options.fast,
      careful.name, options.careful, failures.empty() ? "" : "\n", failures);
  write_file(options.output, print_policy(policy));
  fmt::print(stderr, "{}", summary(samples, measured, policy));
  for (const std::string& failure : failures_of_careful(measured, options.threshold)) {
    fmt::print(stderr, "warning: {}\n", failure);
  }
  return kSuccess;
}

}  // namespace

void add_calibrate(CLI::App& app, ExitCode& result) {
  auto options = std::make_shared<CalibrateOptions>();
  CLI::App* command = app.add_subcommand(
      "calibrate", "Choose a fast or a careful variant for each layer of a model");
  command
      ->add_option("--fast", options->fast,
                   "The variant to take where it is close enough: FILE, or FILE#SELECTOR")
      ->required()
      ->type_name("FILE#SELECTOR");
  command->add_option("--careful", options->careful, "The variant to take elsewhere")
      ->required()
      ->type_name("FILE#SELECTOR");
  command
      ->add_option("--set", options->overrides,
                   "Override a key of both, e.g. mask=causal(top_left)")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all();
  command
      ->add_option("--input", options->inputs,
                   "Captured layers: safetensors files with LAYER.q, .k, .v, or step.N.LAYER.q "
                   "...; several files are "
                   "several inputs of the same layers")
      ->required()
      ->type_name("PATH");
  command->add_option("--device", options->device, "As for `run` (default auto)")
      ->type_name("NAME");
  command
      ->add_option("--threshold", options->threshold,
                   "Cosine against full precision that fast must be above (default 0.998)")
      ->type_name("X")
      ->check(CLI::Range(0.0, 1.0).description(""));
  command->add_option("-o,--output", options->output, "Policy file (default: standard output)")
      ->type_name("PATH");
  options->build.add_cache_to(*command);
  command->footer(
      "The file's format: specs/policy_format.md. Programs read it with sagejit_policy_parse.\n"
      "Example:\n"
      "  sagejit calibrate --fast specs/variants/sage1_b.attn#pv_accumulator=f16 --careful "
      "specs/variants/sage1_t.attn \\\n"
      "      --input tests/data/minilm_l6_qkv.safetensors -o model.policy");
  command->callback([options, &result] { result = run_calibrate(*options); });
}

}  // namespace sagejit::cli
