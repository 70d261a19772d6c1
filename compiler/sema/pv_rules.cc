// What P, V and their product may be.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "compiler/sema/keys.h"
#include "compiler/sema/rules.h"

namespace sagejit::rules {
namespace {

constexpr int kMaxInterval = 4096;
constexpr double kMaxF16 = 65504.0;

}  // namespace

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

Verdict direct_row_sum(const Variant& v) {
  if (!v.p.direct_code || v.row_sum == RowSum::kQuantized) return std::nullopt;
  return Finding{
      "P is written directly as its code, so there is no exact P whose rows could be summed",
      "write row_sum = quantized, or leave `direct` out of p"};
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

namespace {

// Keys that one tensor-core product of P and V consumes.
int mma_keys(DType p) {
  return is_half(p) ? 16 : p == DType::kE2M1 ? 64 : 32;
}

}  // namespace

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

namespace {

// The largest P that is written: a row's maximum may outgrow its reference by the threshold.
double reach_of_p(const Variant& v) {
  return v.p.range * std::exp2(v.rescale_threshold);
}
std::string print_reach(const Variant& v) {
  return v.rescale_threshold == 0 ? fmt::format("{}", v.p.range)
                                  : fmt::format("{} times 2^{}", v.p.range, v.rescale_threshold);
}

}  // namespace

Verdict rescale_threshold(const Variant& v) {
  const double largest = largest_p_range(v.p.type);
  if (v.rescale_threshold >= 0 && reach_of_p(v) <= largest) return std::nullopt;
  if (!(v.rescale_threshold >= 0)) {
    return Finding{fmt::format("the threshold {} is not a number from 0 up", v.rescale_threshold),
                   "write rescale_threshold = 0 to renew the maximum whenever it grows"};
  }
  // In thousandths, rounded down, so that it works as it is shown.
  const double highest = std::floor(std::log2(largest / v.p.range) * 1000) / 1000;
  const double narrower = largest / std::exp2(v.rescale_threshold);
  std::string note = fmt::format("the nearest that works is {}", std::max(0.0, highest));
  if (narrower >= 1) note += fmt::format(", or p = {} range {}", name_of(v.p.type), narrower);
  return Finding{fmt::format("P reaches {}, and {} only holds up to {}", print_reach(v),
                             name_of(v.p.type), largest),
                 note};
}

// Numerics: the magnitude of a sum of `keys` products is at most keys * reach of P * range of V.
Verdict f16_overflow(const Variant& v) {
  const Accumulator& a = v.pv_accumulator;
  if (a.inner != DType::kF16 || !is_fp8(v.p.type) || !is_fp8(v.v.type)) return std::nullopt;
  const int keys = a.outer ? a.interval : mma_keys(v.p.type);
  const double v_range = v.v.range == 0.0 ? largest_v_range(v.v.type) : v.v.range;
  const double p_reach = reach_of_p(v);
  if (keys * p_reach * v_range <= kMaxF16) return std::nullopt;
  // The bound, rounded down to the four significant bits of e4m3, as the published ranges are.
  const double bound = kMaxF16 / keys / p_reach;
  const double step = std::exp2(std::floor(std::log2(bound)) - 3);
  Variant narrower = v;
  narrower.v.range = std::floor(bound / step) * step;
  return Finding{
      fmt::format("{} products of P up to {} and V up to {} reach {}, and f16 overflows beyond {}",
                  keys, print_reach(v), v_range, keys * p_reach * v_range, kMaxF16),
      fmt::format("write v = {}, or add up in f32", find_key("v")->print(narrower))};
}

}  // namespace sagejit::rules
