#include "tests/reference/inputs.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "compiler/support/error.h"
#include "tests/reference/parallel.h"

namespace sagejit::reference {
namespace {

constexpr double kF16Max = 65504.0;
constexpr double kSinkScore = 14.0;

enum class Stream : uint64_t { kQ = 1, kK, kV, kBias, kDirection, kQueryBias };

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection whose outputs look random.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Counter-based: the value at (stream, index) depends on nothing drawn before it.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}

  // In (0, 1]: a logarithm of it is finite.
  double uniform(Stream stream, uint64_t index) const {
    const uint64_t key = mix(mix(seed_) ^ static_cast<uint64_t>(stream));
    return (static_cast<double>(mix(key + index) >> 11) + 1) * 0x1p-53;
  }
  // Box-Muller; one of each pair.
  double normal(Stream stream, uint64_t index) const {
    const double radius = std::sqrt(-2 * std::log(uniform(stream, 2 * index)));
    return radius * std::cos(2 * std::numbers::pi * uniform(stream, 2 * index + 1));
  }
  double sign(Stream stream, uint64_t index) const {
    return uniform(stream, index) > 0.5 ? 1.0 : -1.0;
  }

 private:
  uint64_t seed_;
};

struct Element {
  int64_t b, h, t, d;
  uint64_t index;          // in [b, h, t, d] order
  uint64_t channel_index;  // of (b, h, d)
};

using ElementValue = std::function<double(const Element&)>;

HostTensor generate(DType type, const Shape4& shape, const ElementValue& value) {
  HostTensor tensor(type, shape);
  parallel_for(shape[0] * shape[1], [&](int64_t head) {
    const int64_t b = head / shape[1], h = head % shape[1];
    for (int64_t t = 0; t < shape[2]; ++t) {
      for (int64_t d = 0; d < shape[3]; ++d) {
        const Element element{b,
                              h,
                              t,
                              d,
                              static_cast<uint64_t>(tensor.offset(b, h, t, d)),
                              static_cast<uint64_t>(head * shape[3] + d)};
        tensor.set(b, h, t, d, value(element));
      }
    }
  });
  return tensor;
}

struct Recipe {
  ElementValue q, k, v;
};

struct Context {
  const Random& random;
  const ProblemShape& shape;
  ElementValue normal(Stream stream) const {
    return [r = random, stream](const Element& e) { return r.normal(stream, e.index); };
  }
  bool outlier_channel(const Element& e) const {
    return e.d == shape.dv / 3 || e.d == shape.dv * 3 / 4;
  }
};

Recipe normal(const Context& c) {
  return {c.normal(Stream::kQ), c.normal(Stream::kK), c.normal(Stream::kV)};
}

Recipe biased_k(const Context& c) {
  Recipe recipe = normal(c);
  recipe.k = [c](const Element& e) {
    return c.random.normal(Stream::kK, e.index) +
           4 * c.random.normal(Stream::kBias, e.channel_index);
  };
  recipe.v = [c](const Element& e) {
    return c.random.normal(Stream::kV, e.index) * (c.outlier_channel(e) ? 10 : 1);
  };
  return recipe;
}

Recipe biased_qk(const Context& c) {
  Recipe recipe = normal(c);
  const auto biased = [c](Stream stream, Stream bias) -> ElementValue {
    return [c, stream, bias](const Element& e) {
      return c.random.normal(stream, e.index) + 4 * c.random.normal(bias, e.channel_index);
    };
  };
  recipe.q = biased(Stream::kQ, Stream::kQueryBias);
  recipe.k = biased(Stream::kK, Stream::kBias);
  return recipe;
}

Recipe outlier_v(const Context& c) {
  Recipe recipe = normal(c);
  recipe.v = [c](const Element& e) {
    const double value =
        c.random.normal(Stream::kV, e.index) + 8 * c.random.normal(Stream::kBias, e.channel_index);
    return value * (c.outlier_channel(e) ? 10 : 1);
  };
  return recipe;
}

// Keys become 16 times as large from the first to the last, and queries from head to head twice:
// the more tiles, the more scales.
Recipe growing(const Context& c) {
  Recipe recipe = normal(c);
  recipe.q = [c](const Element& e) {
    return c.random.normal(Stream::kQ, e.index) * std::exp2(e.h % 4);
  };
  recipe.k = [c](const Element& e) {
    const double progress = static_cast<double>(e.t) / static_cast<double>(c.shape.n);
    return c.random.normal(Stream::kK, e.index) * std::exp2(4 * progress);
  };
  return recipe;
}

// Q leans towards a direction u of signs, u . u = d, and the first key points along it.
Recipe sink(const Context& c) {
  Recipe recipe = normal(c);
  const auto direction = [c](int64_t b, int64_t kv_head, int64_t d) {
    const int64_t index = (b * c.shape.hkv + kv_head) * c.shape.d + d;
    return c.random.sign(Stream::kDirection, static_cast<uint64_t>(index));
  };
  const int64_t group = std::max<int64_t>(1, c.shape.hq / std::max<int64_t>(1, c.shape.hkv));
  recipe.q = [c, direction, group](const Element& e) {
    return c.random.normal(Stream::kQ, e.index) + direction(e.b, e.h / group, e.d);
  };
  const double length = kSinkScore / std::sqrt(static_cast<double>(c.shape.d));
  recipe.k = [c, direction, length](const Element& e) {
    return e.t == 0 ? length * direction(e.b, e.h, e.d) : c.random.normal(Stream::kK, e.index);
  };
  return recipe;
}

Recipe zero(const Context& c) {
  const auto zeroed = [c](Stream stream, int64_t operand) -> ElementValue {
    return [c, stream, operand](const Element& e) {
      const bool zero_head = (e.b + e.h) % 4 == operand;
      return zero_head || e.d % 4 == 0 ? 0.0 : c.random.normal(stream, e.index);
    };
  };
  return {zeroed(Stream::kQ, 0), zeroed(Stream::kK, 1), zeroed(Stream::kV, 2)};
}

Recipe constant(const Context&) {
  const auto always = [](double value) -> ElementValue {
    return [value](const Element&) { return value; };
  };
  return {always(1.0), always(0.5), always(-1.5)};
}

// Normal values cut at 3 sigma, so that about one element in 400 is exactly the maximum.
Recipe fp16_max(const Context& c) {
  const auto largest = [c](Stream stream) -> ElementValue {
    return [c, stream](const Element& e) {
      return std::clamp(c.random.normal(stream, e.index) / 3, -1.0, 1.0) * kF16Max;
    };
  };
  Recipe recipe{largest(Stream::kQ), {}, largest(Stream::kV)};
  recipe.k = [c](const Element& e) { return c.random.normal(Stream::kK, e.index) * 3 / kF16Max; };
  return recipe;
}

struct NamedRecipe {
  std::string_view name;
  Recipe (*make)(const Context&);
};
constexpr NamedRecipe kRecipes[] = {
    {"normal", normal},       {"biased_k", biased_k}, {"biased_qk", biased_qk},
    {"outlier_v", outlier_v}, {"sink", sink},         {"zero", zero},
    {"constant", constant},   {"fp16_max", fp16_max}, {"growing", growing},
};

constexpr auto kNames = [] {
  std::array<std::string_view, std::size(kRecipes)> names{};
  for (size_t i = 0; i < names.size(); ++i) names[i] = kRecipes[i].name;
  return names;
}();

}  // namespace

std::span<const std::string_view> input_names() {
  return kNames;
}

Inputs make_inputs(std::string_view name, const ProblemShape& shape, DType type, uint64_t seed) {
  const auto* recipe = std::find_if(std::begin(kRecipes), std::end(kRecipes),
                                    [&](const NamedRecipe& r) { return r.name == name; });
  if (recipe == std::end(kRecipes)) {
    fail(ErrorKind::kArgument, "no input distribution is called '{}'; there are {}", name,
         fmt::join(kNames, ", "));
  }
  const Random random(seed);
  const Recipe made = recipe->make(Context{random, shape});
  return {generate(type, {shape.b, shape.hq, shape.m, shape.d}, made.q),
          generate(type, {shape.b, shape.hkv, shape.n, shape.d}, made.k),
          generate(type, {shape.b, shape.hkv, shape.n, shape.dv}, made.v)};
}

}  // namespace sagejit::reference
