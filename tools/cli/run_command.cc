// sagejit run: computes attention on a device and judges it against the float64 answer.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <memory>

#include "compiler/support/stopwatch.h"
#include "tests/reference/attention.h"
#include "tools/cli/cautions.h"
#include "tools/cli/commands.h"
#include "tools/cli/one_of.h"
#include "tools/cli/progress.h"
#include "tools/cli/run_report.h"
#include "tools/cli/shape.h"
#include "tools/cli/variant_options.h"

namespace sagejit::cli {
namespace {

constexpr int kMaxRepeats = 100000;
constexpr reference::ProblemShape kDefaultShape = {1, 4, 4, 256, 256, 0, 0};
const std::map<std::string, Layout> kLayoutNames = {{"bhtd", Layout::kBhtd},
                                                    {"bthd", Layout::kBthd}};

struct RunOptions {
  std::string file;
  VariantOptions variant;
  BuildOptions build;
  std::string device = "auto";
  std::string input;
  std::string shape;
  std::string distribution = "normal";
  uint64_t seed = 1;
  Layout layout = Layout::kBhtd;
  int repeats = 1;
  bool json = false;
};

struct Job {
  Variant variant;
  std::vector<Layer> layers;
};

// The variant by the data's head dims, then the data in the variant's type.
Job make_job(const RunOptions& options, const std::vector<Variant>& variants) {
  Job job;
  if (!options.input.empty()) {
    job.layers = load_layers(options.input);
    const reference::ProblemShape first = job.layers.front().shape();
    job.variant =
        choose_for_data(variants, {static_cast<int>(first.d), static_cast<int>(first.dv)});
  } else {
    ShapeOption option = parse_shape(options.shape, kDefaultShape);
    DataTraits traits;
    if (option.has_d) traits.head_dim = static_cast<int>(option.shape.d);
    if (option.has_dv) traits.value_head_dim = static_cast<int>(option.shape.dv);
    job.variant = choose_for_data(variants, traits);
    option.shape.d = job.variant.head_dim;
    option.shape.dv = job.variant.value_head_dim;
    job.layers.push_back(
        {options.distribution, reference::make_inputs(options.distribution, option.shape,
                                                      job.variant.input, options.seed)});
  }
  for (Layer& layer : job.layers) {
    layer = prepared(std::move(layer), job.variant.input, options.layout);
    reference::check_problem(job.variant, layer.inputs.q, layer.inputs.k, layer.inputs.v);
  }
  return job;
}

FoundKernel build_kernel(const RunOptions& options, const Job& job,
                         const std::shared_ptr<Device>& device, RunReport& report) {
  Progress progress;
  progress.show(fmt::format("looking up or compiling {} for {}", job.variant.name,
                            device->info().target->name));
  const std::unique_ptr<Context> context = make_context(options.build, report.build);
  const Stopwatch watch;
  FoundKernel found = context->get(
      make_request(job.variant, options.build.parsed_schedule(job.variant, *device->info().target)),
      device);
  const BuildTimes& times = report.build;
  const double compile_ms = times.compile.generate_ms + times.compile.toolchain_ms;
  report.load_ms = watch.elapsed_ms() - times.load_toolchain_ms - times.key_ms - compile_ms;
  report.cache = !context->disk_cache().enabled() ? "off"
                 : found.origin == Origin::kDisk  ? "hit"
                                                  : "miss";
  return found;
}

void run_layers(const RunOptions& options, const Job& job, const Kernel& kernel,
                RunReport& report) {
  Progress progress;
  for (size_t i = 0; i < job.layers.size(); ++i) {
    const Layer& layer = job.layers[i];
    const std::string place = fmt::format("{} ({} of {})", layer.name, i + 1, job.layers.size());
    progress.show(fmt::format("running {} on {}", place, report.device.name));
    DeviceResult result = run_on_device(kernel, layer, options.layout, options.repeats);
    progress.show(fmt::format("computing the float64 answer of {}", place));
    const Stopwatch watch;
    Judgement judgement = judge(job.variant, layer, result);
    report.reference_ms += watch.elapsed_ms();
    report.layers.push_back({layer.name, layer.shape(), std::move(result.times),
                             result.workspace_bytes, std::move(judgement)});
  }
}

ExitCode run_run(const RunOptions& options) {
  RunReport report;
  const Stopwatch parse_watch;
  const std::vector<Variant> variants = load_variants(options.file, options.variant);
  report.parse_ms = parse_watch.elapsed_ms();
  const Job job = make_job(options, variants);
  const std::shared_ptr<Device> device = open_device(options.device, &report.why_no_gpu);
  report.variant_name = job.variant.name;
  report.mask = job.variant.mask;
  report.bar = cosine_bar(job.variant);
  report.device = device->info();
  const FoundKernel found = build_kernel(options, job, device, report);
  report.artifact = found.kernel->artifact();
  print_cautions(job.variant, *device->info().target);
  run_layers(options, job, *found.kernel, report);
  fmt::print("{}", options.json ? to_json_text(report) : to_text(report));
  return report.passed() ? kSuccess : kInaccurate;
}

void add_problem_options(CLI::App& command, RunOptions& options) {
  CLI::Option* input =
      command.add_option("--input", options.input,
                         "Captured tensors q, k, v (or PREFIX.q, ...) of a safetensors file");
  input->type_name("PATH");
  command
      .add_option("--shape", options.shape,
                  "Sizes of generated inputs, any of b, hq, hkv, m, n, d, dv "
                  "(default b=1,hq=4,m=256; hkv as hq, n as m, d as the variant)")
      ->type_name("b=..,hq=..")
      ->excludes(input);
  command
      .add_option("--dist", options.distribution,
                  fmt::format("Distribution of generated inputs: {}",
                              fmt::join(reference::input_names(), ", ")))
      ->type_name("NAME")
      ->excludes(input);
  command.add_option("--seed", options.seed, "Seed of generated inputs (default 1)")
      ->type_name("N")
      ->excludes(input);
  command.add_option("--layout", options.layout, "Order of axes in memory: bhtd (default) or bthd")
      ->transform(one_of(kLayoutNames))
      ->type_name("ORDER");
}

}  // namespace

void add_run(CLI::App& app, ExitCode& result) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command =
      app.add_subcommand("run", "Run a variant and judge its output against float64");
  command->add_option("FILE", options->file, "Variant file (.attn); - for standard input")
      ->required();
  command
      ->add_option(
          "--device", options->device,
          "auto (default), cuda, cuda:N, emulator or emulator:TARGET such as emulator:sm_90a")
      ->type_name("NAME");
  options->variant.add_to(*command);
  add_problem_options(*command, *options);
  options->build.add_to(*command);
  command->add_option("--repeat", options->repeats, "Time N launches (default 1)")
      ->type_name("N")
      ->check(CLI::Range(1, kMaxRepeats).description(""));
  command->add_flag("--json", options->json, "Print the report as JSON");
  command->footer(
      "The first variant with the data's head_dim is run; --set and --select choose another.\n"
      "Exit code 0: the output passed; 5: it misses a bar (cosine, NaN or infinity, LSE).\n"
      "Examples:\n"
      "  sagejit run sage1_b.attn --shape b=1,hq=8,hkv=2,m=1000,d=128 --dist biased_k\n"
      "  sagejit run sage1_b.attn --set 'mask=causal(top_left)' --device cuda:0 --repeat 100\n"
      "  sagejit run sage1_b.attn --input tests/data/minilm_l6_qkv.safetensors --json");
  command->callback([options, &result] { result = run_run(*options); });
}

}  // namespace sagejit::cli
