#include "runtime/policy/policy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "compiler/sema/print.h"
#include "compiler/sema/resolve.h"
#include "compiler/support/diagnostic.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

constexpr std::string_view kHeader = "sagejit policy";
constexpr std::string_view kVariants = "[variants]", kLayers = "[layers]", kDefault = "default";

std::string_view without_comment(std::string_view line) {
  return line.substr(0, line.find('#'));
}

std::vector<std::string_view> words_of(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r";
  std::vector<std::string_view> words;
  for (;;) {
    const size_t begin = line.find_first_not_of(kBlanks);
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    const size_t end = std::min(line.find_first_of(kBlanks), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

std::optional<int64_t> step_of(std::string_view text) {
  int64_t step = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), step);
  const bool is_step = code == std::errc() && end == text.data() + text.size() && step >= 0;
  return is_step ? std::optional(step) : std::nullopt;
}

class PolicyParser {
 public:
  PolicyParser(std::string_view file_name, std::string_view text)
      : file_{std::string(file_name), std::string(text)} {}

  Policy parse() {
    split();
    diagnostics_.throw_if_errors();
    policy_.variants = resolve_variants(file_.name, variants_text_);
    for (const Line& line : layer_lines_) read_rule(line);
    if (!has_default_) {
      error(end_of_text(), "no variant for other layers",
            "write a line `default VARIANT` in [layers]");
    }
    diagnostics_.throw_if_errors();
    return std::move(policy_);
  }

 private:
  // A line's words, which point into the text.
  struct Line {
    std::string_view text;
    std::vector<std::string_view> words;
  };

  Span span_of(std::string_view part) const {
    const auto begin = static_cast<uint32_t>(part.data() - file_.text.data());
    return {&file_, begin, begin + static_cast<uint32_t>(part.size())};
  }
  std::string_view end_of_text() const {
    return std::string_view(file_.text).substr(file_.text.size());
  }
  void error(std::string_view part, std::string message, std::string note = "") {
    diagnostics_.error(span_of(part), std::move(message), std::move(note));
  }

  // Lines to their sections. Variants keep their place in a text of blank lines, so that messages
  // about them have the file's line numbers.
  void split() {
    std::string_view section;
    bool has_header = false;
    std::string_view rest = file_.text;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      const std::vector<std::string_view> words = words_of(without_comment(line));
      const bool starts_section =
          words.size() == 1 && (words[0] == kVariants || words[0] == kLayers);
      if (has_header && !starts_section && section == kVariants) variants_text_ += line;
      variants_text_ += '\n';
      if (words.empty() && section != kVariants) continue;
      if (!has_header) {
        has_header = true;
        read_header(line, words);
      } else if (starts_section) {
        section = words[0];
      } else if (section.empty()) {
        error(words[0], "a policy has sections: [variants], then [layers]");
      } else if (section == kLayers) {
        layer_lines_.push_back({line, words});
      }
    }
    if (!has_header) error(end_of_text(), "no policy", "begin with the line `sagejit policy 1`");
  }

  void read_header(std::string_view line, const std::vector<std::string_view>& words) {
    const bool is_header = words.size() == 3 && fmt::format("{} {}", words[0], words[1]) == kHeader;
    if (!is_header) return error(line, "no policy", "begin with the line `sagejit policy 1`");
    if (words[2] != std::to_string(kPolicyVersion)) {
      error(words[2], fmt::format("policies of version {} are not known", words[2]),
            fmt::format("this library reads version {}", kPolicyVersion));
    }
  }

  std::optional<size_t> variant_of(std::string_view name) {
    const auto found = std::find_if(policy_.variants.begin(), policy_.variants.end(),
                                    [&](const Variant& v) { return v.name == name; });
    if (found != policy_.variants.end())
      return static_cast<size_t>(found - policy_.variants.begin());
    std::vector<std::string_view> names;
    for (const Variant& v : policy_.variants) names.push_back(v.name);
    error(name, fmt::format("`{}` is not a variant of this policy", name),
          fmt::format("there are: {}", fmt::join(names, ", ")));
    return std::nullopt;
  }

  // "*", "7", "0..9" or "10..".
  bool read_steps(std::string_view text, PolicyRule& rule) {
    if (text == "*") return true;
    const size_t dots = text.find("..");
    const std::string_view last = dots == std::string_view::npos ? text : text.substr(dots + 2);
    const std::optional<int64_t> first_step = step_of(text.substr(0, dots));
    const std::optional<int64_t> last_step =
        last.empty() ? std::optional(kLastStep) : step_of(last);
    if (!first_step || !last_step || *first_step > *last_step) {
      error(text, fmt::format("`{}` is no range of steps", text), "write *, 7, 0..9 or 10..");
      return false;
    }
    rule.first_step = *first_step;
    rule.last_step = *last_step;
    return true;
  }

  void read_rule(const Line& line) {
    const std::vector<std::string_view>& words = line.words;
    if (words[0] == kDefault && words.size() == 2) return read_default(words);
    if (words.size() != 3) {
      return error(line.text, "a line of [layers] is `LAYER STEPS VARIANT`, or `default VARIANT`");
    }
    PolicyRule rule;
    rule.layer = words[0];
    const std::optional<size_t> variant = variant_of(words[2]);
    if (!read_steps(words[1], rule) || !variant) return;
    rule.variant = *variant;
    for (const PolicyRule& other : policy_.rules) {
      if (other.layer == rule.layer && other.first_step <= rule.last_step &&
          rule.first_step <= other.last_step) {
        return error(words[1], fmt::format("steps of `{}` have a variant already", rule.layer),
                     "ranges of a layer must have no step in common");
      }
    }
    policy_.rules.push_back(std::move(rule));
  }

  void read_default(const std::vector<std::string_view>& words) {
    if (has_default_) return error(words[0], "default is given twice");
    has_default_ = true;
    policy_.otherwise = variant_of(words[1]).value_or(0);
  }

  const SourceFile file_;
  Diagnostics diagnostics_;
  std::string variants_text_;
  std::vector<Line> layer_lines_;
  bool has_default_ = false;
  Policy policy_;
};

std::string steps_text(const PolicyRule& rule) {
  if (rule.last_step == kLastStep) {
    return rule.first_step == 0 ? "*" : fmt::format("{}..", rule.first_step);
  }
  if (rule.first_step == rule.last_step) return fmt::format("{}", rule.first_step);
  return fmt::format("{}..{}", rule.first_step, rule.last_step);
}

}  // namespace

const Variant& Policy::find(std::string_view layer, int64_t step) const {
  for (const PolicyRule& rule : rules) {
    if (rule.layer == layer && rule.first_step <= step && step <= rule.last_step) {
      return variants[rule.variant];
    }
  }
  return variants[otherwise];
}

Policy parse_policy(std::string_view file_name, std::string_view text) {
  return PolicyParser(file_name, text).parse();
}

std::string print_policy(const Policy& policy) {
  std::string text = fmt::format("{} {}\n", kHeader, kPolicyVersion);
  for (std::string_view rest = policy.comment; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    text += fmt::format("# {}\n", rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  text += fmt::format("\n{}\n", kVariants);
  for (const Variant& variant : policy.variants) text += print_variant(variant);
  text += fmt::format("\n{}\n", kLayers);
  size_t layer_width = kDefault.size(), steps_width = 0, name_width = 0;
  for (const PolicyRule& rule : policy.rules) {
    layer_width = std::max(layer_width, rule.layer.size());
    steps_width = std::max(steps_width, steps_text(rule).size());
    name_width = std::max(name_width, policy.variants[rule.variant].name.size());
  }
  for (const PolicyRule& rule : policy.rules) {
    const std::string& name = policy.variants[rule.variant].name;
    const std::string line =
        fmt::format("{:{}}  {:{}}  {:{}}", rule.layer, layer_width, steps_text(rule), steps_width,
                    name, rule.comment.empty() ? 0 : name_width);
    text += line + (rule.comment.empty() ? "" : "  # " + rule.comment) + "\n";
  }
  return text + fmt::format("{}  {}\n", kDefault, policy.variants[policy.otherwise].name);
}

}  // namespace sagejit
