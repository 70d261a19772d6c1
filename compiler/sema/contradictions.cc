// What is wrong for every target, one row per rule.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>

#include "compiler/dsl/expression.h"
#include "compiler/sema/check.h"
#include "compiler/sema/keys.h"
#include "compiler/support/error.h"
#include "compiler/support/suggest.h"

namespace sagejit {
namespace {

struct Finding {
  std::string message;
  std::string note;
};
using Verdict = std::optional<Finding>;

enum class Blame { kValue, kNumber };

struct Rule {
  std::string_view key;
  std::array<std::string_view, 3> involved;  // empty texts at the end
  Blame blame;
  Verdict (*check)(const Variant&);
};

constexpr int kMinHeadDim = 16, kMaxHeadDim = 256, kHeadDimStep = 8;
constexpr int kMaxSpan = 1 << 16;
constexpr int kMaxWindow = 1 << 30;  // q + n - m + window must not overflow 32 bits
constexpr int kMaxInterval = 4096;
constexpr double kMaxF16 = 65504.0;
constexpr double kLog2E = 1.4426950408889634;

bool one_of(DType type, std::initializer_list<DType> types) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

bool is_half(DType type) {
  return one_of(type, {DType::kF16, DType::kBF16});
}
bool is_fp8(DType type) {
  return one_of(type, {DType::kE4M3, DType::kE5M2});
}
bool is_int(DType type) {
  return one_of(type, {DType::kS8, DType::kU8, DType::kS4});
}

std::string list_types(std::initializer_list<DType> types) {
  std::vector<std::string_view> names;
  for (DType type : types) names.push_back(name_of(type));
  return list_words(names);
}

Verdict type_in(DType type, std::string_view role, std::initializer_list<DType> allowed) {
  if (one_of(type, allowed)) return std::nullopt;
  return Finding{fmt::format("{} cannot be {}", role, name_of(type)),
                 fmt::format("it can be {}", list_types(allowed))};
}

// A whole number within [low, high] that `step` divides.
Verdict multiple_in(int value, std::string_view what, int step, std::pair<int, int> range) {
  const auto [low, high] = range;
  if (value >= low && value <= high && value % step == 0) return std::nullopt;
  std::string message = fmt::format("{} {} is not a multiple of {}", what, value, step);
  if (value % step == 0 || step == 1) {
    message = fmt::format("{} {} is out of range: from {} to {}", what, value, low, high);
  }
  const int below = std::clamp(value / step * step, low, high);
  const int above = std::clamp(below + (below <= value ? step : 0), low, high);
  return Finding{message,
                 below == above || value < low || value > high
                     ? fmt::format("the nearest that works is {}", value < low ? low : high)
                     : fmt::format("the nearest that work are {} and {}", below, above)};
}

Verdict finite_in(double value, std::string_view what, double low, double high) {
  if (value >= low && value <= high) return std::nullopt;
  const double nearest = value > high ? high : low;
  return Finding{fmt::format("{} {} is out of range: from {} to {}", what, value, low, high),
                 fmt::format("the nearest that works is {}", nearest)};
}

Verdict valid_expression(const ScoreExpression& expression, bool is_condition) {
  try {
    const dsl::ExprPtr tree = dsl::parse_canonical(expression.canonical_text, is_condition);
    const std::string canonical = dsl::print(*tree);
    if (canonical == expression.canonical_text) return std::nullopt;
    return Finding{"the expression is not in canonical form", "it is written " + canonical};
  } catch (const Error& error) {
    return Finding{error.message(), ""};
  }
}

bool has_span(Granularity g) {
  return g == Granularity::kBlock || g == Granularity::kWarp || g == Granularity::kThread;
}

// Rules that Q and K share, by the member they look at.
template <Quantization Variant::*kOperand>
struct OperandRules {
  static Verdict type(const Variant& v) {
    return type_in((v.*kOperand).type, "a quantized operand of q.k",
                   {DType::kS8, DType::kS4, DType::kE4M3, DType::kE2M1});
  }
  static Verdict granularity(const Variant& v) {
    const Quantization& o = v.*kOperand;
    if (o.granularity == Granularity::kChannel) {
      return Finding{"a scale per channel cannot be taken out of q.k, which sums over the channels",
                     "scales of q and k are per tensor, head, block, warp, thread or token"};
    }
    const bool grouped = o.granularity == Granularity::kGroup16;
    if (grouped == (o.type == DType::kE2M1)) return std::nullopt;
    return grouped ? Finding{fmt::format("scales per group of 16 belong to fp4, and this is {}",
                                         name_of(o.type)),
                             fmt::format("write fp4 per group16, or {} per block", name_of(o.type))}
                   : Finding{"fp4 has one scale per 16 elements and no other granularity",
                             "write fp4 per group16"};
  }
  static Verdict span(const Variant& v) {
    const Quantization& o = v.*kOperand;
    if (!has_span(o.granularity)) {
      if (o.span == 0) return std::nullopt;
      return Finding{"a span is set where the granularity has none", "leave it 0"};
    }
    // A tile must hold every group of rows that a thread of an m16n8k32 product owns.
    const int step = o.granularity == Granularity::kThread ? 8 : 1;
    return multiple_in(o.span, "the number of tokens", step, {step, kMaxSpan});
  }
};
using QRules = OperandRules<&Variant::q>;
using KRules = OperandRules<&Variant::k>;

Verdict same_qk_type(const Variant& v) {
  if (v.q.type == v.k.type) return std::nullopt;
  return Finding{fmt::format("k is {} and q is {}: one tensor-core product takes both in one type",
                             name_of(v.k.type), name_of(v.q.type)),
                 fmt::format("write k = {0}, or q = {1}", name_of(v.q.type), name_of(v.k.type))};
}

Verdict smooth_q_span(const Variant& v) {
  if (v.smooth_q == Smoothing::kNone) {
    if (v.smooth_q_span == 0) return std::nullopt;
    return Finding{"a block of means is set where q is not smoothed", "leave it 0"};
  }
  return multiple_in(v.smooth_q_span, "the number of tokens that share a mean", 1, {1, kMaxSpan});
}

Verdict hadamard_size(const Variant& v) {
  if (!v.hadamard || v.head_dim <= 0 || (v.head_dim & (v.head_dim - 1)) == 0) return std::nullopt;
  int above = kMinHeadDim;
  while (above < v.head_dim && above < kMaxHeadDim) above *= 2;
  return Finding{fmt::format("a Hadamard matrix of size {} does not exist in the form used here, "
                             "which needs a power of two",
                             v.head_dim),
                 fmt::format("head_dim {} and {} work; or write hadamard = off", above / 2, above)};
}

Verdict qk_accumulator_type(const Variant& v) {
  const DType a = v.qk_accumulator;
  if (is_int(v.q.type)) {
    if (a == DType::kS32) return std::nullopt;
    return Finding{
        fmt::format("products of {} add up in s32, not in {}", name_of(v.q.type), name_of(a)),
        "write qk_accumulator = s32, or leave it out"};
  }
  if (a == DType::kF32 || (a == DType::kF16 && v.q.type == DType::kE4M3)) return std::nullopt;
  return Finding{fmt::format("products of {} cannot add up in {}", name_of(v.q.type), name_of(a)),
                 "write qk_accumulator = f32, or leave it out"};
}

Verdict scale_range(const Variant& v) {
  if (!v.score.scale) return std::nullopt;
  // The kernels multiply by scale * log2(e) in f32.
  const double largest = std::numeric_limits<float>::max() / 2;
  static_assert(kLog2E < 2);
  return finite_in(*v.score.scale, "scale", -largest, largest);
}

Verdict softcap_range(const Variant& v) {
  if (!v.score.softcap ||
      (*v.score.softcap > 0 && *v.score.softcap <= largest_p_range(DType::kF32))) {
    return std::nullopt;
  }
  return Finding{
      fmt::format("softcap {} is not a positive number that f32 can hold", *v.score.softcap),
      "S becomes c tanh(S / c); write softcap = none for no cap"};
}

Verdict window_bounds(const Variant& v) {
  const Mask& m = v.mask;
  if (m.kind != MaskKind::kWindow) {
    if (m.window_left == 0 && m.window_right == 0) return std::nullopt;
    return Finding{"window bounds are set on a mask that is no window", "leave them 0"};
  }
  for (int bound : {m.window_left, m.window_right}) {
    if (bound < 0 || bound > kMaxWindow) {
      return Finding{
          fmt::format("window bound {} is out of range: from 0 to {}", bound, kMaxWindow),
          fmt::format("a side without a bound is written {}", kMaxWindow)};
    }
  }
  return std::nullopt;
}

Verdict mask_expression(const Variant& v) {
  if (v.mask.kind == MaskKind::kExpression) return valid_expression(v.mask.expression, true);
  if (v.mask.expression.canonical_text.empty()) return std::nullopt;
  return Finding{"an expression is set on a mask that is none", "leave it empty"};
}

Verdict score_expression(const Variant& v) {
  const std::string& text = v.score.expression.canonical_text;
  if (text == "s") return Finding{"the score expression s changes nothing", "leave it empty"};
  return text.empty() ? std::nullopt : valid_expression(v.score.expression, false);
}

Verdict p_type(const Variant& v) {
  return type_in(v.p.type, "P",
                 {DType::kF16, DType::kBF16, DType::kE4M3, DType::kE5M2, DType::kS8, DType::kU8,
                  DType::kE2M1});
}

Verdict p_range(const Variant& v) {
  const double largest = largest_p_range(v.p.type);
  if (v.p.range > 0 && v.p.range <= largest) return std::nullopt;
  if (v.p.range > largest) {
    return Finding{fmt::format("P reaches {}, and {} only holds up to {}", v.p.range,
                               name_of(v.p.type), largest),
                   v.p.type == DType::kE2M1 ? "that is 6, times a group scale of at most 448"
                                            : fmt::format("write range {}", largest)};
  }
  return Finding{fmt::format("the range of P is {}, and must be positive", v.p.range),
                 fmt::format("{} holds up to {}", name_of(v.p.type), largest)};
}

Verdict p_direct(const Variant& v) {
  if (!v.p.direct_code || v.p.type == DType::kE4M3) return std::nullopt;
  return Finding{
      fmt::format("only e4m3 codes can be written directly, and P is {}", name_of(v.p.type)),
      fmt::format("leave `direct` out, or write p = e4m3 range 448 direct")};
}

Verdict v_type(const Variant& v) {
  if (v.v.type == DType::kU8) {
    return Finding{"V has a sign, and uint8 has none", "write v = int8; P alone can be uint8"};
  }
  return type_in(v.v.type, "V",
                 {DType::kF16, DType::kBF16, DType::kE4M3, DType::kE5M2, DType::kS8, DType::kE2M1});
}

Verdict v_granularity(const Variant& v) {
  const ValueOperand& o = v.v;
  if (is_half(o.type)) {
    if (o.granularity == Granularity::kTensor && o.span == 0) return std::nullopt;
    return Finding{fmt::format("V in {} is not scaled, and has no granularity", name_of(o.type)),
                   "leave it kTensor without a span"};
  }
  if (o.granularity == Granularity::kToken || o.granularity == Granularity::kWarp ||
      o.granularity == Granularity::kThread) {
    return Finding{"these scales of V cannot be taken out of P V, which sums over the tokens",
                   "scales of v are per tensor, head, channel or block"};
  }
  const bool grouped = o.granularity == Granularity::kGroup16;
  if (grouped == (o.type == DType::kE2M1)) return std::nullopt;
  return grouped ? Finding{fmt::format("scales per group of 16 belong to fp4, and this is {}",
                                       name_of(o.type)),
                           fmt::format("write fp4 per group16, or {} per channel", name_of(o.type))}
                 : Finding{"fp4 has one scale per 16 elements and no other granularity",
                           "write fp4 per group16"};
}

// Keys that one tensor-core product of P and V consumes.
int mma_keys(DType p) {
  return is_half(p) ? 16 : p == DType::kE2M1 ? 64 : 32;
}

Verdict v_span(const Variant& v) {
  if (v.v.granularity == Granularity::kBlock) {
    return multiple_in(v.v.span, "the number of tokens", mma_keys(v.v.type),
                       {mma_keys(v.v.type), kMaxSpan});
  }
  if (v.v.span == 0 || has_span(v.v.granularity)) return std::nullopt;
  return Finding{"a span is set where the granularity has none", "leave it 0"};
}

Verdict v_range(const Variant& v) {
  const double largest = largest_v_range(v.v.type);
  if (v.v.range == 0.0 || (v.v.range > 0 && v.v.range < largest)) return std::nullopt;
  if (largest == 0.0) {
    return Finding{fmt::format("V in {} is not scaled, and has no range", name_of(v.v.type)),
                   "leave it 0"};
  }
  if (v.v.range == largest) {
    return Finding{"the type's own maximum is the range 0", "leave it 0"};
  }
  if (v.v.range > largest) {
    return Finding{fmt::format("V reaches {}, and {} only holds up to {}", v.v.range,
                               name_of(v.v.type), largest),
                   fmt::format("write range {}", largest)};
  }
  return Finding{fmt::format("the range of V is {}, and must be positive", v.v.range),
                 fmt::format("{} holds up to {}", name_of(v.v.type), largest)};
}

Verdict pv_pair(const Variant& v) {
  const DType p = v.p.type, w = v.v.type;
  const bool fits = is_half(p)  ? p == w
                    : is_fp8(p) ? is_fp8(w)
                    : is_int(p) ? w == DType::kS8
                                : p == w;
  if (fits) return std::nullopt;
  return Finding{fmt::format("P is {} and V is {}: one tensor-core product cannot take both",
                             name_of(p), name_of(w)),
                 fmt::format("write p = {}, or v = {}", name_of(w),
                             name_of(p == DType::kU8 ? DType::kS8 : p))};
}

Verdict outer_accumulator(const Variant& v) {
  const Accumulator& a = v.pv_accumulator;
  if (a.outer == DType::kF16 && a.inner == DType::kF32) {
    return Finding{"the outer accumulator f16 is narrower than the inner f32",
                   fmt::format("sums are written inner + outer: f16 + f32 every {}", a.interval)};
  }
  if (a.outer && a.outer != DType::kF32) {
    return Finding{fmt::format("the outer accumulator cannot be {}", name_of(*a.outer)),
                   fmt::format("it is f32: {} + f32 every {}", name_of(a.inner), a.interval)};
  }
  return std::nullopt;
}

Verdict inner_accumulator(const Variant& v) {
  const Accumulator& a = v.pv_accumulator;
  const DType p = v.p.type;
  if (is_int(p)) {
    if (a.inner == DType::kS32 && a.outer) return std::nullopt;
    return Finding{
        a.inner == DType::kS32
            ? "s32 alone cannot be rescaled when the row maximum grows"
            : fmt::format("products of {} add up in s32, not in {}", name_of(p), name_of(a.inner)),
        "write pv_accumulator = s32 + f32 every 64"};
  }
  if (a.inner == DType::kF32 || (a.inner == DType::kF16 && (p == DType::kF16 || is_fp8(p)))) {
    return std::nullopt;
  }
  return Finding{fmt::format("products of {} cannot add up in {}", name_of(p), name_of(a.inner)),
                 p == DType::kF16 || is_fp8(p) ? "write f32, f16, f32 + f32 or f16 + f32"
                                               : "write f32 or f32 + f32 every 64"};
}

Verdict accumulator_interval(const Variant& v) {
  const Accumulator& a = v.pv_accumulator;
  if (!a.outer) {
    if (a.interval == 0) return std::nullopt;
    return Finding{"an interval is set on an accumulator of one level", "leave it 0"};
  }
  const int keys = mma_keys(v.p.type);
  Verdict verdict = multiple_in(a.interval, "the interval", keys, {keys, kMaxInterval});
  if (verdict) {
    verdict->message +=
        fmt::format(" (a product with P in {} takes {} keys)", name_of(v.p.type), keys);
  }
  return verdict;
}

// Numerics: the magnitude of a sum of `keys` products is at most keys * range of P * range of V.
Verdict f16_overflow(const Variant& v) {
  const Accumulator& a = v.pv_accumulator;
  if (a.inner != DType::kF16 || !is_fp8(v.p.type) || !is_fp8(v.v.type)) return std::nullopt;
  const int keys = a.outer ? a.interval : mma_keys(v.p.type);
  const double v_range = v.v.range == 0.0 ? largest_v_range(v.v.type) : v.v.range;
  if (keys * v.p.range * v_range <= kMaxF16) return std::nullopt;
  // The bound, rounded down to the four significant bits of e4m3, as the published ranges are.
  const double bound = kMaxF16 / keys / v.p.range;
  const double step = std::exp2(std::floor(std::log2(bound)) - 3);
  Variant narrower = v;
  narrower.v.range = std::floor(bound / step) * step;
  return Finding{
      fmt::format("{} products of P up to {} and V up to {} reach {}, and f16 overflows beyond {}",
                  keys, v.p.range, v_range, keys * v.p.range * v_range, kMaxF16),
      fmt::format("write v = {}, or add up in f32", find_key("v")->print(narrower))};
}

Verdict polynomial_share(const Variant& v) {
  return finite_in(v.exp2_polynomial_share, "the share of polynomial exp2", 0.0, 1.0);
}

Verdict structure_parameter(const Variant& v) {
  const int n = v.structure.parameter;
  switch (v.structure.kind) {
    case StructureKind::kPaged:
      return multiple_in(n, "the page size", 1, {1, kMaxSpan});
    case StructureKind::kBlockSparse:
      return multiple_in(n, "the block size", 16, {16, 1024});
    case StructureKind::kSplitKv:
      return multiple_in(n, "the number of splits", 1, {2, 256});
    case StructureKind::kDense:
    case StructureKind::kVarlen:
      break;
  }
  if (n == 0) return std::nullopt;
  return Finding{"a size is set on a structure that has none", "leave it 0"};
}

constexpr std::initializer_list<DType> kTensorTypes = {DType::kF16, DType::kBF16, DType::kF32};

constexpr Rule kRules[] = {
    {"head_dim",
     {},
     Blame::kValue,
     [](const Variant& v) {
       return multiple_in(v.head_dim, "head_dim", kHeadDimStep, {kMinHeadDim, kMaxHeadDim});
     }},
    {"value_head_dim",
     {},
     Blame::kValue,
     [](const Variant& v) -> Verdict {
       if (v.value_head_dim == v.head_dim) return std::nullopt;  // head_dim's own rule judges it
       return multiple_in(v.value_head_dim, "value_head_dim", kHeadDimStep,
                          {kMinHeadDim, kMaxHeadDim});
     }},
    {"input",
     {},
     Blame::kValue,
     [](const Variant& v) {
       return type_in(v.input, "the type of q, k and v in memory", kTensorTypes);
     }},
    {"output",
     {},
     Blame::kValue,
     [](const Variant& v) { return type_in(v.output, "the type of o in memory", kTensorTypes); }},
    {"q", {}, Blame::kValue, QRules::type},
    {"q", {}, Blame::kValue, QRules::granularity},
    {"q", {}, Blame::kNumber, QRules::span},
    {"k", {}, Blame::kValue, KRules::type},
    {"k", {}, Blame::kValue, KRules::granularity},
    {"k", {}, Blame::kNumber, KRules::span},
    {"k", {"q"}, Blame::kValue, same_qk_type},
    {"smooth_q", {}, Blame::kNumber, smooth_q_span},
    {"hadamard", {"head_dim"}, Blame::kValue, hadamard_size},
    {"qk_accumulator", {"q"}, Blame::kValue, qk_accumulator_type},
    {"scale", {}, Blame::kValue, scale_range},
    {"softcap", {}, Blame::kValue, softcap_range},
    {"score", {}, Blame::kValue, score_expression},
    {"mask", {}, Blame::kValue, window_bounds},
    {"mask", {}, Blame::kValue, mask_expression},
    {"p", {}, Blame::kValue, p_type},
    {"p", {}, Blame::kNumber, p_range},
    {"p", {}, Blame::kValue, p_direct},
    {"v", {}, Blame::kValue, v_type},
    {"v", {}, Blame::kValue, v_granularity},
    {"v", {}, Blame::kNumber, v_span},
    {"v", {}, Blame::kNumber, v_range},
    {"v", {"p"}, Blame::kValue, pv_pair},
    {"pv_accumulator", {}, Blame::kValue, outer_accumulator},
    {"pv_accumulator", {"p"}, Blame::kValue, inner_accumulator},
    {"pv_accumulator", {"p"}, Blame::kNumber, accumulator_interval},
    {"pv_accumulator", {"p", "v"}, Blame::kValue, f16_overflow},
    {"exp2_polynomial", {}, Blame::kValue, polynomial_share},
    {"structure", {}, Blame::kNumber, structure_parameter},
};

}  // namespace

std::vector<Contradiction> find_contradictions(const Variant& variant) {
  std::vector<Contradiction> found;
  // A clash of values that are wrong by themselves would only say the same again.
  const auto at_fault = [&](std::string_view key) {
    return std::any_of(found.begin(), found.end(),
                       [&](const Contradiction& c) { return c.key == key; });
  };
  for (const Rule& rule : kRules) {
    std::vector<std::string_view> involved;
    for (std::string_view key : rule.involved) {
      if (!key.empty()) involved.push_back(key);
    }
    const bool known =
        at_fault(rule.key) || std::any_of(involved.begin(), involved.end(), at_fault);
    if (known) continue;
    if (Verdict verdict = rule.check(variant)) {
      found.push_back({rule.key, std::move(involved), rule.blame == Blame::kNumber,
                       std::move(verdict->message), std::move(verdict->note)});
    }
  }
  return found;
}

}  // namespace sagejit
