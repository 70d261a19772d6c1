// Which variant a command is about: a file, overrides and a selector.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "compiler/sema/variant.h"

namespace sagejit::cli {

struct VariantOptions {
  std::vector<std::string> overrides;  // key=value
  std::string selector;

  void add_to(CLI::App& command);
};

// The variants of a file after --set and --select; warnings go to stderr. Throws Error{kSpec},
// kArgument, kIo.
std::vector<Variant> load_variants(const std::string& file, const VariantOptions& options);

// What the data say about the variant; unset: anything goes.
struct DataTraits {
  std::optional<int> head_dim, value_head_dim;
};

// The first variant that fits the data: the first value of every other sweep.
// Throws Error{kArgument} with the head dims there are.
const Variant& choose_for_data(const std::vector<Variant>& variants, const DataTraits& traits);

// The first of the selected variants: the first value of every sweep. A note on stderr says so
// where there are others.
const Variant& choose_first(const std::vector<Variant>& variants);

}  // namespace sagejit::cli
