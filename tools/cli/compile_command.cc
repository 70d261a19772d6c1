// sagejit compile: one variant for one target, into a file and into the kernel cache.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <memory>

#include "runtime/toolchain/nvdisasm.h"
#include "runtime/toolchain/search.h"
#include "tools/cli/artifact_report.h"
#include "tools/cli/build_options.h"
#include "tools/cli/cautions.h"
#include "tools/cli/commands.h"
#include "tools/cli/files.h"
#include "tools/cli/one_of.h"
#include "tools/cli/progress.h"
#include "tools/cli/variant_options.h"

namespace sagejit::cli {
namespace {

enum class Emit { kIr, kSource, kPtx, kCubin, kSass, kReport };
const std::map<std::string, Emit> kEmitNames = {{"ir", Emit::kIr},     {"source", Emit::kSource},
                                                {"ptx", Emit::kPtx},   {"cubin", Emit::kCubin},
                                                {"sass", Emit::kSass}, {"report", Emit::kReport}};

struct CompileOptions {
  std::string file;
  std::string target;
  VariantOptions variant;
  BuildOptions build;
  Emit emit = Emit::kReport;
  std::string kernel;  // "": all
  std::string output = "-";
  bool times = false;
};

Artifact build_artifact(const CompileOptions& options, const CompileRequest& request) {
  BuildTimes times;
  Progress progress;
  progress.show(fmt::format("compiling {} for {}", request.variant.name, request.target->name));
  const std::unique_ptr<Context> context = make_context(options.build, times);
  Artifact artifact = context->obtain(request).artifact;
  progress.clear();
  if (options.times) fmt::print(stderr, "{}", stage_table(stages_of(times)));
  return artifact;
}

std::string sass_of(const KernelModule& module) {
  const Environment environment = Environment::read();
  const SearchResult search = search_nvdisasm(SearchOptions::from(environment));
  if (search.file.empty()) fail(ErrorKind::kToolchain, "{}", nvdisasm_failure(search));
  const std::string& folder = environment.tmpdir;
  return disassemble(search.file, module.cubin, folder.empty() ? "/tmp" : folder);
}

std::vector<KernelText> code_of(const Artifact& artifact, Emit emit) {
  std::vector<KernelText> code;
  for (const KernelModule& module : artifact.modules) {
    if (emit != Emit::kPtx && module.cubin.empty()) {
      fail(ErrorKind::kUnsupported,
           "{} keeps its machine code to itself; for a cubin take --assembler ptxas or nvrtc",
           artifact.assembler);
    }
    code.push_back({module.kernel, emit == Emit::kPtx ? module.ptx
                                   : emit == Emit::kSass
                                       ? sass_of(module)
                                       : std::string(module.cubin.begin(), module.cubin.end())});
  }
  return code;
}

// A form of every kernel, or of the one that was chosen.
std::vector<KernelText> emitted(const CompileOptions& options, const CompileRequest& request) {
  std::vector<KernelText> all = options.emit == Emit::kIr ? emit_ir(request)
                                : options.emit == Emit::kSource
                                    ? emit_source(request)
                                    : code_of(build_artifact(options, request), options.emit);
  if (options.kernel.empty()) return all;
  std::vector<std::string> names;
  for (KernelText& form : all) {
    if (form.kernel == options.kernel) return {std::move(form)};
    names.push_back(form.kernel);
  }
  fail(ErrorKind::kArgument, "--kernel: '{}' is none of {}", options.kernel,
       fmt::join(names, ", "));
}

// "dir/kernel.cubin", "attention" -> "dir/kernel.attention.cubin"
std::string path_of(const std::string& output, const std::string& kernel) {
  std::filesystem::path path = output;
  path.replace_filename(
      fmt::format("{}.{}{}", path.stem().string(), kernel, path.extension().string()));
  return path.string();
}

// Standard output, a pipe or a device, where one form follows another.
bool is_stream(const std::string& output) {
  std::error_code none;
  const auto status = std::filesystem::status(output, none);
  return output == "-" ||
         (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status) &&
          !std::filesystem::is_directory(status));
}

void write_stream(const CompileOptions& options, const std::vector<KernelText>& forms) {
  if (options.emit == Emit::kCubin && forms.size() > 1) {
    fail(ErrorKind::kArgument,
         "the cubins of {} kernels make no stream; choose one with --kernel, or name files with -o",
         forms.size());
  }
  std::string text;
  for (const KernelText& form : forms) {
    if (options.kernel.empty() && options.emit != Emit::kIr) {
      text += fmt::format("// kernel {}\n", form.kernel);
    }
    text += form.text;
    if (forms.size() > 1) text += '\n';
  }
  write_file(options.output, text);
}

void write_forms(const CompileOptions& options, const std::vector<KernelText>& forms) {
  if (is_stream(options.output)) return write_stream(options, forms);
  for (const KernelText& form : forms) {
    const std::string path =
        options.kernel.empty() ? path_of(options.output, form.kernel) : options.output;
    write_file(path, form.text);
    fmt::print("{}\n", path);
  }
}

ExitCode run_compile(const CompileOptions& options) {
  CompileRequest request;
  request.target = &find_target(options.target);
  request.variant = choose_first(load_variants(options.file, options.variant));
  request.schedule = options.build.parsed_schedule(request.variant, *request.target);
  request.assemble =
      options.emit == Emit::kCubin || options.emit == Emit::kSass || options.emit == Emit::kReport;
  const BackendChoice backend = options.build.toolchain.backend;
  if (options.emit == Emit::kSource && backend != BackendChoice::kAuto &&
      backend != BackendChoice::kCuda) {
    fail(ErrorKind::kArgument,
         "the {} back end writes no source but its PTX: --emit ptx; or take --backend cuda",
         kBackendNames[static_cast<size_t>(backend)]);
  }
  if (options.emit == Emit::kReport && !options.kernel.empty()) {
    fail(ErrorKind::kArgument, "a report is of all kernels: --kernel goes with another --emit");
  }
  if (options.emit == Emit::kCubin && options.output == "-" && isatty(STDOUT_FILENO)) {
    fail(ErrorKind::kArgument, "a cubin is no text for a terminal; name a file with -o");
  }
  print_cautions(request.variant, *request.target);
  if (options.emit == Emit::kReport) {
    write_file(options.output, describe_artifact(build_artifact(options, request)));
  } else {
    write_forms(options, emitted(options, request));
  }
  return kSuccess;
}

}  // namespace

void add_compile(CLI::App& app, ExitCode& result) {
  auto options = std::make_shared<CompileOptions>();
  CLI::App* command = app.add_subcommand("compile", "Compile one variant for one target");
  command->add_option("FILE", options->file, "Variant file (.attn); - for standard input")
      ->required();
  command->add_option("--target", options->target, "What to compile for, e.g. sm_80, sm_90a")
      ->required()
      ->type_name("TARGET");
  options->variant.add_to(*command);
  options->build.add_to(*command);
  command
      ->add_option("--emit", options->emit,
                   "ir, source (CUDA C++), ptx, cubin, sass (by nvdisasm) or report (default)")
      ->transform(one_of(kEmitNames))
      ->type_name("FORM");
  command->add_option("--kernel", options->kernel, "Emit that kernel only, e.g. attention")
      ->type_name("NAME");
  command->add_option("-o,--output", options->output, "Output file (default: standard output)")
      ->type_name("PATH");
  command->add_flag("--times", options->times, "Say on standard error what each stage took");
  command->footer(
      "The kernel also goes into the kernel cache, where a later run finds it. The first value of "
      "every\n"
      "sweep is compiled unless --select or --set says otherwise.\n"
      "Each kernel is a module of its own: all forms but report go into a file for each, PATH "
      "with the\n"
      "kernel's name before its extension; with --kernel into PATH itself. On standard output they "
      "follow one\n"
      "another, but for cubins.\n"
      "Examples:\n"
      "  sagejit compile sage1_b.attn --target sm_80\n"
      "  sagejit compile sage1_b.attn --target sm_80 --set head_dim=128 --emit cubin -o "
      "kernel.cubin\n"
      "  sagejit compile sage1_b.attn --target sm_80 --emit ptx --kernel attention");
  command->callback([options, &result] { result = run_compile(*options); });
}

}  // namespace sagejit::cli
