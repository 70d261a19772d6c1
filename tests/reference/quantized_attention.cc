#include "tests/reference/quantized_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compiler/support/error.h"
#include "tests/reference/float16.h"
#include "tests/reference/float4.h"
#include "tests/reference/float8.h"
#include "tests/reference/parallel.h"
#include "tests/reference/quantizer.h"

namespace sagejit::reference {
namespace {

bool is_half(DType type) {
  return type == DType::kF16 || type == DType::kBF16;
}
bool is_int8(DType type) {
  return type == DType::kS8 || type == DType::kU8;
}

double rounded_to(DType type, double value) {
  return type == DType::kF16 ? f16_to_f32(f64_to_f16(value)) : bf16_to_f32(f64_to_bf16(value));
}

std::vector<float> mean_of(Smoothing smoothing, const HostTensor& x) {
  if (smoothing == Smoothing::kNone) return {};
  const std::vector<double> mean = token_mean(x);
  return {mean.begin(), mean.end()};
}

// A mean that is not finite counts as 0.
std::vector<float> finite_block_mean(const HostTensor& x, int64_t span) {
  const std::vector<double> mean = block_mean(x, span);
  std::vector<float> result(mean.begin(), mean.end());
  for (float& value : result) value = std::isfinite(value) ? value : 0.0f;
  return result;
}

struct QuantizedInputs {
  const Variant& variant;
  const HostTensor &q, &k, &v;
  GroupRule q_rule, k_rule;
  std::vector<float> mean;  // [b, hkv, d] or empty
  Means q_means;
  Quantized q_codes, k_codes;
  int64_t hkv;
  QuantizedValues v_codes;                      // of 8-bit V alone
  std::vector<float> v_mean;                    // [b, hkv, dv] or empty
  GroupQuantized q_groups, k_groups, v_groups;  // of fp4 alone

  // Element c of row `row`, counted over all heads, of Q or K in fp4.
  double grouped(const GroupQuantized& x, int64_t row, int64_t c) const {
    const int64_t d = variant.head_dim, groups = (d + kGroupElements - 1) / kGroupElements;
    return double{e2m1_to_f32(x.codes[static_cast<size_t>(row * d + c)])} *
           e4m3_to_f32(x.scales[static_cast<size_t>(row * groups + c / kGroupElements)]);
  }

  double value(int64_t b, int64_t h, int64_t j, int64_t c) const {
    const int64_t head = b * hkv + h, n = v.shape()[2], dv = v.shape()[3];
    if (variant.v.type == DType::kE2M1) {
      const int64_t groups = (n + kGroupElements - 1) / kGroupElements;
      const int64_t group = head * groups + j / kGroupElements;
      return double{e2m1_to_f32(v_groups.codes[static_cast<size_t>((head * n + j) * dv + c)])} *
             e4m3_to_f32(v_groups.scales[static_cast<size_t>(group * dv + c)]);
    }
    if (v_codes.codes.empty()) return rounded_to(variant.v.type, v.get(b, h, j, c));
    const auto channel = static_cast<size_t>(head * dv + c);
    const uint8_t code = v_codes.codes[static_cast<size_t>((head * n + j) * dv + c)];
    return double{decoded_value(variant.v.type, code)} * v_codes.scales[channel];
  }
};

// What smoothing took out of Q's scores, in float64.
void add_block_scores(const QuantizedInputs& in, int64_t b, int64_t h, QueryOperand& operand) {
  if (in.q_means.values.empty()) return;
  const int64_t hq = in.q.shape()[1], n = in.k.shape()[2], d = in.q.shape()[3];
  const int64_t kv_head = h / (hq / in.hkv), blocks = in.q_means.num_blocks(in.q.shape()[2]);
  const float* mean = in.mean.empty() ? nullptr : in.mean.data() + (b * in.hkv + kv_head) * d;
  const float* q_mean = in.q_means.values.data() + (b * hq + h) * blocks * d;
  operand.block_rows = in.q_means.span;
  for (int64_t block = 0; block < blocks; ++block, q_mean += d) {
    for (int64_t j = 0; j < n; ++j) {
      double score = 0;
      for (int64_t c = 0; c < d; ++c) {
        const double x = double{in.k.get(b, kv_head, j, c)} - (mean ? double{mean[c]} : 0.0);
        score += q_mean[c] * x;
      }
      operand.block_scores.push_back(score * reference::score_scale(in.variant));
    }
  }
}

double decoded(DType type, int8_t code) {
  return decoded_value(type, static_cast<uint8_t>(code));
}

QueryOperand load_queries(const QuantizedInputs& in, int64_t b, int64_t h) {
  const int64_t hq = in.q.shape()[1], m = in.q.shape()[2], d = in.q.shape()[3];
  const int64_t head = b * hq + h;
  const double scale = reference::score_scale(in.variant);
  QueryOperand operand;
  if (in.variant.q.type == DType::kE2M1) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t c = 0; c < d; ++c) {
        operand.rows.push_back(in.grouped(in.q_groups, head * m + i, c));
      }
    }
    operand.row_factor.assign(static_cast<size_t>(m), scale);
  } else {
    const int8_t* codes = in.q_codes.codes.data() + head * m * d;
    for (int64_t i = 0; i < m * d; ++i) {
      operand.rows.push_back(decoded(in.variant.q.type, codes[i]));
    }
    for (int64_t i = 0; i < m; ++i) {
      const auto group = static_cast<size_t>(head * in.q_codes.num_groups + in.q_rule.group_of(i));
      operand.row_factor.push_back(in.q_codes.scales[group] * scale);
    }
  }
  add_block_scores(in, b, h, operand);
  if (in.mean.empty()) return operand;
  const float* mean = in.mean.data() + (b * in.hkv + h / (hq / in.hkv)) * d;
  for (int64_t i = 0; i < m; ++i) {
    double correction = 0;
    for (int64_t c = 0; c < d; ++c)
      correction += static_cast<double>(in.q.get(b, h, i, c)) * mean[c];
    operand.lse_offset.push_back(scale * correction);
  }
  return operand;
}

KeyOperand load_keys(const QuantizedInputs& in, int64_t b, int64_t h) {
  const int64_t n = in.v.shape()[2], d = in.variant.head_dim, dv = in.variant.value_head_dim;
  const int64_t head = b * in.hkv + h;
  KeyOperand operand{PackedMatrix(d, n), PackedMatrix(n, dv), {}};
  const bool is_fp4 = in.variant.k.type == DType::kE2M1;
  const int8_t* codes = is_fp4 ? nullptr : in.k_codes.codes.data() + head * n * d;
  for (int64_t j = 0; j < n; ++j) {
    const size_t group =
        is_fp4 ? 0 : static_cast<size_t>(head * in.k_codes.num_groups + in.k_rule.group_of(j));
    operand.key_factor.push_back(is_fp4 ? 1.0 : in.k_codes.scales[group]);
    for (int64_t c = 0; c < d; ++c) {
      operand.keys.at(c, j) = is_fp4 ? in.grouped(in.k_groups, head * n + j, c)
                                     : decoded(in.variant.k.type, codes[j * d + c]);
    }
    for (int64_t c = 0; c < dv; ++c) {
      operand.values.at(j, c) = in.value(b, h, j, c);
    }
  }
  return operand;
}

// What smoothing took out of V comes back for every row that sees a key.
void add_mean(AttentionResult& result, const std::vector<float>& mean, int64_t hkv) {
  if (mean.empty()) return;
  for (int64_t row = 0; row < result.b * result.h * result.m; ++row) {
    if (std::isinf(result.lse[static_cast<size_t>(row)])) continue;
    const int64_t batch = row / (result.h * result.m), head = row / result.m % result.h;
    const int64_t kv_head = batch * hkv + head / (result.h / hkv);
    for (int64_t c = 0; c < result.dv; ++c) {
      result.o[static_cast<size_t>(row * result.dv + c)] +=
          mean[static_cast<size_t>(kv_head * result.dv + c)];
    }
  }
}

QuantizedInputs quantized_inputs(const Variant& variant, const HostTensor& q, const HostTensor& k,
                                 const HostTensor& v, const std::vector<float>& k_mean,
                                 const std::vector<float>& q_mean) {
  QuantizedInputs in{variant,
                     q,
                     k,
                     v,
                     {},
                     {},
                     mean_of(variant.smooth_k, k),
                     {{}, variant.smooth_q_span},
                     {},
                     {},
                     k.shape()[1],
                     {},
                     {},
                     {},
                     {},
                     {}};
  if (!in.mean.empty() && !k_mean.empty()) in.mean = k_mean;
  if (variant.smooth_q == Smoothing::kMean) {
    in.q_means.values = q_mean;
    if (q_mean.empty()) in.q_means.values = finite_block_mean(q, variant.smooth_q_span);
  }
  if (variant.q.type == DType::kE2M1) {
    in.q_groups = quantize_in_groups(q, in.q_means, variant.hadamard);
    in.k_groups = quantize_in_groups(k, {in.mean, 0}, variant.hadamard);
  } else {
    in.q_rule = query_groups(variant), in.k_rule = key_groups(variant);
    in.q_codes = quantize(q, in.q_rule, in.q_means, variant.hadamard);
    in.k_codes = quantize(k, in.k_rule, {in.mean, 0}, variant.hadamard);
  }
  if (variant.v.type == DType::kE2M1) {
    in.v_groups = quantize_values_in_groups(v, value_range(variant));
  } else if (!is_half(variant.v.type)) {
    in.v_mean = mean_of(variant.v.smoothing, v);
    for (float& mean : in.v_mean) mean = std::isfinite(mean) ? mean : 0;
    in.v_codes = quantize_values(v, variant.v.type, value_range(variant), in.v_mean);
  }
  return in;
}

// What fp8 tensor cores may lose of one score, in units of its sum: those that cut off each addend,
// and then the sum, 13 bits behind the largest of them, in steps of 32 products. A product of two
// e4m3 numbers has 7 bits behind its leading one: where it is no more than 2^7 times smaller than
// the largest addend, nothing of it is lost.
double lost_of_sum(const double* q, const double* k, int64_t d) {
  constexpr int kFraction = 13;
  constexpr int64_t kStep = 32;
  double sum = 0, largest = 0;
  for (int64_t c = 0; c < d; ++c) {
    sum += q[c] * k[c];
    largest =
        std::max({largest, std::fabs(q[c] * k[c]), c % kStep == kStep - 1 ? std::fabs(sum) : 0});
  }
  largest = std::max(largest, std::fabs(sum));
  if (largest == 0) return 0;
  const double grid = std::ldexp(1.0, std::ilogb(largest) - kFraction);
  int64_t num_cut = 0, surplus = 0;
  for (int64_t c = 0; c < d; ++c) {
    const double product = q[c] * k[c];
    if (std::fmod(product, grid) == 0) continue;
    ++num_cut;
    surplus += product > 0 ? 1 : -1;
  }
  if (num_cut == 0) return 0;
  // Half a grid each on average, give or take a twelfth of its square; the sums' own losses, two a
  // step, have one sign.
  const int64_t num_sums = 2 * ((d + kStep - 1) / kStep);
  const auto of_one_sign = static_cast<double>(std::abs(surplus) + num_sums) / 2;
  return grid * (std::sqrt(static_cast<double>(num_cut + num_sums) / 3) + of_one_sign);
}

// Kernels whose scores are integers until they become exponents: with smoothed Q, and with scales
// of fewer keys in a row, they are numbers before.
bool grids_offset(const Variant& variant, const GroupRule& keys, int64_t key_tile) {
  constexpr int64_t kLeastRun = 16;
  const bool integers = variant.k.type == DType::kS8 || variant.k.type == DType::kS4;
  const int64_t run = keys.span == 0 ? key_tile : std::gcd(keys.span, key_tile);
  return key_tile > 0 && integers && run >= kLeastRun && variant.smooth_q == Smoothing::kNone;
}

}  // namespace

bool models_quantization(const Variant& variant, std::string* why) {
  const char* missing = nullptr;
  const auto is_modelled = [](DType type) {
    return type == DType::kS8 || type == DType::kS4 || type == DType::kE4M3 || type == DType::kE2M1;
  };
  if (!is_modelled(variant.q.type) || !is_modelled(variant.k.type)) {
    missing = "Q or K other than int8, int4, fp4 or e4m3";
  }
  if (!is_half(variant.p.type) && !is_fp8(variant.p.type) && !is_int8(variant.p.type) &&
      variant.p.type != DType::kE2M1) {
    missing = "P other than f16, bf16, e4m3, e5m2, int8, uint8 or fp4";
  }
  const bool is_8_bit = is_fp8(variant.v.type) || variant.v.type == DType::kS8;
  if (!is_half(variant.v.type) && !is_8_bit && variant.v.type != DType::kE2M1) {
    missing = "V other than f16, bf16, e4m3, e5m2, int8 or fp4";
  }
  if (is_8_bit && variant.v.granularity != Granularity::kChannel) {
    missing = "8-bit V with scales other than per channel";
  }
  if (variant.v.smoothing != Smoothing::kNone && !is_8_bit) {
    missing = "smoothing of V that has not 8 bits";
  }
  if (variant.score.softcap && variant.smooth_k != Smoothing::kNone) {
    missing = "a softcap over smoothed K";
  }
  if (missing && why) *why = missing;
  return missing == nullptr;
}

AttentionResult quantized_attention(const Variant& variant, const HostTensor& q,
                                    const HostTensor& k, const HostTensor& v,
                                    const std::vector<float>& k_mean,
                                    const std::vector<float>& q_mean, int64_t key_tile) {
  check_problem(variant, q, k, v);
  if (std::string why; !models_quantization(variant, &why)) {
    fail(ErrorKind::kUnsupported, "the model of the quantized variant does not cover {}", why);
  }
  const QuantizedInputs in = quantized_inputs(variant, q, k, v, k_mean, q_mean);
  AttentionEngine engine{
      variant,      q.shape()[0], q.shape()[1], k.shape()[1], q.shape()[2],
      k.shape()[2], {},           {},           variant.p,    variant.row_sum == RowSum::kQuantized,
      key_tile};
  engine.grids_offset = grids_offset(variant, in.k_rule, key_tile);
  engine.load_queries = [&](int64_t b, int64_t h) { return load_queries(in, b, h); };
  engine.load_keys = [&](int64_t b, int64_t h) { return load_keys(in, b, h); };
  AttentionResult result = run_engine(engine);
  add_mean(result, in.v_mean, k.shape()[1]);
  return result;
}

std::vector<double> fp8_score_loss(const Variant& variant, const HostTensor& q, const HostTensor& k,
                                   const HostTensor& v, const std::vector<float>& k_mean,
                                   const std::vector<float>& q_mean) {
  if (variant.q.type != DType::kE4M3) return {};
  const QuantizedInputs in = quantized_inputs(variant, q, k, v, k_mean, q_mean);
  const int64_t hq = q.shape()[1], m = q.shape()[2], n = k.shape()[2], d = variant.head_dim;
  std::vector<double> loss(static_cast<size_t>(q.shape()[0] * hq * m), 0.0);
  parallel_for(q.shape()[0] * hq, [&](int64_t head) {
    const int64_t kv_head = head / hq * in.hkv + head % hq / (hq / in.hkv);
    const QueryOperand queries = load_queries(in, head / hq, head % hq);
    std::vector<double> keys, factors;
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t c = 0; c < d; ++c) {
        keys.push_back(decoded(variant.k.type,
                               in.k_codes.codes[static_cast<size_t>((kv_head * n + j) * d + c)]));
      }
      factors.push_back(in.k_codes.scales[static_cast<size_t>(kv_head * in.k_codes.num_groups +
                                                              in.k_rule.group_of(j))]);
    }
    for (int64_t i = 0; i < m; ++i) {
      const KeyRange range = visible_keys(variant.mask, i, m, n);
      double& most = loss[static_cast<size_t>(head * m + i)];
      for (int64_t j = range.begin; j < range.end; ++j) {
        const double lost = lost_of_sum(queries.rows.data() + i * d, keys.data() + j * d, d);
        most = std::max(most, lost * factors[static_cast<size_t>(j)]);
      }
      most *= std::fabs(queries.row_factor[static_cast<size_t>(i)]);
    }
  });
  return loss;
}

}  // namespace sagejit::reference
