#include "tools/cli/variant_options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "tools/cli/files.h"

namespace sagejit::cli {
namespace {

bool fits(const Variant& variant, const DataTraits& traits) {
  return traits.head_dim.value_or(variant.head_dim) == variant.head_dim &&
         traits.value_head_dim.value_or(variant.value_head_dim) == variant.value_head_dim;
}

}  // namespace

void VariantOptions::add_to(CLI::App& command) {
  command.add_option("--set", overrides, "Override a key of every variant, e.g. mask=none")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all();
  command
      .add_option("--select,--variant", selector,
                  "Pick by name or values, e.g. 'sage1_b[head_dim=64]' or head_dim=64")
      ->type_name("SELECTOR");
}

std::vector<Variant> load_variants(const std::string& file, const VariantOptions& options) {
  std::vector<Override> overrides;
  for (const std::string& text : options.overrides) overrides.push_back(parse_override(text));
  Resolved resolved = resolve_file(display_name(file), read_text(file), overrides);
  for (const std::string& warning : resolved.warnings) fmt::print(stderr, "{}\n", warning);
  return select_variants(std::move(resolved.variants), options.selector);
}

const Variant& choose_for_data(const std::vector<Variant>& variants, const DataTraits& traits) {
  const auto found = std::find_if(variants.begin(), variants.end(),
                                  [&](const Variant& variant) { return fits(variant, traits); });
  if (found != variants.end()) return *found;
  std::set<std::string> known;
  for (const Variant& variant : variants) {
    known.insert(variant.head_dim == variant.value_head_dim
                     ? fmt::format("{}", variant.head_dim)
                     : fmt::format("{} (V: {})", variant.head_dim, variant.value_head_dim));
  }
  const int d = traits.head_dim.value_or(0), dv = traits.value_head_dim.value_or(d);
  fail(ErrorKind::kArgument,
       "the data have head_dim {}{}, but the selected variants have {}; to ask for it: --set "
       "head_dim={}{}",
       d, dv == d ? "" : fmt::format(" and {} for V", dv), fmt::join(known, ", "), d,
       dv == d ? "" : fmt::format(" --set value_head_dim={}", dv));
}

const Variant& choose_first(const std::vector<Variant>& variants) {
  if (variants.size() > 1) {
    fmt::print(
        stderr,
        "sagejit: note: {} variants are selected and {} is taken; choose with --select or --set, "
        "see `sagejit check --list`\n",
        variants.size(), variants.front().name);
  }
  return variants.front();
}

}  // namespace sagejit::cli
