// Times the attention kernel alone on a GPU, what comes before it, or whole forward calls, for
// several schedules and shapes in interleaved rounds.
//
//   attention_bench FILE [--device cuda:0] [--set key=value]... [--schedule "..."]... [--shape
//   b,h,m,n]...
//                   [--rounds 7] [--end-to-end | --preparation]
// One line per (variant, schedule, shape): median ms, spread, TFLOPS = 4 b h m n d / t (halved when
// causal).
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "runtime/context/context.h"
#include "tests/reference/inputs.h"

namespace sagejit {
namespace {

struct Shape {
  int64_t b = 4, h = 32, m = 4096, n = 4096;
};

struct Options {
  std::string file, device = "cuda:0";
  std::vector<Override> overrides;
  std::vector<std::string> schedules;
  std::vector<Shape> shapes;
  int rounds = 7;
  PhaseSet phases = kAttendPhase;
};

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] {
      if (++i >= argc) fail(ErrorKind::kArgument, "{} needs a value", word);
      return std::string(argv[i]);
    };
    if (word == "--device") {
      options.device = value();
    } else if (word == "--set") {
      options.overrides.push_back(parse_override(value()));
    } else if (word == "--schedule") {
      options.schedules.push_back(value());
    } else if (word == "--end-to-end") {
      options.phases = kBothPhases;
    } else if (word == "--preparation") {
      options.phases = kQuantizePhase;
    } else if (word == "--rounds") {
      options.rounds = std::stoi(value());
    } else if (word == "--shape") {
      Shape shape;
      const std::string text = value();
      if (std::sscanf(text.c_str(), "%ld,%ld,%ld,%ld", &shape.b, &shape.h, &shape.m, &shape.n) !=
          4) {
        fail(ErrorKind::kArgument, "--shape needs b,h,m,n, got '{}'", text);
      }
      options.shapes.push_back(shape);
    } else {
      options.file = word;
    }
  }
  if (options.shapes.empty()) options.shapes.push_back({});
  if (options.schedules.empty()) options.schedules.push_back("");
  return options;
}

// Device tensors of one shape, filled with random 16-bit floats in (-2, 2).
class Problem {
 public:
  Problem(Device& device, const Variant& v, const Shape& shape, uint64_t max_workspace)
      : device_(device), shape_(shape) {
    const int64_t q[] = {shape.b, shape.h, shape.m, v.head_dim};
    const int64_t k[] = {shape.b, shape.h, shape.n, v.head_dim};
    const int64_t value[] = {shape.b, shape.h, shape.n, v.value_head_dim};
    const int64_t o[] = {shape.b, shape.h, shape.m, v.value_head_dim};
    set(Operand::kQ, q, v.input);
    set(Operand::kK, k, v.input);
    set(Operand::kV, value, v.input);
    set(Operand::kO, o, v.output);
    if (v.lse) {
      const int64_t lse[] = {shape.b, shape.h, shape.m};
      set(Operand::kLse, lse, DType::kF32);
    }
    args.workspace = device.allocate(max_workspace);
    args.workspace_bytes = max_workspace;
  }
  ~Problem() {
    for (const Tensor& tensor : args.tensors) device_.free(tensor.address);
    device_.free(args.workspace);
  }

  AttentionArgs args;

  static void describe(Tensor& tensor, std::span<const int64_t> shape, DType type) {
    tensor.given = true;
    tensor.dtype = type;
    tensor.rank = static_cast<int>(shape.size());
    int64_t stride = 1;
    for (int i = tensor.rank - 1; i >= 0; --i) {
      tensor.shape[i] = shape[i];
      tensor.strides[i] = stride;
      stride *= shape[i];
    }
  }

 private:
  void set(Operand operand, std::span<const int64_t> shape, DType type) {
    Tensor& tensor = args.tensors[static_cast<int>(operand)];
    describe(tensor, shape, type);
    const uint64_t elements = tensor.strides[0] * shape[0];
    tensor.address = device_.allocate(elements * bits_of(type) / 8);
    std::vector<uint16_t> bits(elements * bits_of(type) / 16);
    uint32_t state = 12345;
    for (uint16_t& word : bits) {
      state = state * 1664525u + 1013904223u;
      // Sign, and an exponent and mantissa below 1.0 of the type.
      const uint16_t magnitude =
          type == DType::kF16 ? 0x3000 + (state >> 20) % 0x0C00 : 0x3E00 + (state >> 20) % 0x0180;
      word = static_cast<uint16_t>(((state >> 8) & 0x8000u) | magnitude);
    }
    device_.copy_in(tensor.address, bits.data(), bits.size() * 2, nullptr);
  }

  Device& device_;
  Shape shape_;
};

struct Candidate {
  std::shared_ptr<const Kernel> kernel;
  std::string schedule;
  std::vector<double> ms;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void time_shape(const Options& options, Device& device, const Variant& variant, const Shape& shape,
                std::vector<Candidate>& candidates) {
  uint64_t workspace = 256;
  AttentionArgs sizes;
  {
    const Problem probe(device, variant, {shape.b, shape.h, 1, 1}, 256);
    sizes = probe.args;
  }
  const int64_t tokens[] = {shape.m, shape.n, shape.n, shape.m, shape.m};
  for (int i = 0; i < kNumOperands; ++i) {
    Tensor& tensor = sizes.tensors[i];
    if (!tensor.given) continue;
    std::vector<int64_t> dims(tensor.shape.begin(), tensor.shape.begin() + tensor.rank);
    dims[2] = tokens[i];
    Problem::describe(tensor, dims, tensor.dtype);
  }
  for (const Candidate& candidate : candidates) {
    workspace = std::max(workspace, candidate.kernel->workspace_bytes(sizes));
  }
  const Problem problem(device, variant, shape, workspace);
  const auto timer = device.make_timer();
  const double causal = variant.mask.kind == MaskKind::kNone ? 1.0 : 0.5;
  const double flops = causal * 2.0 * shape.b * shape.h * static_cast<double>(shape.m) * shape.n *
                       (variant.head_dim + variant.value_head_dim);
  for (Candidate& candidate : candidates) {
    candidate.ms.clear();
    candidate.kernel->launch(problem.args, kBothPhases, nullptr);
    device.synchronize(nullptr);
  }
  const int repeats = std::clamp(static_cast<int>(4e13 / flops), 3, 200);
  for (int round = 0; round < options.rounds; ++round) {
    for (Candidate& candidate : candidates) {
      // Another candidate's codes may lie elsewhere in the workspace: each prepares its own.
      candidate.kernel->launch(problem.args, kBothPhases, nullptr);
      timer->start(nullptr);
      for (int i = 0; i < repeats; ++i)
        candidate.kernel->launch(problem.args, options.phases, nullptr);
      timer->stop(nullptr);
      candidate.ms.push_back(timer->elapsed_ms() / repeats);
    }
  }
  for (const Candidate& candidate : candidates) {
    const double ms = median(candidate.ms);
    const auto [low, high] = std::minmax_element(candidate.ms.begin(), candidate.ms.end());
    fmt::print("{:>2} {:>3} {:>6} {:>6}  {:8.3f} ms  +-{:4.1f}%  {:7.1f} TFLOPS  {} | {}\n",
               shape.b, shape.h, shape.m, shape.n, ms, 100 * (*high - *low) / ms / 2,
               flops / ms * 1e-9, variant.name, candidate.schedule);
  }
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  std::ifstream file(options.file);
  if (!file) fail(ErrorKind::kIo, "cannot read '{}'", options.file);
  std::stringstream text;
  text << file.rdbuf();
  const Variant variant = resolve_variants(options.file, text.str(), options.overrides).front();
  const std::shared_ptr<Device> device = open_device(options.device);
  Context context({.disk_cache = false}, Environment::read());
  std::vector<Candidate> candidates;
  for (const std::string& line : options.schedules) {
    const Schedule schedule =
        parse_schedule(line, default_schedule(variant, *device->info().target));
    try {
      const FoundKernel found = context.get(make_request(variant, schedule), device);
      candidates.push_back({found.kernel, found.kernel->artifact().schedule_text, {}});
      for (const KernelResources& kernel : found.kernel->artifact().resources) {
        if (kernel.kernel == "attention") {
          candidates.back().schedule += fmt::format(" [{} registers]", kernel.registers);
        }
      }
    } catch (const Error& error) {
      fmt::print("skipped {}: {}\n", print_schedule(schedule), error.what());
    }
  }
  for (const Shape& shape : options.shapes) {
    time_shape(options, *device, variant, shape, candidates);
  }
  return 0;
}

}  // namespace
}  // namespace sagejit

int main(int argc, char** argv) {
  try {
    return sagejit::run(argc, argv);
  } catch (const sagejit::Error& error) {
    fmt::print(stderr, "attention_bench: error: {}\n{}\n", error.what(), error.log());
    return 1;
  }
}
