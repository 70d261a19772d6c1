// sagejit bench: times schedules and phases of a variant against one another on a GPU.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "compiler/support/stopwatch.h"
#include "runtime/api/handles.h"
#include "tools/cli/bench_report.h"
#include "tools/cli/build_options.h"
#include "tools/cli/commands.h"
#include "tools/cli/progress.h"
#include "tools/cli/shape.h"
#include "tools/cli/variant_options.h"
#include "tools/cli/work.h"

namespace sagejit::cli {
namespace {

using reference::ProblemShape;

constexpr int kMaxRounds = 1000;
constexpr double kMinTimeLeastMs = 0.1, kMinTimeMostMs = 10000;
constexpr ProblemShape kDefaultShape = {4, 32, 32, 1024, 1024, 0, 0};
constexpr const char* kDefaultShapes[] = {"m=1024", "m=4096", "b=1,m=16384"};
constexpr const char* kDefaultPhases[] = {"attend", "both"};
constexpr const char* kDefaultSchedule = "default";

struct BenchOptions {
  std::string file;
  VariantOptions variant;
  BuildOptions build;
  std::string device = "auto";
  std::vector<std::string> schedules = {kDefaultSchedule};
  std::vector<std::string> shapes{std::begin(kDefaultShapes), std::end(kDefaultShapes)};
  std::vector<std::string> phases{std::begin(kDefaultPhases), std::end(kDefaultPhases)};
  DataOptions data;
  MeasureOptions measure;
  bool json = false;
};

// What the command line alone decides.
struct Job {
  Variant variant;
  std::vector<ProblemShape> shapes;
  std::vector<PhaseSet> phases;
};

PhaseSet phase_named(const std::string& name) {
  for (const PhaseSet phases : {kAttendPhase, kQuantizePhase, kBothPhases}) {
    if (name == name_of(phases)) return phases;
  }
  fail(ErrorKind::kArgument, "--phase: '{}' is none of attend, quantize and both", name);
}

std::vector<PhaseSet> parse_phases(const std::vector<std::string>& names) {
  std::vector<PhaseSet> result;
  for (const std::string& name : names) {
    const PhaseSet phases = phase_named(name);
    if (std::find(result.begin(), result.end(), phases) == result.end()) result.push_back(phases);
  }
  return result;
}

// One variant is timed, so shapes that give a head dim must agree.
void agree(std::optional<int>& known, int64_t given, std::string_view name) {
  if (known && *known != given) {
    fail(ErrorKind::kArgument, "--shape: {}={} and {}={} are two variants: time them one by one",
         name, *known, name, given);
  }
  known = static_cast<int>(given);
}

std::vector<ProblemShape> parse_shapes(const std::vector<std::string>& texts, DataTraits& traits) {
  std::vector<ProblemShape> shapes;
  for (const std::string& text : texts) {
    const ShapeOption option = parse_shape(text, kDefaultShape);
    if (option.shape.b == 0 || option.shape.m == 0 || option.shape.n == 0) {
      fail(ErrorKind::kArgument, "--shape: '{}' leaves nothing to time", text);
    }
    if (option.has_d) agree(traits.head_dim, option.shape.d, "d");
    if (option.has_dv) agree(traits.value_head_dim, option.shape.dv, "dv");
    shapes.push_back(option.shape);
  }
  return shapes;
}

// Everything that can be wrong with a command line is said before a device is opened.
Job make_job(const BenchOptions& options) {
  Job job;
  job.phases = parse_phases(options.phases);
  DataTraits traits;
  job.shapes = parse_shapes(options.shapes, traits);
  reference::make_inputs(options.data.distribution, {}, DType::kF16, options.data.seed);
  for (const std::string& line : options.schedules) {
    if (line != kDefaultSchedule) parse_schedule(line);
  }
  job.variant = choose_for_data(load_variants(options.file, options.variant), traits);
  for (ProblemShape& shape : job.shapes) {
    shape.d = job.variant.head_dim;
    shape.dv = job.variant.value_head_dim;
  }
  return job;
}

std::shared_ptr<Device> open_gpu(const std::string& name) {
  std::string why_no_gpu;
  std::shared_ptr<Device> device = open_device(name, &why_no_gpu);
  if (!why_no_gpu.empty()) {
    fail(ErrorKind::kDevice, "bench needs a GPU, and there is none: {}", why_no_gpu);
  }
  if (!device->info().runs_machine_code) {
    fail(ErrorKind::kArgument,
         "bench needs a GPU: what {} takes says nothing about one; use --device cuda:0, or run to "
         "compute on the emulator",
         device->info().name);
  }
  return device;
}

class Bench {
 public:
  Bench(const BenchOptions& options, const Job& job, std::shared_ptr<Device> device)
      : options_(options), job_(job), device_(std::move(device)) {
    report_.variant_name = job.variant.name;
    report_.device = device_->info();
    report_.rounds = options.measure.rounds;
    report_.min_time_ms = options.measure.min_time_ms;
    report_.data = options.data;
    report_.phases = job.phases;
  }

  BenchReport run() {
    build_kernels();
    for (const auto& kernel : kernels_) report_.candidates.push_back(describe(kernel));
    report_.backend = kernels_.front()->artifact().backend;
    report_.assembler = kernels_.front()->artifact().assembler;
    for (const ProblemShape& shape : job_.shapes) report_.shapes.push_back(time_shape(shape));
    return std::move(report_);
  }

 private:
  // Schedules that cannot be are skipped; if none is left, the first reason is the error.
  void build_kernels() {
    BuildTimes times;
    const std::unique_ptr<Context> context = make_context(options_.build, times);
    for (const std::string& line : options_.schedules) {
      progress_.show(fmt::format("compiling {}, schedule '{}'", job_.variant.name, line));
      try {
        kernels_.push_back(context->get(request(line), device_).kernel);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kUnsupported) throw;
        report_.skipped.push_back({line, error.message()});
      }
    }
    if (kernels_.empty()) throw Error(ErrorKind::kUnsupported, report_.skipped.front().reason);
  }

  KernelRequest request(const std::string& line) const {
    if (line == kDefaultSchedule) return make_request(job_.variant);
    return make_request(
        job_.variant, parse_schedule(line, default_schedule(job_.variant, *report_.device.target)));
  }

  BenchCandidate describe(const std::shared_ptr<const Kernel>& shared) {
    const Kernel& kernel = *shared;
    BenchCandidate candidate;
    candidate.schedule = kernel.artifact().schedule_text;
    for (const KernelResources& resources : kernel.artifact().resources) {
      if (resources.kernel == "attention") candidate.registers = resources.registers;
    }
    progress_.show(fmt::format("timing the host, schedule '{}'", candidate.schedule));
    const ProblemShape smallest = {
        1, 1, 1, 1, 1, job_.variant.head_dim, job_.variant.value_head_dim};
    const AttentionArgs sizes = describe_args(kernel.artifact().tensors, smallest);
    const BenchProblem problem(*device_, sizes, kernel.workspace_bytes(sizes), options_.data, 1);
    const PublicArgs args(problem.copy(0));
    const sagejit_kernel handle = {shared, Origin::kMemory};
    const Stopwatch watch;
    for (const PhaseSet phases : job_.phases) {
      launch(handle, args, kQuantizePhase);
      candidate.host_us.push_back(host_us_per_call({[&] { launch(handle, args, phases); },
                                                    [&] { device_->synchronize(nullptr); },
                                                    [&] { return watch.elapsed_ms(); }}));
    }
    return candidate;
  }

  // As a program in C does.
  static void launch(const sagejit_kernel& kernel, const PublicArgs& args, PhaseSet phases) {
    sagejit_error* error = nullptr;
    if (sagejit_kernel_launch(&kernel, &args.get(), phases, nullptr, &error) == SAGEJIT_OK) return;
    const std::string message = sagejit_error_message(error);
    sagejit_error_destroy(error);
    throw Error(ErrorKind::kDevice, message);
  }

  BenchShape time_shape(const ProblemShape& shape) {
    progress_.show(fmt::format("timing {}", shape_text(shape)));
    const AttentionArgs sizes = describe_args(kernels_.front()->artifact().tensors, shape);
    uint64_t workspace_bytes = 0;
    for (const auto& kernel : kernels_) {
      workspace_bytes = std::max(workspace_bytes, kernel->workspace_bytes(sizes));
    }
    BenchShape result;
    result.shape = shape;
    result.copy_bytes = tensor_bytes(sizes) + workspace_bytes;
    result.copies = num_copies(result.copy_bytes, device_->info().l2_bytes);
    const BenchProblem problem(*device_, sizes, workspace_bytes, options_.data, result.copies);
    time_problem(problem, result);
    return result;
  }

  void time_problem(const BenchProblem& problem, BenchShape& result) {
    std::vector<Subject> subjects;
    for (size_t candidate = 0; candidate < kernels_.size(); ++candidate) {
      for (size_t phase = 0; phase < job_.phases.size(); ++phase) {
        subjects.push_back(subject(*kernels_[candidate], job_.phases[phase], problem));
        result.series.push_back({candidate, phase, work(candidate, phase, problem, result), {}});
      }
    }
    MeasureOptions measure_options = options_.measure;
    measure_options.copies = problem.num_copies();
    const std::unique_ptr<Timer> timer = device_->make_timer();
    std::vector<Series> series =
        measure(subjects, measure_options, {*timer, [this] { return device_->sm_clock_mhz(); }});
    for (size_t i = 0; i < series.size(); ++i) result.series[i].series = std::move(series[i]);
  }

  // All schedules share the workspaces, and their codes may lie elsewhere in them: each prepares
  // its own.
  static Subject subject(const Kernel& kernel, PhaseSet phases, const BenchProblem& problem) {
    const auto launch = [&kernel, &problem](PhaseSet which) {
      return [&kernel, &problem, which](int copy) {
        kernel.launch(problem.copy(copy), which, nullptr);
      };
    };
    Subject result = {{}, launch(phases)};
    if (phases == kAttendPhase) result.prepare = launch(kQuantizePhase);
    return result;
  }

  double work(size_t candidate, size_t phase, const BenchProblem& problem,
              const BenchShape& shape) const {
    return job_.phases[phase] == kQuantizePhase
               ? quantize_bytes(kernels_[candidate]->artifact(), problem.copy(0))
               : attention_flops(job_.variant.mask, shape.shape);
  }

  const BenchOptions& options_;
  const Job& job_;
  const std::shared_ptr<Device> device_;
  std::vector<std::shared_ptr<const Kernel>> kernels_;
  BenchReport report_;
  Progress progress_;
};

ExitCode run_bench(const BenchOptions& options) {
  const Job job = make_job(options);
  const BenchReport report = Bench(options, job, open_gpu(options.device)).run();
  fmt::print("{}", options.json ? to_json_text(report) : to_text(report));
  return kSuccess;
}

CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<std::string>& list,
                      const std::string& help) {
  return command.add_option(name, list, help)->expected(1)->take_all();
}

void add_subjects(CLI::App& command, BenchOptions& options) {
  add_list(command, "--schedule", options.schedules,
           "A schedule to time, on top of the target's default; may be repeated (default: default)")
      ->type_name("LINE");
  add_list(command, "--phase", options.phases,
           "What to time: attend, quantize or both, end to end; may be repeated (default: attend "
           "and both)")
      ->type_name("NAME");
  add_list(command, "--shape", options.shapes,
           "A problem to time; may be repeated. Any of b, hq, hkv, m, n (default "
           "b=4,hq=32,m=1024; hkv as hq, n as m). Without: m=1024, m=4096 and b=1,m=16384")
      ->type_name("b=..,hq=..");
  command
      .add_option(
          "--dist", options.data.distribution,
          fmt::format("Distribution of the inputs: {}", fmt::join(reference::input_names(), ", ")))
      ->type_name("NAME");
  command.add_option("--seed", options.data.seed, "Seed of the inputs (default 1)")->type_name("N");
}

void add_timing(CLI::App& command, MeasureOptions& options) {
  command.add_option("--rounds", options.rounds, "Measurements of each (default 7)")
      ->type_name("N")
      ->check(CLI::Range(1, kMaxRounds).description(""));
  command
      .add_option("--min-time", options.min_time_ms,
                  "Milliseconds that a measurement takes at least (default 20)")
      ->type_name("MS")
      ->check(CLI::Range(kMinTimeLeastMs, kMinTimeMostMs).description(""));
}

}  // namespace

void add_bench(CLI::App& app, ExitCode& result) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "Time a variant's schedules and phases on a GPU");
  command->add_option("FILE", options->file, "Variant file (.attn); - for standard input")
      ->required();
  command->add_option("--device", options->device, "auto (default), cuda or cuda:N")
      ->type_name("NAME");
  options->variant.add_to(*command);
  add_subjects(*command, *options);
  options->build.add_cache_to(*command);
  add_timing(*command, options->measure);
  command->add_flag("--json", options->json, "Print the report as JSON, with every measurement");
  command->footer(
      "After a warm-up, rounds go through all schedules and phases of a shape forth and back. A "
      "measurement\n"
      "is many launches between two marks on the device; they rotate through copies of tensors and "
      "workspace\n"
      "that together exceed twice the L2 cache. Inputs repeat a random block of 4 key heads and "
      "1024 "
      "tokens.\n"
      "TFLOP/s: 2 b hq pairs (d + dv) of visible query-key pairs, half of all for a causal mask "
      "with "
      "m = n.\n"
      "GB/s of quantize: each input read once, each code and scale for attend written once.\n"
      "host us: what a call of the C API, sagejit_kernel_launch, takes its caller on a tiny "
      "problem;\n"
      "host-bound: the device waited.\n"
      "Schedules that are not possible are skipped, with the reason.\n"
      "Examples:\n"
      "  sagejit bench sage1_b.attn --set head_dim=64 --phase quantize --phase attend\n"
      "  sagejit bench sage1_b.attn --schedule default --schedule 'block_n=32' --shape m=4096\n"
      "  sagejit bench sage1_b.attn --shape b=1,hq=32,hkv=8,m=128,n=16384 --json");
  command->callback([options, &result] { result = run_bench(*options); });
}

}  // namespace sagejit::cli
