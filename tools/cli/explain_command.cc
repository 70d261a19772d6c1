// sagejit explain: what a variant becomes on a target, and what will limit it.
#include <fmt/format.h>

#include <memory>
#include <string>

#include "tools/cli/build_options.h"
#include "tools/cli/commands.h"
#include "tools/cli/explain_report.h"
#include "tools/cli/shape.h"
#include "tools/cli/variant_options.h"

namespace sagejit::cli {
namespace {

struct ExplainOptions {
  std::string file;
  std::string target;
  VariantOptions variant;
  std::string schedule;
  std::string shape;
  bool json = false;
};

ExplainedProblem problem_of(const ExplainOptions& options) {
  const ExplainedProblem fallback;
  const ShapeOption shape = parse_shape(
      options.shape, {fallback.b, fallback.hq, fallback.hkv, fallback.m, fallback.n, 0, 0});
  if (shape.has_d || shape.has_dv) {
    fail(ErrorKind::kArgument, "--shape: the variant says d and dv; write --set head_dim=N");
  }
  const reference::ProblemShape& s = shape.shape;
  return {s.b, s.hq, s.hkv, s.m, s.n};
}

ExitCode run_explain(const ExplainOptions& options) {
  CompileRequest request;
  request.target = &find_target(options.target);
  request.variant = choose_first(load_variants(options.file, options.variant));
  BuildOptions build;
  build.schedule = options.schedule;
  request.schedule = build.parsed_schedule(request.variant, *request.target);
  const Explanation explanation = explain(request, problem_of(options));
  fmt::print("{}", options.json ? to_json_text(explanation) : to_text(explanation));
  return kSuccess;
}

}  // namespace

void add_explain(CLI::App& app, ExitCode& result) {
  auto options = std::make_shared<ExplainOptions>();
  CLI::App* command =
      app.add_subcommand("explain", "Say what a variant computes, how, and what limits it");
  command->add_option("FILE", options->file, "Variant file (.attn); - for standard input")
      ->required();
  command->add_option("--target", options->target, "What to compile for, e.g. sm_80, sm_90a")
      ->required()
      ->type_name("TARGET");
  options->variant.add_to(*command);
  BuildOptions::add_schedule_to(*command, options->schedule);
  command
      ->add_option("--shape", options->shape,
                   "Sizes that least times are told for, any of b, hq, hkv, m, n "
                   "(default b=1,hq=32,m=4096)")
      ->type_name("b=..,hq=..");
  command->add_flag("--json", options->json, "Print it as JSON");
  command->footer(
      "Nothing is compiled or run: limits are predicted from the operations of the kernel IR and "
      "the target's\n"
      "rates (compiler/target/throughput.def), as if all units overlapped perfectly.\n"
      "Examples:\n"
      "  sagejit explain sage1_b.attn --target sm_80 --set head_dim=128\n"
      "  sagejit explain sage2_8_8.attn --target sm_90a --select sage2_8_8_fast_thread --json");
  command->callback([options, &result] { result = run_explain(*options); });
}

}  // namespace sagejit::cli
