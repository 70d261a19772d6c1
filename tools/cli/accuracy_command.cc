// sagejit accuracy: the papers' accuracy tables, measured here.
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "tools/cli/accuracy_report.h"
#include "tools/cli/commands.h"
#include "tools/cli/files.h"
#include "tools/cli/progress.h"
#include "tools/cli/shape.h"

namespace sagejit::cli {
namespace {

// Several tiles of every schedule, and heads that differ.
constexpr reference::ProblemShape kDefaultShape = {1, 4, 4, 512, 512, 64, 64};
constexpr std::string_view kGenerated[] = {"normal", "biased_k", "outlier_v", "sink"};

struct AccuracyOptions {
  std::string device = "auto";
  std::string input;
  std::string shape;
  std::string only;
  std::string output;
  BuildOptions build;
  uint64_t seed = 1;
  bool json = false;
};

std::vector<DataSet> data_sets_of(const AccuracyOptions& options, AccuracyReport& report) {
  std::vector<DataSet> sets;
  if (!options.input.empty()) {
    report.real_data = std::filesystem::path(options.input).filename().string();
    sets.push_back(make_data_set(report.real_data, load_layers(options.input)));
  }
  const reference::ProblemShape shape = parse_shape(options.shape, kDefaultShape).shape;
  report.shape = shape_text(shape);
  for (const std::string_view name : kGenerated) {
    Layer layer{std::string(name), reference::make_inputs(name, shape, DType::kF16, options.seed)};
    sets.push_back(make_data_set(std::string(name), {std::move(layer)}));
  }
  for (const DataSet& set : sets) report.data_sets.push_back(set.name);
  return sets;
}

bool is_wanted(const AccuracyRow& row, const std::string& only) {
  return row.table.find(only) != std::string_view::npos ||
         row.setting.find(only) != std::string_view::npos;
}

// As it is to be typed again, without what does not change figures.
std::string command_of(const AccuracyOptions& options) {
  std::string text = "sagejit accuracy";
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) text += fmt::format(" {} {}", name, value);
  };
  add("--device", options.device);
  add("--input", options.input);
  add("--shape", options.shape);
  add("--only", options.only.empty() ? "" : "'" + options.only + "'");
  if (options.seed != 1) add("--seed", fmt::format("{}", options.seed));
  add("-o", options.output);
  return text;
}

void measure(const AccuracyOptions& options, AccuracyReport& report) {
  const std::vector<DataSet> data_sets = data_sets_of(options, report);
  AccuracyLab lab(options.device, options.build);
  Progress progress;
  for (const AccuracyRow& row : accuracy_rows()) {
    if (!is_wanted(row, options.only)) continue;
    progress.show(fmt::format("{}: {}", row.table, row.setting));
    AccuracyResult result{&row, {}};
    if (row.entries.empty()) {
      result.measurement.why_unsupported = "the language has no such variant";
    } else {
      result.measurement = lab.measure(row.entries, data_sets);
    }
    report.results.push_back(std::move(result));
  }
  if (report.results.empty()) {
    fail(ErrorKind::kArgument, "--only '{}' is in the name of no table or setting", options.only);
  }
  report.device = lab.device_text();
}

ExitCode run_accuracy(const AccuracyOptions& options) {
  AccuracyReport report;
  report.command = command_of(options);
  measure(options, report);
  if (options.json) {
    fmt::print("{}", to_json_text(report));
  } else if (options.output.empty()) {
    fmt::print("{}", to_markdown(report, ""));
  } else {
    std::filesystem::create_directories(options.output);
    const std::filesystem::path folder = options.output;
    write_file((folder / "accuracy.svg").string(), to_svg(report));
    write_file((folder / "accuracy.md").string(), to_markdown(report, "accuracy.svg"));
  }
  return kSuccess;
}

}  // namespace

void add_accuracy(CLI::App& app, ExitCode& result) {
  auto options = std::make_shared<AccuracyOptions>();
  CLI::App* command = app.add_subcommand(
      "accuracy", "Measure the papers' accuracy tables, published figures beside ours");
  command
      ->add_option("--device", options->device,
                   "auto (default), cuda, cuda:N, emulator (each variant for the first target that "
                   "has it) or "
                   "emulator:TARGET")
      ->type_name("NAME");
  command->add_option("--input", options->input, "Layers of captured q, k, v: a safetensors file")
      ->type_name("PATH");
  command
      ->add_option("--shape", options->shape,
                   "Sizes of generated inputs (default b=1,hq=4,m=512,d=64; hkv as hq, n as m)")
      ->type_name("b=..,hq=..");
  command
      ->add_option("--only", options->only, "Rows whose table or setting has this text in its name")
      ->type_name("TEXT");
  command->add_option("--seed", options->seed, "Seed of generated inputs (default 1)")
      ->type_name("N");
  command
      ->add_option("-o,--output", options->output,
                   "Folder for accuracy.md and accuracy.svg (default: Markdown to standard output)")
      ->type_name("DIR");
  command->add_flag("--json", options->json, "Print the figures as JSON");
  options->build.add_cache_to(*command);
  command->footer(
      "Rows are data: tools/cli/accuracy_rows.def. Variants that no generator makes are shown as "
      "unsupported.\n"
      "Example:\n"
      "  sagejit accuracy --device emulator --input tests/data/minilm_l6_qkv.safetensors -o specs");
  command->callback([options, &result] { result = run_accuracy(*options); });
}

}  // namespace sagejit::cli
