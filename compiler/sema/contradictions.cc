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
#include "compiler/sema/rules.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

using namespace rules;

enum class Blame { kValue, kNumber };

struct Rule {
  std::string_view key;
  std::array<std::string_view, 3> involved;  // empty texts at the end
  Blame blame;
  Verdict (*check)(const Variant&);
};

constexpr int kMinHeadDim = 16, kMaxHeadDim = 256, kHeadDimStep = 8;
constexpr int kMaxWindow = 1 << 30;  // q + n - m + window must not overflow 32 bits
constexpr double kLog2E = 1.4426950408889634;

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
    {"row_sum", {"p"}, Blame::kValue, direct_row_sum},
    {"rescale_threshold", {"p"}, Blame::kValue, rescale_threshold},
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
