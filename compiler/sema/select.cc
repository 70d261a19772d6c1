#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "compiler/dsl/parser.h"
#include "compiler/sema/keys.h"
#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "compiler/support/suggest.h"

namespace sagejit {
namespace {

constexpr size_t kMaxListed = 20;

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// The part of an instance's name before its sweep values.
std::string_view stem_of(std::string_view name) {
  return name.substr(0, name.find('['));
}

// At the commas that no parentheses enclose.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  int depth = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] == '(') ++depth;
    if (i < text.size() && text[i] == ')') --depth;
    if (i == text.size() || (text[i] == ',' && depth == 0)) {
      parts.push_back(trim(text.substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  return parts;
}

// The values a variant must have, as text `key=value`.
struct Selector {
  std::optional<std::string_view> stem;
  std::vector<std::string_view> filters;
};

Selector parse_selector(std::string_view text) {
  const size_t bracket = text.find('[');
  const size_t equals = text.find('=');
  if (bracket < equals && text.ends_with(']')) {
    return {trim(text.substr(0, bracket)),
            split(text.substr(bracket + 1, text.size() - bracket - 2))};
  }
  if (equals == std::string_view::npos) return {text, {}};
  return {std::nullopt, split(text)};
}

struct Filter {
  const Key* key;
  dsl::Entry entry;
};

// Whether giving the variant that value changes nothing.
bool has_value(const Variant& variant, const Filter& filter, Diagnostics& diagnostics) {
  Variant changed = variant;
  dsl::ValueReader reader(filter.entry.values.front(), diagnostics);
  filter.key->read(reader, changed);
  reader.expect_end("filters are separated by commas");
  fill_defaults(changed, KeySet{}.set());
  return filter.key->print(changed) == filter.key->print(variant);
}

std::vector<Variant> keep_matching(std::vector<Variant> variants, std::string_view filter_text) {
  const SourceFile file{"<select>", std::string(filter_text)};
  Diagnostics diagnostics;
  std::optional<dsl::Entry> entry = dsl::parse_single_entry(file, diagnostics);
  diagnostics.throw_if_errors();
  if (!entry || entry->is_sweep) {
    fail(ErrorKind::kArgument, "filter `{}` is not of the form key=value, such as head_dim=64",
         filter_text);
  }
  const Key* key = find_key(entry->key.text);
  if (!key) {
    diagnostics.error(entry->key.span, fmt::format("`{}` is not a key", entry->key.text),
                      did_you_mean(entry->key.text, key_names()));
    diagnostics.throw_if_errors();
  }
  const Filter filter{key, std::move(*entry)};
  try {
    std::erase_if(variants, [&](const Variant& v) { return !has_value(v, filter, diagnostics); });
  } catch (const dsl::ValueRejected&) {
  }
  diagnostics.throw_if_errors();
  return variants;
}

[[noreturn]] void none_matches(const std::vector<Variant>& candidates, std::string_view selector) {
  std::vector<std::string_view> names, stems;
  for (const Variant& v : candidates) {
    names.push_back(v.name);
    if (stems.empty() || stems.back() != stem_of(v.name)) stems.push_back(stem_of(v.name));
  }
  std::string message = fmt::format("no variant matches `{}`", selector);
  const std::string suggestion = did_you_mean(stem_of(selector), stems);
  if (!suggestion.empty() && nearest_word(stem_of(selector), stems) != stem_of(selector)) {
    message += ": " + suggestion;
  }
  message += candidates.empty() ? "; there are no variants" : "; the candidates are";
  for (size_t i = 0; i < std::min(names.size(), kMaxListed); ++i) {
    message += fmt::format("\n  {}", names[i]);
  }
  if (names.size() > kMaxListed) {
    message += fmt::format("\n  ... and {} more", names.size() - kMaxListed);
  }
  throw Error(ErrorKind::kArgument, std::move(message));
}

}  // namespace

std::vector<Variant> select_variants(std::vector<Variant> variants, std::string_view selector) {
  selector = trim(selector);
  if (selector.empty()) return variants;
  const auto exact = std::find_if(variants.begin(), variants.end(),
                                  [&](const Variant& v) { return v.name == selector; });
  if (exact != variants.end()) return {*exact};
  const Selector parsed = parse_selector(selector);
  std::vector<Variant> picked = variants;
  if (parsed.stem) {
    std::erase_if(picked, [&](const Variant& v) { return stem_of(v.name) != *parsed.stem; });
  }
  for (std::string_view filter : parsed.filters) picked = keep_matching(std::move(picked), filter);
  if (picked.empty()) none_matches(variants, selector);
  return picked;
}

}  // namespace sagejit
