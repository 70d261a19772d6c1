// sagejit check: reads variant files and says what is in them, or what is wrong.
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "compiler/sema/check.h"
#include "compiler/sema/print.h"
#include "tools/cli/cautions.h"
#include "tools/cli/commands.h"
#include "tools/cli/files.h"
#include "tools/cli/variant_options.h"

namespace sagejit::cli {
namespace {

struct CheckOptions {
  std::vector<std::string> files;
  VariantOptions variant;
  std::string target;
  bool list = false;
  bool print = false;
};

void print_variants(const CheckOptions& options, const std::vector<Variant>& variants) {
  for (const Variant& variant : variants) {
    if (options.print) {
      fmt::print("{}\n", print_variant(variant));
    } else if (options.list) {
      fmt::print("  {}\n", variant.name);
    }
  }
}

// Unsupported variants are all reported; the first of other errors ends the file.
ExitCode check_file(const CheckOptions& options, const std::string& file, const Target* target) {
  ExitCode worst = kSuccess;
  try {
    const std::vector<Variant> variants = load_variants(file, options.variant);
    size_t num_supported = 0;
    Cautions cautions;
    for (const Variant& variant : variants) {
      if (!target) continue;
      try {
        check_supported(variant, *target);
        ++num_supported;
        cautions.add(variant, *target);
      } catch (const Error& error) {
        worst = report_error(error);
      }
    }
    cautions.print();
    // With --print the output is variant text and nothing else.
    if (!options.print) {
      fmt::print(
          "{}: {} variant{}{}\n", display_name(file), variants.size(),
          variants.size() == 1 ? "" : "s",
          target ? fmt::format(", {} supported on {}", num_supported, target->name) : ", valid");
    }
    print_variants(options, variants);
  } catch (const Error& error) {
    worst = report_error(error);
  }
  return worst;
}

ExitCode run_check(const CheckOptions& options) {
  const Target* target = options.target.empty() ? nullptr : &find_target(options.target);
  ExitCode first_failure = kSuccess;
  for (const std::string& file : options.files) {
    const ExitCode code = check_file(options, file, target);
    if (first_failure == kSuccess) first_failure = code;
  }
  return first_failure;
}

}  // namespace

void add_check(CLI::App& app, ExitCode& result) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App* command = app.add_subcommand("check", "Check variant files and show what they hold");
  command->add_option("FILE", options->files, "Variant files (.attn); - for standard input")
      ->required();
  options->variant.add_to(*command);
  command
      ->add_option("--target", options->target,
                   "Also check that this target can have them, e.g. sm_80")
      ->type_name("TARGET");
  command->add_flag("--list", options->list, "List the variants, sweeps spelled out");
  command->add_flag("--print", options->print, "Print the variants in canonical form");
  command->footer(
      "Examples:\n"
      "  sagejit check sage1_b.attn --list\n"
      "  sagejit check sage1_b.attn --target sm_80 --set head_dim=72");
  command->callback([options, &result] { result = run_check(*options); });
}

}  // namespace sagejit::cli
