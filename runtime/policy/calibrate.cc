#include "runtime/policy/calibrate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <map>
#include <utility>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

constexpr size_t kFast = 0, kCareful = 1;

// The least cosines of several inputs.
struct Least {
  Cosines cosines;
  int num_inputs = 0;

  void add(const Least& other) {
    // NaN is less than any number, and stays.
    const auto least = [](double a, double b) { return a < b || std::isnan(a) ? a : b; };
    cosines.overall = least(cosines.overall, other.cosines.overall);
    cosines.worst_head = least(cosines.worst_head, other.cosines.worst_head);
    num_inputs += other.num_inputs;
  }
  bool is_above(double threshold) const {
    return cosines.overall > threshold && cosines.worst_head > threshold;
  }
};

struct LeastOfBoth {
  Least fast, careful;
};
using Steps = std::map<int64_t, LeastOfBoth>;

// By layer, in the order of their first input.
std::vector<std::pair<std::string, Steps>> by_layer(std::span<const LayerCosines> measured) {
  std::vector<std::pair<std::string, Steps>> layers;
  std::map<std::string, size_t> index;
  for (const LayerCosines& m : measured) {
    const auto [at, is_new] = index.try_emplace(m.layer, layers.size());
    if (is_new) layers.emplace_back(m.layer, Steps());
    LeastOfBoth& step = layers[at->second].second[m.step];
    step.fast.add({m.fast, 1});
    step.careful.add({m.careful, 1});
  }
  return layers;
}

std::string text_of(double cosine) {
  return std::isnan(cosine) ? "NaN" : fmt::format("{:.6f}", cosine);
}

std::string text_of(const Cosines& cosines) {
  return fmt::format("{}, {} in the worst head", text_of(cosines.overall),
                     text_of(cosines.worst_head));
}

std::string comment_of(const Least& fast) {
  if (fast.num_inputs == 0) return "not measured";
  return fmt::format("cosine of fast: {}, the least of {}", text_of(fast.cosines), fast.num_inputs);
}

// A layer's ranges in the order of their steps, those that agree joined.
class Ranges {
 public:
  Ranges(std::string layer, Policy& policy)
      : layer_(std::move(layer)), policy_(policy), begin_(policy.rules.size()) {}

  // From `first` up to the next range. fast: of the inputs; none where nothing was measured.
  void add(int64_t first, size_t variant, const Least& fast) {
    std::vector<PolicyRule>& rules = policy_.rules;
    const bool is_first = rules.size() == begin_;
    if (is_first || rules.back().variant != variant) {
      if (!is_first) rules.back().last_step = first - 1;
      rules.push_back({layer_, first, kLastStep, variant, ""});
      joined_ = {};
    }
    joined_.add(fast);
    rules.back().comment = comment_of(joined_);
  }

 private:
  std::string layer_;
  Policy& policy_;
  size_t begin_;  // of the layer's rules
  Least joined_;
};

void add_rules(const std::string& layer, const Steps& steps, double threshold, Policy& policy) {
  Ranges ranges(layer, policy);
  const bool is_alone = steps.size() == 1;
  const auto variant_of = [&](const LeastOfBoth& step) {
    return step.fast.is_above(threshold) ? kFast : kCareful;
  };
  if (!is_alone && steps.begin()->first > 0) ranges.add(0, kCareful, {});
  for (auto at = steps.begin(); at != steps.end(); ++at) {
    const auto& [step, least] = *at;
    const size_t variant = variant_of(least);
    ranges.add(is_alone ? 0 : step, variant, least.fast);
    const auto next = std::next(at);
    const bool is_last = next == steps.end();
    if (is_alone || step == kLastStep || (!is_last && next->first == step + 1)) continue;
    const bool is_fast = !is_last && variant == kFast && variant_of(next->second) == kFast;
    ranges.add(step + 1, is_fast ? kFast : kCareful, {});
  }
}

}  // namespace

void check_candidates(const Variant& fast, const Variant& careful) {
  const auto require = [&](bool same, const char* key) {
    if (!same) {
      fail(ErrorKind::kArgument,
           "`{}` and `{}` compute different attention: their {} differs; candidates may differ in "
           "quantization "
           "alone",
           fast.name, careful.name, key);
    }
  };
  require(fast.head_dim == careful.head_dim, "head_dim");
  require(fast.value_head_dim == careful.value_head_dim, "value_head_dim");
  require(fast.input == careful.input, "input");
  require(fast.output == careful.output, "output");
  require(fast.lse == careful.lse, "lse");
  require(fast.mask == careful.mask, "mask");
  require(fast.score == careful.score, "score");
  require(fast.structure == careful.structure, "structure");
}

Policy calibrate(const Variant& fast, const Variant& careful,
                 std::span<const LayerCosines> measured, double threshold) {
  check_candidates(fast, careful);
  if (measured.empty()) fail(ErrorKind::kArgument, "nothing was measured: a policy needs inputs");
  Policy policy;
  policy.variants = {fast, careful};
  policy.variants[kFast].name = "fast";
  policy.variants[kCareful].name = "careful";
  policy.otherwise = kCareful;
  policy.comment = fmt::format("{}", fmt::join(failures_of_careful(measured, threshold), "\n"));
  for (const auto& [layer, steps] : by_layer(measured)) add_rules(layer, steps, threshold, policy);
  return policy;
}

std::vector<std::string> failures_of_careful(std::span<const LayerCosines> measured,
                                             double threshold) {
  std::vector<std::string> sentences;
  for (const auto& [layer, steps] : by_layer(measured)) {
    for (const auto& [step, least] : steps) {
      if (least.careful.is_above(threshold)) continue;
      sentences.push_back(fmt::format(
          "careful is not above {} at step {} of {}: cosine {}, the least of {}", threshold, step,
          layer, text_of(least.careful.cosines), least.careful.num_inputs));
    }
  }
  return sentences;
}

std::string policy_word(std::string_view layer) {
  std::string word(layer);
  for (char& c : word) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ' || byte == 0x7F) {
      fail(
          ErrorKind::kArgument,
          "the name of a layer has the control character 0x{:02x} at byte {}, and a policy's names "
          "are words: rename its tensors",
          byte, &c - word.data());
    }
    if (c == ' ' || c == '#') c = '_';
  }
  return word;
}

LayerStep layer_step_of(std::string_view name) {
  constexpr std::string_view kStep = "step.";
  const size_t at = name.starts_with(kStep) ? 0 : name.find(".step.");
  if (at == std::string_view::npos) return {std::string(name), 0};
  const size_t begin = at == 0 ? kStep.size() : at + 1 + kStep.size();
  const size_t end = std::min(name.find('.', begin), name.size());
  LayerStep result;
  const auto [stop, code] = std::from_chars(name.data() + begin, name.data() + end, result.step);
  if (code != std::errc() || stop != name.data() + end || result.step < 0)
    return {std::string(name), 0};
  std::string layer(name.substr(0, at));
  if (end < name.size()) layer += (layer.empty() ? "" : ".") + std::string(name.substr(end + 1));
  result.layer = layer.empty() ? "layer" : layer;
  return result;
}

}  // namespace sagejit
