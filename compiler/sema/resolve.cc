#include "compiler/sema/resolve.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "compiler/dsl/parser.h"
#include "compiler/sema/check.h"
#include "compiler/sema/keys.h"
#include "compiler/sema/print.h"
#include "compiler/support/error.h"
#include "compiler/support/suggest.h"

namespace sagejit {
namespace {

constexpr size_t kMaxInstances = 4096;  // of one file
constexpr size_t kMaxAncestors = 64;

// An entry whose key is known; its values were read once, and diagnosed.
struct CheckedEntry {
  const Key* key = nullptr;
  const dsl::Entry* entry = nullptr;
  const dsl::VariantNode* owner = nullptr;  // null: an override
  bool valid = false;
};

using CheckedEntries = std::vector<CheckedEntry>;

class Resolver {
 public:
  Resolver(std::string_view name, std::string_view text, std::span<const Override> overrides)
      : file_{std::string(name), std::string(text)} {
    nodes_ = dsl::parse_file(file_, diagnostics_);
    for (const Override& override : overrides) parse_override(override);
  }

  Resolved run() {
    check_names();
    for (const dsl::VariantNode& node : nodes_) {
      entries_[&node] = check_entries(node.entries, &node);
    }
    overrides_ = check_entries(override_entries_, nullptr);
    for (const dsl::VariantNode& node : nodes_) resolve(node);
    warn_about_unused();
    if (nodes_.empty() && diagnostics_.num_errors() == 0) {
      diagnostics_.error({&file_, 0, 0}, "the file defines no variant",
                         "a variant is written name { head_dim = 64 }");
    }
    diagnostics_.throw_if_errors();
    return {std::move(variants_), diagnostics_.warnings()};
  }

 private:
  void parse_override(const Override& override) {
    const bool is_sweep = override.value.starts_with('{');
    override_files_.push_back(
        {"<set>", fmt::format("{}{}{}", override.key, is_sweep ? " in " : "=", override.value)});
    const SourceFile& file = override_files_.back();
    const size_t errors_before = diagnostics_.num_errors();
    if (auto entry = dsl::parse_single_entry(file, diagnostics_)) {
      override_entries_.push_back(std::move(*entry));
    } else if (diagnostics_.num_errors() == errors_before) {
      diagnostics_.error({&file, 0, 0}, "an override is written key=value");
    }
  }

  void check_names() {
    for (const dsl::VariantNode& node : nodes_) {
      const auto [known, is_new] = by_name_.emplace(node.name.text, &node);
      if (is_new) continue;
      diagnostics_.error(node.name.span,
                         fmt::format("variant `{}` is defined twice", node.name.text),
                         fmt::format("the first is on line {}", known->second->name.line));
    }
  }

  CheckedEntries check_entries(const std::vector<dsl::Entry>& entries,
                               const dsl::VariantNode* owner) {
    CheckedEntries checked;
    std::map<const Key*, int> first_line;
    for (const dsl::Entry& entry : entries) {
      const Key* key = find_key(entry.key.text);
      if (!key) {
        std::string note = did_you_mean(entry.key.text, key_names());
        if (note.empty()) note = fmt::format("the keys are {}", list_words(key_names(), "and"));
        diagnostics_.error(entry.key.span, fmt::format("`{}` is not a key", entry.key.text), note);
        incomplete_.insert(owner);
        continue;
      }
      const auto [first, is_new] = first_line.emplace(key, entry.key.line);
      if (!is_new) {
        diagnostics_.error(entry.key.span, fmt::format("`{}` is given twice", key->name),
                           owner ? fmt::format("the first is on line {}", first->second)
                                 : "each key can be overridden once");
        continue;
      }
      checked.push_back({key, &entry, owner, check_values(*key, entry)});
    }
    return checked;
  }

  bool check_values(const Key& key, const dsl::Entry& entry) {
    bool valid = !entry.values.empty();
    std::set<std::string> texts;
    for (const dsl::Value& value : entry.values) {
      Variant scratch;
      if (!read(key, value, entry.is_sweep, scratch)) {
        valid = false;
      } else if (!texts.insert(key.print(scratch)).second) {
        diagnostics_.error(value.span(),
                           fmt::format("this value of `{}` is listed twice", key.name));
        valid = false;
      }
    }
    return valid;
  }

  bool read(const Key& key, const dsl::Value& value, bool in_sweep, Variant& into) {
    try {
      dsl::ValueReader reader(value, diagnostics_);
      key.read(reader, into);
      reader.expect_end(in_sweep ? "the values of a sweep are separated by commas"
                                 : "entries are separated by a new line or `;`");
      return true;
    } catch (const dsl::ValueRejected&) {
      return false;
    }
  }

  // The variant and what it inherits from, the root first; empty once an error is reported.
  std::vector<const dsl::VariantNode*> lineage(const dsl::VariantNode& node) {
    std::vector<const dsl::VariantNode*> chain{&node};
    while (chain.back()->base) {
      const dsl::Name& base = *chain.back()->base;
      const auto found = by_name_.find(base.text);
      if (found == by_name_.end()) {
        std::vector<std::string_view> names;
        for (const auto& [name, other] : by_name_) names.push_back(name);
        std::string note = did_you_mean(base.text, names);
        if (note.empty()) note = "bases are variants of the same file, abstract or not";
        diagnostics_.error(base.span,
                           fmt::format("there is no variant `{}` to inherit from", base.text),
                           std::move(note));
        return {};
      }
      const auto repeated = std::find(chain.begin(), chain.end(), found->second);
      if (repeated != chain.end()) {
        if (repeated == chain.begin()) report_cycle(chain);
        return {};
      }
      chain.push_back(found->second);
      if (chain.size() > kMaxAncestors) {
        diagnostics_.error(node.base->span,
                           fmt::format("`{}` inherits through more than {} variants",
                                       node.name.text, kMaxAncestors));
        return {};
      }
    }
    std::reverse(chain.begin(), chain.end());
    return chain;
  }

  void report_cycle(const std::vector<const dsl::VariantNode*>& chain) {
    for (const dsl::VariantNode* member : chain) {
      if (!in_reported_cycle_.insert(member).second) return;
    }
    std::string path;
    for (const dsl::VariantNode* member : chain) path += member->name.text + " : ";
    const dsl::VariantNode& first = *chain.front();
    diagnostics_.error(first.base->span, fmt::format("`{}` inherits from itself", first.name.text),
                       path + first.name.text);
  }

  // The entries that hold for a variant: its own over its base's, overrides over all; each key
  // once.
  CheckedEntries effective_entries(const std::vector<const dsl::VariantNode*>& chain) const {
    CheckedEntries effective;
    const auto add = [&](const CheckedEntries& entries) {
      for (const CheckedEntry& entry : entries) {
        const auto same = std::find_if(effective.begin(), effective.end(),
                                       [&](const CheckedEntry& e) { return e.key == entry.key; });
        if (same == effective.end()) {
          effective.push_back(entry);
        } else {
          *same = entry;
        }
      }
    };
    for (const dsl::VariantNode* node : chain) add(entries_.at(node));
    add(overrides_);
    return effective;
  }

  void resolve(const dsl::VariantNode& node) {
    const std::vector<const dsl::VariantNode*> chain = lineage(node);
    for (const dsl::VariantNode* ancestor : chain) {
      if (ancestor != &node) has_heirs_.insert(ancestor);
    }
    if (chain.empty() || node.is_abstract || by_name_.at(node.name.text) != &node) return;
    const CheckedEntries entries = effective_entries(chain);
    if (!find_entry(entries, "head_dim")) {
      const auto is_incomplete = [this](const dsl::VariantNode* n) {
        return n->is_broken || incomplete_.contains(n);
      };
      if (std::any_of(chain.begin(), chain.end(), is_incomplete)) return;
      diagnostics_.error(
          node.name.span, fmt::format("variant `{}` has no head_dim", node.name.text),
          "write head_dim = 64, or `abstract` before the name of a variant that only "
          "serves others as a base");
      return;
    }
    size_t num_instances = 1;
    for (const CheckedEntry& e : entries) {
      num_instances *= std::max<size_t>(e.entry->values.size(), 1);
      if (variants_.size() + num_instances > kMaxInstances) {
        diagnostics_.error(node.name.span,
                           fmt::format("the sweeps of `{}` make more than {} variants",
                                       node.name.text, kMaxInstances),
                           "sweep over fewer keys, or set some of them");
        return;
      }
    }
    warn_about_rough_k(node, entries);
    for (size_t i = 0; i < num_instances; ++i) make_instance(node, entries, i);
  }

  static const CheckedEntry* find_entry(const CheckedEntries& entries, std::string_view key) {
    const auto found = std::find_if(entries.begin(), entries.end(),
                                    [&](const CheckedEntry& e) { return e.key->name == key; });
    return found == entries.end() ? nullptr : &*found;
  }

  // The values that instance number `index` takes; the last sweep varies fastest.
  static std::vector<const dsl::Value*> choose(const CheckedEntries& entries, size_t index) {
    std::vector<const dsl::Value*> chosen(entries.size());
    for (size_t i = entries.size(); i-- > 0;) {
      const std::vector<dsl::Value>& values = entries[i].entry->values;
      if (values.empty()) continue;
      chosen[i] = &values[index % values.size()];
      index /= values.size();
    }
    return chosen;
  }

  void make_instance(const dsl::VariantNode& node, const CheckedEntries& entries, size_t index) {
    const std::vector<const dsl::Value*> chosen = choose(entries, index);
    Variant variant;
    KeySet given;
    bool valid = true;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].valid) {
        read(*entries[i].key, *chosen[i], entries[i].entry->is_sweep, variant);
        given.set(place_of(*entries[i].key));
      }
      valid &= entries[i].valid;
    }
    fill_defaults(variant, given);
    variant.name = instance_name(node, entries, variant);
    for (const Contradiction& c : find_contradictions(variant)) {
      valid = false;
      report(c, node, entries, chosen, variant);
    }
    if (!valid) return;
    const auto [same, is_new] = by_text_.emplace(canonical_key_text(variant), variant.name);
    if (!is_new) {
      diagnostics_.warning(node.name.span, fmt::format("`{}` computes the same as `{}`",
                                                       variant.name, same->second));
    }
    variants_.push_back(std::move(variant));
  }

  static std::string instance_name(const dsl::VariantNode& node, const CheckedEntries& entries,
                                   const Variant& variant) {
    std::string axes;
    for (const CheckedEntry& e : entries) {
      if (!e.entry->is_sweep) continue;
      axes += fmt::format("{}{}={}", axes.empty() ? "" : ", ", e.key->name, e.key->print(variant));
    }
    return axes.empty() ? node.name.text : fmt::format("{}[{}]", node.name.text, axes);
  }

  static Span number_in(const dsl::Value& value) {
    for (auto token = value.tokens.rbegin(); token != value.tokens.rend(); ++token) {
      if (token->kind == dsl::TokenKind::kNumber) return token->span;
    }
    return value.span();
  }

  // Points at the value of the key at fault or, where that is a default, at a value it clashes
  // with.
  void report(const Contradiction& c, const dsl::VariantNode& node, const CheckedEntries& entries,
              const std::vector<const dsl::Value*>& chosen, const Variant& variant) {
    std::vector<std::string_view> keys{c.key};
    keys.insert(keys.end(), c.involved.begin(), c.involved.end());
    for (std::string_view key : keys) {
      // What could not be read has its own message, and must not draw others.
      const CheckedEntry* entry = find_entry(entries, key);
      if (entry && !entry->valid) return;
    }
    Diagnostic diagnostic{Severity::kError, node.name.span, c.message, {}};
    const dsl::VariantNode* owner = &node;
    for (std::string_view key : keys) {
      const CheckedEntry* entry = find_entry(entries, key);
      if (!entry) continue;
      const dsl::Value& value = *chosen[entry - entries.data()];
      diagnostic.span = c.about_number && key == c.key ? number_in(value) : value.span();
      owner = entry->owner;
      break;
    }
    if (!c.note.empty()) diagnostic.notes.push_back(c.note);
    for (std::string_view key : keys) {
      const CheckedEntry* entry = find_entry(entries, key);
      if (entry && !entry->owner && owner) {
        diagnostic.notes.push_back(
            fmt::format("`{}` is overridden, to {}", key, entry->key->print(variant)));
      }
      if (entry) continue;
      diagnostic.notes.push_back(fmt::format("`{}` is not given, and is {} by default", key,
                                             find_key(key)->print(variant)));
    }
    if (!c.involved.empty() && (!owner || owner->name.text != variant.name)) {
      diagnostic.notes.push_back(fmt::format("so in variant `{}`", variant.name));
    }
    diagnostics_.add(std::move(diagnostic));
  }

  void warn_about_rough_k(const dsl::VariantNode& node, const CheckedEntries& entries) {
    if (find_entry(entries, "smooth_k") || !find_entry(entries, "k")) return;
    diagnostics_.warning(
        node.name.span,
        fmt::format("`{}` quantizes K without saying whether to smooth it", node.name.text),
        "smooth_k = mean keeps the accuracy where channels of K have a bias; "
        "smooth_k = none, the default, saves a pass");
  }

  void warn_about_unused() {
    for (const dsl::VariantNode& node : nodes_) {
      if (!node.is_abstract || has_heirs_.contains(&node)) continue;
      diagnostics_.warning(node.name.span,
                           fmt::format("no variant inherits from abstract `{}`", node.name.text));
    }
  }

  SourceFile file_;
  std::deque<SourceFile> override_files_;
  Diagnostics diagnostics_;
  std::vector<dsl::VariantNode> nodes_;
  std::vector<dsl::Entry> override_entries_;
  std::map<std::string, const dsl::VariantNode*> by_name_;
  std::map<const dsl::VariantNode*, CheckedEntries> entries_;
  CheckedEntries overrides_;
  std::set<const dsl::VariantNode*> in_reported_cycle_;
  std::set<const dsl::VariantNode*>
      incomplete_;  // an entry was not understood: others may seem to lack
  std::set<const dsl::VariantNode*> has_heirs_;
  std::map<std::string, std::string> by_text_;  // canonical text to the first variant that has it
  std::vector<Variant> variants_;
};

}  // namespace

Override parse_override(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) {
    fail(ErrorKind::kArgument, "override `{}` is not of the form key=value, such as head_dim=64",
         text);
  }
  return {std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

Resolved resolve_file(std::string_view file_name, std::string_view text,
                      std::span<const Override> overrides) {
  return Resolver(file_name, text, overrides).run();
}

std::vector<Variant> resolve_variants(std::string_view file_name, std::string_view text,
                                      std::span<const Override> overrides) {
  return resolve_file(file_name, text, overrides).variants;
}

}  // namespace sagejit
