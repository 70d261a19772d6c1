#include "tests/emulated/judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "compiler/schedule/schedule.h"
#include "tests/reference/attention.h"
#include "tests/reference/metrics.h"
#include "tests/reference/quantized_attention.h"

namespace sagejit::test {
namespace {

using reference::AttentionResult;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Half a unit in the last place of 1.0.
double rounding_of(DType type) {
  switch (type) {
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    case DType::kE4M3:
      return 0x1p-4;
    case DType::kE5M2:
      return 0x1p-3;
    default:
      return 0x1p-24;
  }
}

// A code written directly takes 1 + f for 2^f, moved by 8 (1/ln 2 - 3/2) codes to have no bias: P
// is times h(f) = (f + 1/ln 2 - 1/2) 2^-f, which strays from 1 by up to 0.0573 (f = 0), and by
// 0.0195 RMS from its mean over f in [0, 1). The rounding to whole codes comes on top.
constexpr double kMostLineError = 0.0573, kRmsLineError = 0.0195;

// Largest relative error of P as it is multiplied.
double most_p_error(const ProbabilityOperand& p) {
  return rounding_of(p.type) + (p.direct_code ? kMostLineError : 0);
}

// What a row sum loses in FP8 tensor cores that add up n P of one tile at a time: all are cut off
// to a grid of at most 2^-13 of their sum, and so is the sum, after every 32. By half a grid on
// average, and never up: n + n / 32 times. (Most lose nothing: the 4 bits of an e4m3 P above 8
// grids are on it.)
double fp8_row_sum_rounding(int64_t n) {
  return 0x1p-14 * (static_cast<double>(n) + static_cast<double>(n) / 32);
}

bool is_int8(DType type) {
  return type == DType::kS8 || type == DType::kU8;
}

struct Findings {
  const Variant& variant;
  const AttentionResult& exact;
  const AttentionResult& model;
  std::vector<double> score_loss;  // [b, h, m], natural-log units; empty: none
  std::vector<double> o, lse;
  std::vector<std::string> lines;

  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    lines.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
};

double rms(const double* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += values[i] * values[i];
  return std::sqrt(sum / static_cast<double>(count));
}

double rms_difference(const double* x, const double* y, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += (x[i] - y[i]) * (x[i] - y[i]);
  return std::sqrt(sum / static_cast<double>(count));
}

void check_against_truth(Findings& f, const Demand& demand) {
  const reference::Shape4 shape{f.exact.b, f.exact.h, f.exact.m, f.exact.dv};
  const reference::OutputMetrics metrics = reference::compare_output(shape, f.o, f.exact.o);
  if (metrics.num_non_finite > 0) {
    f.add("{} outputs are NaN, infinite or unwritten", metrics.num_non_finite);
    return;
  }
  const bool has_rows = shape[2] >= demand.least_rows;
  const bool has_heads = has_rows && shape[0] * shape[1] >= kManyHeads;
  if (has_heads && !(metrics.overall.cosine >= demand.cosine)) {
    f.add("cosine {:.6f} is below {}", metrics.overall.cosine, demand.cosine);
  }
  if (has_rows && !(metrics.worst_head.cosine >= demand.head_cosine)) {
    f.add("cosine {:.6f} of (b{}, h{}) is below {}", metrics.worst_head.cosine, metrics.worst_b,
          metrics.worst_h, demand.head_cosine);
  }
  if (!f.variant.lse) return;
  const double error = reference::max_lse_error(f.lse, f.exact.lse);
  if (!(error <= demand.lse)) f.add("LSE error {:.3g} exceeds {}", error, demand.lse);
}

// What smoothed V has in all its channels, [dv] of a head of O; zeros where it is not smoothed.
std::vector<double> value_mean(const HostTensor& v, Smoothing smoothing, const AttentionResult& o,
                               int64_t head) {
  const int64_t h_of_v = head % o.h / (o.h / v.shape()[1]), n = v.shape()[2];
  std::vector<double> mean(static_cast<size_t>(o.dv));
  for (int64_t j = 0; smoothing == Smoothing::kMean && j < n; ++j) {
    for (int64_t c = 0; c < o.dv; ++c) {
      mean[static_cast<size_t>(c)] += v.get(head / o.h, h_of_v, j, c) / static_cast<double>(n);
    }
  }
  return mean;
}

// How much one sign prevails in the values whose sums are a head of O, 0 to 1: RMS over O of what
// its channel of V has more of one sign than of the other, as a share of the keys.
// Smoothed V is taken about its mean.
double one_sidedness(const HostTensor& v, Smoothing smoothing, const AttentionResult& o,
                     int64_t head) {
  const int64_t h_of_v = head % o.h / (o.h / v.shape()[1]), n = v.shape()[2];
  std::vector<double> surplus(static_cast<size_t>(o.dv));
  const std::vector<double> mean = value_mean(v, smoothing, o, head);
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t c = 0; c < o.dv; ++c) {
      const double x = v.get(head / o.h, h_of_v, j, c) - mean[static_cast<size_t>(c)];
      surplus[static_cast<size_t>(c)] += x > 0 ? 1 : x < 0 ? -1 : 0;
    }
  }
  double all = 0, one_sided = 0;
  const double* y = o.o.data() + head * o.m * o.dv;
  for (int64_t i = 0; i < o.m * o.dv; ++i) {
    const double share = surplus[static_cast<size_t>(i % o.dv)] / static_cast<double>(n);
    all += y[i] * y[i];
    one_sided += y[i] * y[i] * share * share;
  }
  return all == 0 ? 0 : std::sqrt(one_sided / all);
}

// RMS of a head of O in rows that see keys, without what smoothing took out of V.
double rms_about(const std::vector<double>& mean, const AttentionResult& o, int64_t head) {
  double squares = 0;
  for (int64_t row = head * o.m; row < (head + 1) * o.m; ++row) {
    if (std::isinf(o.lse[static_cast<size_t>(row)])) continue;
    for (int64_t c = 0; c < o.dv; ++c) {
      const double x = o.o[static_cast<size_t>(row * o.dv + c)] - mean[static_cast<size_t>(c)];
      squares += x * x;
    }
  }
  return std::sqrt(squares / static_cast<double>(o.m * o.dv));
}

// Keys whose P the tensor core adds up for a row sum, before f32 carries on: a key tile of the
// wgmma kernel's; 0 where no 8-bit floats are summed.
int64_t keys_of_a_sum(const Variant& variant, const Problem& problem) {
  if (variant.row_sum == RowSum::kExact || !is_fp8(variant.p.type)) return 0;
  return parse_schedule(problem.kernel().artifact().schedule_text).block_n;
}

// RMS over a head of O of what two roundings of int8 P may differ by, relative to different maxima.
// Each is off by at most half a step of 1 / range, whatever P is, so that in
//   dO = sum dp v / l,   |dp| <= 1 / (2 range)
// each is off by sum v^2 / (12 range^2 l^2) in the mean square where the errors are independent. P
// below half a step is 0: there they have one sign, up to half a step and a quarter on average,
// which adds up where V has a mean. Row sums are exact. As for e4m3, three standard deviations are
// allowed.
double int8_p_error(const Findings& f, const HostTensor& v, const std::vector<double>& mean,
                    int64_t head) {
  const AttentionResult& o = f.model;
  const int64_t h_of_v = head % o.h / (o.h / v.shape()[1]), n = v.shape()[2];
  const double step = 1 / f.variant.p.range;
  std::vector<double> squares(static_cast<size_t>(o.dv)), sums(static_cast<size_t>(o.dv));
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t c = 0; c < o.dv; ++c) {
      const double x = v.get(head / o.h, h_of_v, j, c) - mean[static_cast<size_t>(c)];
      squares[static_cast<size_t>(c)] += x * x;
      sums[static_cast<size_t>(c)] += x;
    }
  }
  double total = 0;
  for (int64_t row = head * o.m; row < (head + 1) * o.m; ++row) {
    const double l = f.exact.sum[static_cast<size_t>(row)];
    for (int64_t c = 0; l > 0 && c < o.dv; ++c) {
      const auto channel = static_cast<size_t>(c);
      const double coherent = sums[channel] * step / 4;
      total += (squares[channel] * step * step / 6 + coherent * coherent) / (l * l);
    }
  }
  const double stray = 1 + 3 / std::sqrt(static_cast<double>(o.m));
  return std::sqrt(total / static_cast<double>(o.m * o.dv) * stray);
}

// The products' error is held against what they add up to: O, or O about the mean of smoothed V.
// The mean itself, a sum in f32 in another order, and the output's type may round the whole.
void check_against_model(Findings& f, const Problem& problem) {
  const HostTensor& v = problem.inputs().v;
  const int64_t per_head = f.exact.m * f.exact.dv, num_keys = v.shape()[2];
  const Smoothing smoothing = f.variant.v.smoothing;
  for (int64_t head = 0; per_head > 0 && head < f.exact.b * f.exact.h; ++head) {
    const double* y = f.model.o.data() + head * per_head;
    const double error = rms_difference(f.o.data() + head * per_head, y, per_head);
    if (error == 0) continue;
    const double tolerance =
        model_tolerance(f.variant, f.exact.m, num_keys,
                        is_fp8(f.variant.p.type) ? one_sidedness(v, smoothing, f.model, head) : 0,
                        keys_of_a_sum(f.variant, problem));
    const std::vector<double> mean = value_mean(v, smoothing, f.model, head);
    const double summed = rms_about(mean, f.model, head);
    const bool has_mean = smoothing == Smoothing::kMean;
    const double whole =
        (has_mean ? (rounding_of(f.variant.output) + 0x1p-19) * rms(y, per_head) : 0) +
        (is_int8(f.variant.p.type) ? int8_p_error(f, v, mean, head) : 0);
    // A score that is off by x makes its P off by as much of itself.
    const double of_scores =
        f.score_loss.empty() ? 0 : rms(f.score_loss.data() + head * f.exact.m, f.exact.m);
    if (error <= (tolerance + of_scores) * summed + whole) continue;
    f.add(
        "(b{}, h{}) is {:.3g} from the model of the variant, more than {:.3g} of {:.3g} and {:.3g}",
        head / f.exact.h, head % f.exact.h, error, tolerance + of_scores, summed, whole);
    return;
  }
}

// Section 5: f32 sums of up to d products and of n probabilities. With quantized row sums the
// error of every P enters, relative to another maximum than the model's, and what the tensor core's
// sums lose, of e4m3 scores too (fp8_score_loss).
void check_lse_against_model(Findings& f, const Problem& problem) {
  if (!f.variant.lse) return;
  const bool sums_quantized = f.variant.row_sum == RowSum::kQuantized;
  const double rounding =
      !sums_quantized
          ? 0
          : 2 * most_p_error(f.variant.p) + fp8_row_sum_rounding(keys_of_a_sum(f.variant, problem));
  for (size_t i = 0; i < f.lse.size(); ++i) {
    const double expected = f.model.lse[i];
    if (std::isinf(expected) && f.lse[i] == expected) continue;
    const double of_scores = f.score_loss.empty() ? 0 : 2 * f.score_loss[i];
    const double tolerance = rounding + of_scores + 1e-5 * (1 + std::fabs(expected));
    if (!(std::fabs(f.lse[i] - expected) <= tolerance)) {
      f.add("LSE [{}] is {:.6g}, the model's {:.6g}", i, f.lse[i], expected);
      return;
    }
  }
}

// Rows that see no key: exactly 0 and -inf, whatever the model says.
void check_blind_rows(Findings& f) {
  for (size_t row = 0; row < f.exact.lse.size(); ++row) {
    if (f.exact.lse[row] != -kInfinity) continue;
    if (f.variant.lse && f.lse[row] != -kInfinity) {
      f.add("row {} sees no key, but its LSE is {}", row, f.lse[row]);
      return;
    }
    for (int64_t j = 0; j < f.exact.dv; ++j) {
      const double value = f.o[row * static_cast<size_t>(f.exact.dv) + static_cast<size_t>(j)];
      if (value == 0) continue;
      f.add("row {} sees no key, but its output is {}", row, value);
      return;
    }
  }
}

}  // namespace

Demand demand_for(const Variant& variant, std::string_view input) {
  const bool smoothed = variant.smooth_k == Smoothing::kMean;
  const bool is_narrow = bits_of(variant.p.type) == 8;
  const bool is_int4 = variant.q.type == DType::kS4, is_fp4 = variant.q.type == DType::kE2M1;
  const bool has_e5m2 = variant.p.type == DType::kE5M2 || variant.v.type == DType::kE5M2;
  const bool is_e4m3 = variant.q.type == DType::kE4M3;
  constexpr Demand kFp4{.cosine = 0.975, .head_cosine = 0.965, .lse = 1.0, .least_rows = 16};
  Demand demand = is_fp4                ? kFp4
                  : is_int4             ? Demand{.cosine = 0.96, .head_cosine = 0.94, .lse = 1.0}
                  : has_e5m2 && is_e4m3 ? Demand{.cosine = 0.995, .head_cosine = 0.993, .lse = 0.2}
                  : has_e5m2            ? Demand{.cosine = 0.996, .head_cosine = 0.994}
                  : is_e4m3             ? Demand{.cosine = 0.998, .head_cosine = 0.997, .lse = 0.2}
                  : is_narrow           ? Demand{.cosine = 0.999, .head_cosine = 0.998}
                                        : Demand{};
  // The bars are for scores of variance 1. Errors of larger ones are as much larger, and what a
  // cosine lacks is their square.
  const double growth =
      std::max(1.0, variant.score.scale.value_or(0) * std::sqrt(variant.head_dim));
  for (double* cosine : {&demand.cosine, &demand.head_cosine}) {
    *cosine = 1 - (1 - *cosine) * growth * growth;
  }
  demand.lse *= growth;
  const Demand none = {.cosine = -1, .head_cosine = -1, .lse = kInfinity};
  // The steps of a smaller range are coarser than the bars are for.
  if (is_int8(variant.p.type) && variant.p.range < largest_p_range(DType::kS8)) return none;
  const bool smooths_both = smoothed && variant.smooth_q == Smoothing::kMean;
  if (input == "normal" || (input == "biased_k" && smoothed)) return demand;
  if (input == "biased_qk" && smooths_both) return demand;
  if (input == "constant") return demand;
  return none;
}

namespace {

// P is rounded relative to the running maximum, the model's to the final one: two errors, each at
// most half a unit. For 16-bit types that bound is small enough. An e4m3 P is off by 1/16, e5m2 by
// 1/8, and the bound of two would let a lost key pass; but O is judged by RMS, and in
//   dO = sum dp v / l,   |dp| <= u p,   u = 2^-4 or 2^-3
// the roundings of different keys are independent and without bias, so that
//   E dO^2 = E dp^2/p^2 sum p^2 v^2 / l^2 <= u^2 / 3 sum p^2 v^2 / l^2
// for each of the two. Of codes written directly dp has the line's part besides, whose mean leaves
// with the row sum of the same codes. sum p^2 v^2 is what O^2 l^2 is on average over V of mean 0,
// and less where V has a mean: relative to O the error does not shrink with the number of keys, nor
// does it grow. That is the mean over many rows; the square of a row's own error strays by about as
// much as it is large, as few keys may decide the row: three standard deviations are allowed, never
// more than the bound.
double p_rounding(const Variant& variant, int64_t num_rows) {
  const ProbabilityOperand& p = variant.p;
  if (is_int8(p.type)) return 0;  // int8_p_error() instead
  // The model's maxima are the kernel's. But one code in some thousands lies so close to the middle
  // of two that the last bits of a score turn it over, or the scale of its group, by a tenth of the
  // group's largest; of scores that have the f32 sums of smoothed Q in them more.
  if (p.type == DType::kE2M1) return variant.smooth_q == Smoothing::kMean ? 0x1p-6 : 0x1p-8;
  const double u = rounding_of(p.type);
  if (!is_fp8(p.type)) return 2 * u;
  const double stray = 1 + 3 / std::sqrt(static_cast<double>(num_rows));
  const double line = p.direct_code ? kRmsLineError : 0;
  return std::min(2 * most_p_error(p), std::sqrt(2 * (u * u / 3 + line * line) * stray));
}

// FP8 tensor cores cut off each product of P and V, towards zero, to a grid 2^-13 of the largest
// exponent in a step of 32 keys (semantics/float8_sum.h). Once a few keys are in, that is the
// accumulator's, and the grid g at most 2^-13 |S|. A product loses g / 2 on average, give or take
// g / sqrt(12), so at most g / sqrt(3) RMS, and n of them, with S taken as large as it is in the
// end,
//   where their signs are mixed     sqrt(n / 3) g, a random walk,
//   where one sign prevails         n g / 2 more, times its surplus s = |n+ - n-| / n; never more
//                                   than the products themselves.
// (With S growing evenly g is half as large on average; then n g / 2 covers products that all lose
// as much as one can, as equal ones may.) Sums of two levels do so within an interval.
double fp8_sum_rounding(const Accumulator& pv, int64_t num_keys, double one_sidedness) {
  constexpr double kGrid = 0x1p-13;
  const auto n =
      static_cast<double>(pv.outer ? std::min<int64_t>(pv.interval, num_keys) : num_keys);
  return kGrid * std::sqrt(n / 3) + one_sidedness * std::min(1.0, kGrid * n / 2);
}

}  // namespace

double model_tolerance(const Variant& variant, int64_t num_rows, int64_t num_keys,
                       double one_sidedness, int64_t sum_keys) {
  const auto steps = [](int64_t keys) { return std::sqrt(static_cast<double>(keys) / 16 + 1); };
  const Accumulator& pv = variant.pv_accumulator;
  // Each product of 16 keys is rounded to the accumulator's type: a random walk.
  double tolerance = rounding_of(pv.inner) * steps(pv.outer ? pv.interval : num_keys);
  if (pv.inner == DType::kF16) tolerance *= 2;  // products within one instruction are rounded too
  if (is_fp8(variant.p.type)) tolerance += fp8_sum_rounding(pv, num_keys, one_sidedness);
  tolerance += p_rounding(variant, num_rows) + fp8_row_sum_rounding(sum_keys);
  tolerance += rounding_of(variant.output);
  // ex2.approx, f32 sums, and the bias of the scores (see check_lse_against_model).
  return tolerance + 2e-4;
}

namespace {

// The kernel's own where there was anything to compute, so that a code turned over by the mean's
// last bits is no difference; that the mean is right is the quantizers' test.
std::vector<float> mean_of(const Problem& problem, std::string_view buffer) {
  const Inputs& in = problem.inputs();
  if (in.q.num_elements() == 0 || in.k.num_elements() == 0) return {};
  if (!problem.has_workspace(buffer)) return {};
  const std::vector<uint8_t> bytes = problem.workspace(buffer);
  std::vector<float> mean(bytes.size() / sizeof(float));
  std::memcpy(mean.data(), bytes.data(), bytes.size());
  return mean;
}

}  // namespace

std::vector<std::string> judge(const Variant& variant, const Problem& problem,
                               const Demand& demand) {
  const Inputs& in = problem.inputs();
  const AttentionResult exact = reference::exact_attention(variant, in.q, in.k, in.v);
  const std::vector<float> k_mean = mean_of(problem, "k_mean"), q_mean = mean_of(problem, "q_mean");
  // The model of fp4 P is relative to the same maxima as the kernel's.
  const bool is_fp4 = variant.p.type == DType::kE2M1;
  const int64_t key_tile =
      is_fp4 ? parse_schedule(problem.kernel().artifact().schedule_text).block_n : 0;
  const AttentionResult model =
      reference::quantized_attention(variant, in.q, in.k, in.v, k_mean, q_mean, key_tile);
  Findings findings{variant, exact, model, {}, problem.o().to_f64(), {}, {}};
  findings.score_loss = reference::fp8_score_loss(variant, in.q, in.k, in.v, k_mean, q_mean);
  if (variant.lse) findings.lse = problem.lse().to_f64();
  check_against_truth(findings, demand);
  check_against_model(findings, problem);
  check_lse_against_model(findings, problem);
  check_blind_rows(findings);
  const std::string damage = problem.damage();
  if (!damage.empty()) findings.lines.push_back(damage);
  return findings.lines;
}

}  // namespace sagejit::test
