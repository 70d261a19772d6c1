// The limits of today's generators, one row per limit.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>

#include "compiler/sema/check.h"
#include "compiler/sema/keys.h"
#include "compiler/sema/read_values.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

// Two levels of 8-bit floats P and V by wgmma: both accumulators stay in registers.
constexpr int kMostTwoLevelChannels = 176;

struct Limit {
  std::string_view key;
  std::string_view message;
  bool (*holds)(const Variant&, const Target&);
  void (*mend)(Variant&);  // to the nearest that holds; later rows may rely on earlier ones
};

constexpr int kSpanStep = 16,
              kMaxSpan = 128;  // rows of one tensor-core tile; rows of the largest block
constexpr int kMeanSpanStep = 64, kMaxMeanSpan = 1 << 16;  // rows of a warpgroup's product

bool is_half(DType type) {
  return type == DType::kF16 || type == DType::kBF16;
}

bool is_fp4(DType type) {
  return type == DType::kE2M1;
}

// What codes of Q and K are products of: integers, and e4m3 and fp4 where the target has products
// of them.
bool is_qk_type(DType type) {
  return type == DType::kS8 || type == DType::kS4 || type == DType::kE4M3 || is_fp4(type);
}

// Where the products of Q and K add up.
DType qk_sum_of(const Variant& v) {
  return v.q.type == DType::kE4M3 || is_fp4(v.q.type) ? DType::kF32 : DType::kS32;
}

void mend_to_int8(Quantization& o, Operand operand) {
  if (is_fp4(o.type)) o = default_quantization(DType::kS8, operand);
  o.type = DType::kS8;
}

bool has_span(Granularity g) {
  return g == Granularity::kBlock || g == Granularity::kWarp || g == Granularity::kThread;
}

bool span_holds(const Quantization& o) {
  return !has_span(o.granularity) || (o.span % kSpanStep == 0 && o.span <= kMaxSpan);
}

void mend_span(Quantization& o) {
  o.span = std::clamp((o.span + kSpanStep / 2) / kSpanStep * kSpanStep, kSpanStep, kMaxSpan);
}

// The limits on P, V and their accumulator ask for one family of kernels or the other: mma.sync
// takes V of 16 bits as the caller has it, wgmma has it prepared and converted. Both take int8 P
// and V; 8-bit floats where the target has products of them.
bool has_fp8_p(const Variant& v) {
  return is_fp8(v.p.type);
}
bool is_int8(const Variant& v) {
  return v.p.type == DType::kS8 || v.p.type == DType::kU8;
}
bool has_fp8(const Target& t) {
  return t.wgmma || t.native_fp8_mma;
}

// Keys of a two-level interval: powers of 2 between these. 128 are as many as a sum of integers has
// room for (specs/numerics.md, 4.2).
struct Intervals {
  int least, most;
};
constexpr Intervals kIntervals16{16, 128}, kIntervals8{32, 128}, kIntervals4{64, 128},
    kIntervalsWgmmaFp8{32, 256};

const Intervals& intervals_of(const Variant& v, const Target& t) {
  if (is_fp4(v.p.type)) return kIntervals4;
  if (bits_of(v.p.type) != 8) return kIntervals16;
  return has_fp8_p(v) && t.wgmma ? kIntervalsWgmmaFp8 : kIntervals8;
}

template <const Intervals& kIntervals>
bool interval_holds(const Variant& v, const Target& t) {
  const int interval = v.pv_accumulator.interval;
  return &intervals_of(v, t) != &kIntervals || !v.pv_accumulator.outer ||
         (interval >= kIntervals.least && interval <= kIntervals.most &&
          std::has_single_bit(static_cast<unsigned>(interval)));
}

template <const Intervals& kIntervals>
void mend_interval(Variant& v) {
  int& interval = v.pv_accumulator.interval;
  int nearest = kIntervals.least;
  for (int i = kIntervals.least; i <= kIntervals.most; i *= 2) {
    if (std::abs(i - interval) < std::abs(nearest - interval)) nearest = i;
  }
  interval = nearest;
}

// A narrower type may not hold what the threshold lets P reach.
void set_p(Variant& v, const ProbabilityOperand& p) {
  v.p = p;
  if (p.range * std::exp2(v.rescale_threshold) > largest_p_range(p.type)) v.rescale_threshold = 0.0;
}

bool is_input_p(const Variant& v) {
  return v.p == ProbabilityOperand{v.input, 1.0, false};
}

bool p_holds_with_wgmma(const Variant& v) {
  return is_input_p(v) || v.p == ProbabilityOperand{DType::kF16, 1.0, false} || has_fp8_p(v) ||
         is_int8(v);
}

void mend_p_to_input(Variant& v) {
  set_p(v, {v.input, 1.0, false});
}

void mend_p_with_e4m3(Variant& v) {
  if (is_half(v.p.type)) return mend_p_to_input(v);
  set_p(v, {DType::kE4M3, std::min(v.p.range, largest_p_range(DType::kE4M3)), false});
}

// What V is beside such P; of two 8-bit floats each is what it is.
DType v_type_for(const Variant& v) {
  if (has_fp8_p(v) && is_fp8(v.v.type)) return v.v.type;
  return is_int8(v) ? DType::kS8 : v.p.type;
}

bool v_holds(const Variant& v, const Target&) {
  return v.v.type == v_type_for(v) &&
         (is_half(v.v.type) || is_fp4(v.v.type) || v.v.granularity == Granularity::kChannel);
}

// Keys are permuted for fp4 P, and scales of K that several keys share are not made for that.
bool fp4_p_fits_qk(const Variant& v, const Target&) {
  return !is_fp4(v.p.type) || is_fp4(v.q.type);
}
void mend_fp4_p(Variant& v) {
  set_p(v, {DType::kE4M3, largest_p_range(DType::kE4M3), false});
}

void mend_v(Variant& v) {
  ValueOperand value = default_value_operand(v_type_for(v));
  value.smoothing = v.v.smoothing;
  if (v.v.range < largest_v_range(value.type)) value.range = v.v.range;
  v.v = value;
}

void mend_accumulator(Variant& v) {
  v.pv_accumulator.inner = DType::kF32;
}

constexpr Limit kLimits[] = {
    {"input", "q, k and v in memory must be f16 or bf16",
     [](const Variant& v, const Target&) { return is_half(v.input); },
     [](Variant& v) { v.input = DType::kF16; }},
    {"q", "fp4 products need sm_120a",
     [](const Variant& v, const Target& t) { return t.fp4_mma || !is_fp4(v.q.type); },
     [](Variant& v) { mend_to_int8(v.q, Operand::kQ); }},
    {"q", "q must be int8, int4, fp4 or e4m3",
     [](const Variant& v, const Target&) { return is_qk_type(v.q.type); },
     [](Variant& v) { mend_to_int8(v.q, Operand::kQ); }},
    {"q", "without fp8 products, q must be int8 or int4",
     [](const Variant& v, const Target& t) { return has_fp8(t) || v.q.type != DType::kE4M3; },
     [](Variant& v) { v.q.type = DType::kS8; }},
    {"q", "the span must be a multiple of 16 up to 128",
     [](const Variant& v, const Target&) { return span_holds(v.q); },
     [](Variant& v) { mend_span(v.q); }},
    {"k", "fp4 products need sm_120a",
     [](const Variant& v, const Target& t) { return t.fp4_mma || !is_fp4(v.k.type); },
     [](Variant& v) { mend_to_int8(v.k, Operand::kK); }},
    {"k", "k must be int8, int4, fp4 or e4m3",
     [](const Variant& v, const Target&) { return is_qk_type(v.k.type); },
     [](Variant& v) { mend_to_int8(v.k, Operand::kK); }},
    {"k", "without fp8 products, k must be int8 or int4",
     [](const Variant& v, const Target& t) { return has_fp8(t) || v.k.type != DType::kE4M3; },
     [](Variant& v) { v.k.type = DType::kS8; }},
    {"k", "the span must be a multiple of 16 up to 128",
     [](const Variant& v, const Target&) { return span_holds(v.k); },
     [](Variant& v) { mend_span(v.k); }},
    {"smooth_q", "the number of queries that share a mean must be a multiple of 64",
     [](const Variant& v, const Target&) { return v.smooth_q_span % kMeanSpanStep == 0; },
     [](Variant& v) {
       v.smooth_q_span =
           std::max(1, (v.smooth_q_span + kMeanSpanStep / 2) / kMeanSpanStep) * kMeanSpanStep;
       v.smooth_q_span = std::min(v.smooth_q_span, kMaxMeanSpan);
     }},
    {"qk_accumulator", "products of q and k must add up in s32 or, of e4m3 and fp4, in f32",
     [](const Variant& v, const Target&) { return v.qk_accumulator == qk_sum_of(v); },
     [](Variant& v) { v.qk_accumulator = qk_sum_of(v); }},
    {"scale",
     "the scale must not be negative",  // row maxima are found before the scores are scaled
     [](const Variant& v, const Target&) { return v.score.scale.value_or(0.0) >= 0; },
     [](Variant& v) { v.score.scale = -*v.score.scale; }},
    {"softcap", "scores must not be capped",
     [](const Variant& v, const Target&) { return !v.score.softcap; },
     [](Variant& v) { v.score.softcap.reset(); }},
    {"alibi", "scores must have no ALiBi bias",
     [](const Variant& v, const Target&) { return !v.score.alibi; },
     [](Variant& v) { v.score.alibi = false; }},
    {"sinks", "rows must have no sink",
     [](const Variant& v, const Target&) { return !v.score.sinks; },
     [](Variant& v) { v.score.sinks = false; }},
    {"score", "scores must have no expression",
     [](const Variant& v, const Target&) { return v.score.expression.canonical_text.empty(); },
     [](Variant& v) { v.score.expression = {}; }},
    {"mask", "the mask must be none, causal(top_left), causal(bottom_right) or window(left, right)",
     [](const Variant& v, const Target&) {
       return v.mask.kind == MaskKind::kNone || v.mask.kind == MaskKind::kCausalTopLeft ||
              v.mask.kind == MaskKind::kCausalBottomRight || v.mask.kind == MaskKind::kWindow;
     },
     [](Variant& v) { v.mask = {}; }},
    {"p", "fp4 products need sm_120a",
     [](const Variant& v, const Target& t) { return t.fp4_mma || !is_fp4(v.p.type); }, mend_fp4_p},
    {"p", "fp4 P needs fp4 Q and K", fp4_p_fits_qk, mend_fp4_p},
    {"p",
     "without fp8 products, P must be int8 or uint8, or have the type of the input, and range 1",
     [](const Variant& v, const Target& t) {
       return has_fp8(t) || is_input_p(v) || is_int8(v) || is_fp4(v.p.type);  // of which above
     },
     mend_p_to_input},
    {"p", "P must be e4m3, e5m2, int8, uint8 or fp4, or have the type of the input, and range 1",
     [](const Variant& v, const Target& t) {
       return t.wgmma || !t.native_fp8_mma || is_input_p(v) || is_int8(v) || has_fp8_p(v) ||
              is_fp4(v.p.type);
     },
     mend_p_with_e4m3},
    {"p",
     "P must be e4m3, e5m2, int8 or uint8, or have range 1 and be f16 or the type of the input",
     [](const Variant& v, const Target& t) {
       return !t.wgmma || p_holds_with_wgmma(v) || is_fp4(v.p.type);
     },
     mend_p_with_e4m3},
    {"v",
     "V must have the type of P (int8 for uint8, e4m3 or e5m2 for either) and, in 8 bits, be "
     "scaled per channel",
     v_holds, mend_v},
    {"smooth_v", "V must not be smoothed unless it has 8 bits",
     [](const Variant& v, const Target&) {
       return v.v.smoothing == Smoothing::kNone || bits_of(v.v.type) == 8;
     },
     [](Variant& v) { v.v.smoothing = Smoothing::kNone; }},
    {"pv_accumulator",
     "products of 8-bit floats must add up in f32 or, by mma.sync, on two levels: f16 + f32 every "
     "n",
     [](const Variant& v, const Target& t) {
       return !has_fp8_p(v) || v.pv_accumulator.inner == DType::kF32 ||
              (!t.wgmma && v.pv_accumulator.outer);
     },
     mend_accumulator},
    {"pv_accumulator", "products of bf16 must add up in f32",
     [](const Variant& v, const Target&) {
       return v.p.type != DType::kBF16 || v.pv_accumulator.inner == DType::kF32;
     },
     mend_accumulator},
    {"pv_accumulator", "products of P and V in f16 of a bf16 input must add up in f32",
     [](const Variant& v, const Target&) {
       return !is_half(v.p.type) || v.p.type == v.input || v.pv_accumulator.inner == DType::kF32;
     },
     mend_accumulator},
    {"pv_accumulator", "the interval must be 16, 32, 64 or 128 keys", interval_holds<kIntervals16>,
     mend_interval<kIntervals16>},
    {"pv_accumulator", "the interval must be 32, 64 or 128 keys with 8-bit P",
     interval_holds<kIntervals8>, mend_interval<kIntervals8>},
    {"pv_accumulator", "the interval must be 64 or 128 keys with fp4 P",
     interval_holds<kIntervals4>, mend_interval<kIntervals4>},
    {"pv_accumulator", "the interval must be 32, 64, 128 or 256 keys with 8-bit floats",
     interval_holds<kIntervalsWgmmaFp8>, mend_interval<kIntervalsWgmmaFp8>},
    {"pv_accumulator",
     "two levels of 8-bit floats P and V by wgmma must add up values of at most 176 channels: both "
     "stay in "
     "registers",
     [](const Variant& v, const Target& t) {
       return !v.pv_accumulator.outer || !has_fp8_p(v) || !t.wgmma ||
              v.value_head_dim <= kMostTwoLevelChannels;
     },
     [](Variant& v) {
       v.pv_accumulator = {DType::kF32, {}, 0};
     }},
    {"row_sum",
     "the sum must be exact where P is int8, uint8 or fp4: such codes carry no NaN, and a sum of "
     "them would hide it",
     [](const Variant& v, const Target&) {
       return v.row_sum == RowSum::kExact || !(is_int8(v) || is_fp4(v.p.type));
     },
     [](Variant& v) { v.row_sum = RowSum::kExact; }},
    {"exp2_polynomial", "every exp2 must be the hardware's",
     [](const Variant& v, const Target&) { return v.exp2_polynomial_share == 0.0; },
     [](Variant& v) { v.exp2_polynomial_share = 0.0; }},
    {"structure", "the structure must be dense",
     [](const Variant& v, const Target&) { return v.structure.kind == StructureKind::kDense; },
     [](Variant& v) { v.structure = {}; }},
};

}  // namespace

Variant nearest_supported(const Variant& variant, const Target& target) {
  Variant nearest = variant;
  for (const Limit& limit : kLimits) {
    if (!limit.holds(nearest, target)) limit.mend(nearest);
  }
  return nearest;
}

std::vector<std::string> find_limits(const Variant& variant, const Target& target) {
  std::vector<std::string> limits;
  for (const Limit& limit : kLimits) {
    if (limit.holds(variant, target)) continue;
    const Key& key = *find_key(limit.key);
    limits.push_back(fmt::format("{} = {}: {}", key.name, key.print(variant), limit.message));
  }
  return limits;
}

void check_supported(const Variant& variant, const Target& target) {
  const std::vector<std::string> limits = find_limits(variant, target);
  if (limits.empty()) return;
  const Variant nearest = nearest_supported(variant, target);
  std::string changes;
  for (const Key& key : all_keys()) {
    const std::string value = key.print(nearest);
    if (value != key.print(variant)) changes += fmt::format("\n  {} = {}", key.name, value);
  }
  fail(ErrorKind::kUnsupported,
       "variant `{}` is valid, but no generator makes it for {} yet\n  {}\n"
       "the nearest variant that is supported has these lines instead:{}",
       variant.name, target.name, fmt::join(limits, "\n  "), changes);
}

namespace {

// specs/numerics.md, 4.2.
std::string caution_about_sums(const Variant& variant, const Target& target) {
  const bool keeps_13_bits = target.wgmma || (target.sm == 89 && target.native_fp8_mma);
  if (!keeps_13_bits || !has_fp8_p(variant) || variant.pv_accumulator.outer) return "";
  if (variant.v.smoothing == Smoothing::kMean) return "";  // what has no mean is a random walk
  const std::string_view source =
      target.wgmma ? "" : " (by published work, SageAttention 2; not measured here)";
  return fmt::format(
      "the tensor cores of {} keep 13 bits of sums of 8-bit floats' products and cut off the "
      "rest{}: with pv_accumulator = f32 the error grows with the number of keys where channels of "
      "V have a mean\n  note: write smooth_v = mean, or pv_accumulator = f32 + f32 every 64{}",
      target.name, source,
      target.wgmma ? fmt::format(" for a value_head_dim up to {}", kMostTwoLevelChannels) : "");
}

// specs/numerics.md, 3.
std::string caution_about_int4(const Variant& variant, const Target& target) {
  if (variant.q.type != DType::kS4 || target.native_s4_mma) return "";
  return fmt::format(
      "{} has no int4 tensor cores: the codes of int4 Q and K lie one to a byte and are multiplied "
      "as int8, no faster than int8\n  note: write q = int8 and k = int8, which are 18 times as "
      "fine, or a target with int4 tensor cores: sm_80, sm_86, sm_89",
      target.name);
}

// Nothing is gained by codes of 8 bits whose products are slower than those of 16. `half`: what to
// write where no type of 8 bits is fast.
std::string caution_about_product(std::string_view keys, DType type, DType accumulator,
                                  const Throughput& throughput, std::string_view half) {
  const int rate = tensor_throughput(throughput, type, accumulator);
  const int of_half = tensor_throughput(throughput, DType::kF16, DType::kF32);
  if (bits_of(type) != 8 || rate >= of_half) return "";
  const int of_e4m3 = tensor_throughput(throughput, DType::kE4M3, DType::kF32);
  const bool has_e4m3 = of_e4m3 > of_half;
  return fmt::format(
      "the tensor cores of {} make {} {} operations a clock of a multiprocessor, and {} of {}\n"
      "  note: {}",
      throughput.target, rate, name_of(type), has_e4m3 ? of_e4m3 : of_half,
      has_e4m3 ? "e4m3" : "f16", has_e4m3 ? fmt::format("write {} = e4m3", keys) : half);
}

std::string caution_about_e4m3_scores(const Variant& variant, const Throughput& throughput) {
  const int rate = tensor_throughput(throughput, DType::kE4M3, DType::kF32);
  const int of_int8 = tensor_throughput(throughput, DType::kS8, DType::kS32);
  if (variant.q.type != DType::kE4M3 || rate >= of_int8) return "";
  return fmt::format(
      "the tensor cores of {} make {} e4m3 operations a clock of a multiprocessor, and {} of int8\n"
      "  note: write q and k = int8, which are finer, too",
      throughput.target, rate, of_int8);
}

}  // namespace

std::string caution_about_speed(const Variant& variant, const Throughput& throughput) {
  std::string scores =
      caution_about_product("q and k", variant.q.type, variant.qk_accumulator, throughput,
                            "attention that does not quantize q and k is faster there");
  if (scores.empty()) scores = caution_about_e4m3_scores(variant, throughput);
  const std::string values = caution_about_product(
      "p and v", variant.v.type, variant.pv_accumulator.inner, throughput, "write p and v = f16");
  return scores + (scores.empty() || values.empty() ? "" : "\n") + values;
}

std::vector<std::string> cautions_about(const Variant& variant, const Target& target) {
  const Throughput* throughput = find_throughput(target);
  std::vector<std::string> cautions = {caution_about_sums(variant, target),
                                       caution_about_int4(variant, target),
                                       throughput ? caution_about_speed(variant, *throughput) : ""};
  std::erase(cautions, "");
  return cautions;
}

}  // namespace sagejit
