#include "runtime/policy/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

constexpr size_t kFast = 0, kCareful = 1;

// The least cosine of the inputs of a layer at a step.
struct Least {
  double cosine = 1;
  bool has_nan = false;
  int num_inputs = 0;

  void add(double x) {
    has_nan = has_nan || !(x == x);
    cosine = std::min(cosine, x);
    ++num_inputs;
  }
  bool is_above(double threshold) const { return !has_nan && cosine > threshold; }
};

std::string comment_of(const Least& least) {
  const std::string cosine = least.has_nan ? "NaN" : fmt::format("{:.6f}", least.cosine);
  return fmt::format("cosine of fast: {}, the least of {}", cosine, least.num_inputs);
}

void add_rules(const std::string& layer, const std::map<int64_t, Least>& steps, double threshold,
               Policy& policy) {
  const size_t before = policy.rules.size();
  Least joined;
  for (const auto& [step, least] : steps) {
    const size_t variant = least.is_above(threshold) ? kFast : kCareful;
    const bool is_first = policy.rules.size() == before;
    if (!is_first && policy.rules.back().variant == variant) {
      joined.has_nan = joined.has_nan || least.has_nan;
      joined.cosine = std::min(joined.cosine, least.cosine);
      joined.num_inputs += least.num_inputs;
      policy.rules.back().comment = comment_of(joined);
      continue;
    }
    if (!is_first) policy.rules.back().last_step = step - 1;
    joined = least;
    policy.rules.push_back({layer, is_first ? 0 : step, kLastStep, variant, comment_of(joined)});
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

Policy calibrate(const Variant& fast, const Variant& careful, std::span<const LayerCosine> cosines,
                 double threshold) {
  check_candidates(fast, careful);
  if (cosines.empty()) fail(ErrorKind::kArgument, "nothing was measured: a policy needs inputs");
  Policy policy;
  policy.variants = {fast, careful};
  policy.variants[kFast].name = "fast";
  policy.variants[kCareful].name = "careful";
  policy.otherwise = kCareful;
  std::vector<std::string> layers;
  std::map<std::string, std::map<int64_t, Least>> measured;
  for (const LayerCosine& cosine : cosines) {
    if (!measured.contains(cosine.layer)) layers.push_back(cosine.layer);
    measured[cosine.layer][cosine.step].add(cosine.cosine);
  }
  for (const std::string& layer : layers) add_rules(layer, measured[layer], threshold, policy);
  return policy;
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
