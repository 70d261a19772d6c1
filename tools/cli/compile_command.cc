// sagejit compile: one variant for one target, into a file and into the kernel cache.
#include <fmt/format.h>
#include <unistd.h>

#include <map>
#include <memory>

#include "tools/cli/artifact_report.h"
#include "tools/cli/build_options.h"
#include "tools/cli/commands.h"
#include "tools/cli/files.h"
#include "tools/cli/progress.h"
#include "tools/cli/variant_options.h"

namespace sagejit::cli {
namespace {

enum class Emit { kIr, kSource, kPtx, kCubin, kReport };
const std::map<std::string, Emit> kEmitNames = {{"ir", Emit::kIr},
                                                {"source", Emit::kSource},
                                                {"ptx", Emit::kPtx},
                                                {"cubin", Emit::kCubin},
                                                {"report", Emit::kReport}};

struct CompileOptions {
  std::string file;
  std::string target;
  VariantOptions variant;
  BuildOptions build;
  Emit emit = Emit::kReport;
  std::string output = "-";
};

Artifact build_artifact(const CompileOptions& options, const CompileRequest& request) {
  BuildTimes times;
  Progress progress;
  progress.show(fmt::format("compiling {} for {}", request.variant.name, request.target->name));
  const std::unique_ptr<Context> context = make_context(options.build, times);
  return context->obtain(request).artifact;
}

std::string emitted(const CompileOptions& options, const CompileRequest& request) {
  switch (options.emit) {
    case Emit::kIr:
      return emit_ir(request);
    case Emit::kSource:
      return emit_source(request);
    case Emit::kPtx:
      return build_artifact(options, request).ptx;
    case Emit::kReport:
      return describe_artifact(build_artifact(options, request));
    case Emit::kCubin:
      break;
  }
  const Artifact artifact = build_artifact(options, request);
  return {artifact.cubin.begin(), artifact.cubin.end()};
}

ExitCode run_compile(const CompileOptions& options) {
  CompileRequest request;
  request.target = &find_target(options.target);
  request.variant = choose_first(load_variants(options.file, options.variant));
  request.schedule = options.build.parsed_schedule(request.variant, *request.target);
  request.assemble = options.emit == Emit::kCubin || options.emit == Emit::kReport;
  if (options.emit == Emit::kCubin && options.output == "-" && isatty(STDOUT_FILENO)) {
    fail(ErrorKind::kArgument, "a cubin is no text for a terminal; name a file with -o");
  }
  write_file(options.output, emitted(options, request));
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
  command->add_option("--emit", options->emit, "ir, source, ptx, cubin or report (default)")
      ->transform(CLI::CheckedTransformer(kEmitNames, CLI::ignore_case).description(""))
      ->type_name("FORM");
  command->add_option("-o,--output", options->output, "Output file (default: standard output)")
      ->type_name("PATH");
  command->footer(
      "The kernel also goes into the kernel cache, where a later run finds it. The first value of "
      "every\n"
      "sweep is compiled unless --select or --set says otherwise.\n"
      "Examples:\n"
      "  sagejit compile sage1_b.attn --target sm_80\n"
      "  sagejit compile sage1_b.attn --target sm_80 --set head_dim=128 --emit cubin -o "
      "kernel.cubin");
  command->callback([options, &result] { result = run_compile(*options); });
}

}  // namespace sagejit::cli
