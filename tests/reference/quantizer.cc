#include "tests/reference/quantizer.h"

#include <algorithm>
#include <cmath>

#include "compiler/support/error.h"
#include "tests/reference/float4.h"
#include "tests/reference/float8.h"
#include "tests/reference/parallel.h"

namespace sagejit::reference {
namespace {

constexpr float kMaxS8 = 127.0f, kMaxS4 = 7.0f;  // codes of Q and K are symmetric

GroupRule make_rule(const Quantization& quantization, const char* operand, int64_t thread_groups) {
  const DType type = quantization.type;
  if (type != DType::kS8 && type != DType::kS4 && type != DType::kE4M3) {
    fail(ErrorKind::kUnsupported, "the reference models int8, int4 and e4m3 {}, not {}", operand,
         name_of(type));
  }
  switch (quantization.granularity) {
    case Granularity::kTensor:
      return {0, 1, true, type};
    case Granularity::kHead:
      return {0, 1, false, type};
    case Granularity::kToken:
      return {1, 1, false, type};
    case Granularity::kBlock:
    case Granularity::kWarp:
      return {quantization.span, 1, false, type};
    case Granularity::kThread:
      return {quantization.span, thread_groups, false, type};
    default:
      fail(ErrorKind::kUnsupported,
           "{} can have scales per tensor, head, block, warp, thread or token, not per channel or "
           "group of 16",
           operand);
  }
}

int8_t encode(const GroupRule& rule, float smoothed, float inverse) {
  const float scaled = smoothed * inverse;
  if (std::isnan(scaled)) return 0;
  if (rule.type == DType::kE4M3) return static_cast<int8_t>(f64_to_e4m3(scaled));
  const float largest = rule.largest_code();
  return static_cast<int8_t>(std::clamp(std::nearbyintf(scaled), -largest, largest));
}

struct HeadView {
  const HostTensor& x;
  const Means& means;
  bool rotates;
  int64_t b, h;

  std::vector<float> row(int64_t t) const {
    std::vector<float> xs;
    for (int64_t d = 0; d < x.shape()[3]; ++d) xs.push_back(smoothed(t, d));
    if (rotates) rotate(xs);
    return xs;
  }
  float smoothed(int64_t t, int64_t d) const {
    const float value = x.get(b, h, t, d);
    if (means.values.empty()) return value;
    const Shape4& s = x.shape();
    const int64_t block =
        (b * s[1] + h) * means.num_blocks(s[2]) + (means.span ? t / means.span : 0);
    return value - means.values[static_cast<size_t>(block * s[3] + d)];
  }
};

std::vector<float> group_maxima(const HeadView& view, const GroupRule& rule) {
  const int64_t tokens = view.x.shape()[2];
  std::vector<float> maxima(static_cast<size_t>(rule.num_groups(tokens)), 0.0f);
  for (int64_t t = 0; t < tokens; ++t) {
    float& amax = maxima[static_cast<size_t>(rule.group_of(t))];
    for (const float xs : view.row(t)) {
      amax = std::fmax(amax, std::fabs(xs));  // fmax passes over NaNs, as the GPU's
    }
  }
  return maxima;
}

}  // namespace

float GroupRule::largest_code() const {
  return type == DType::kE4M3 ? kMaxE4m3 : type == DType::kS4 ? kMaxS4 : kMaxS8;
}

int64_t GroupRule::num_groups(int64_t num_tokens) const {
  if (span == 0) return 1;
  return std::max<int64_t>(1, (num_tokens + span - 1) / span) * groups_per_tile;
}

int64_t GroupRule::group_of(int64_t token) const {
  if (span == 0) return 0;
  return token / span * groups_per_tile + token % 8 * groups_per_tile / 8;
}

GroupRule query_groups(const Variant& variant) {
  return make_rule(variant.q, "Q", 8);
}
GroupRule key_groups(const Variant& variant) {
  return make_rule(variant.k, "K", 4);
}

int64_t Means::num_blocks(int64_t num_tokens) const {
  return span == 0 ? 1 : (num_tokens + span - 1) / span;
}

Quantized quantize(const HostTensor& x, const GroupRule& rule, const Means& means, bool rotates) {
  const int64_t num_b = x.shape()[0], num_h = x.shape()[1], tokens = x.shape()[2];
  Quantized result;
  result.num_groups = rule.num_groups(tokens);
  result.codes.resize(static_cast<size_t>(x.num_elements()));
  std::vector<std::vector<float>> maxima(static_cast<size_t>(num_b * num_h));
  const auto view_of = [&](int64_t head) {
    return HeadView{x, means, rotates, head / x.shape()[1], head % x.shape()[1]};
  };
  parallel_for(num_b * num_h, [&](int64_t head) {
    maxima[static_cast<size_t>(head)] = group_maxima(view_of(head), rule);
  });
  if (rule.whole_tensor) {
    float amax = 0;
    for (const auto& head : maxima) amax = std::fmax(amax, head[0]);
    for (auto& head : maxima) head[0] = amax;
  }
  parallel_for(num_b * num_h, [&](int64_t head) {
    const HeadView view = view_of(head);
    int8_t* code = result.codes.data() + head * x.shape()[2] * x.shape()[3];
    for (int64_t t = 0; t < x.shape()[2]; ++t) {
      const float amax = maxima[static_cast<size_t>(head)][static_cast<size_t>(rule.group_of(t))];
      const float inverse = amax == 0 ? 0.0f : rule.largest_code() / amax;
      for (const float xs : view.row(t)) *code++ = encode(rule, xs, inverse);
    }
  });
  for (const auto& head : maxima) {
    for (float amax : head) result.scales.push_back(amax / rule.largest_code());
  }
  return result;
}

void rotate(std::vector<float>& x) {
  for (size_t stride = 1; stride < x.size(); stride *= 2) {
    for (size_t i = 0; i < x.size(); ++i) {
      if (i & stride) continue;
      const float first = x[i], second = x[i + stride];
      x[i] = first + second;
      x[i + stride] = first - second;
    }
  }
  const auto norm = static_cast<float>(1 / std::sqrt(static_cast<double>(x.size())));
  for (float& element : x) element *= norm;
}

namespace {

uint8_t encode_value(DType type, float scaled) {
  if (std::isnan(scaled)) return 0;
  if (is_fp8(type)) return f64_to_fp8(type, scaled);
  const float code = std::clamp(std::nearbyintf(scaled), -kMaxS8 - 1, kMaxS8);
  return static_cast<uint8_t>(static_cast<int8_t>(code));
}

}  // namespace

float decoded_value(DType type, uint8_t code) {
  return is_fp8(type) ? fp8_to_f32(type, code) : static_cast<float>(static_cast<int8_t>(code));
}

QuantizedValues quantize_values(const HostTensor& x, DType type, float range,
                                const std::vector<float>& mean) {
  const Shape4& s = x.shape();
  const auto channel_of = [&](int64_t b, int64_t h, int64_t d) {
    return static_cast<size_t>((b * s[1] + h) * s[3] + d);
  };
  const auto centred = [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    return x.get(b, h, t, d) - (mean.empty() ? 0.0f : mean[channel_of(b, h, d)]);
  };
  std::vector<float> maxima(static_cast<size_t>(s[0] * s[1] * s[3]), 0.0f);
  for_each_index(s, [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    float& amax = maxima[channel_of(b, h, d)];
    amax = std::fmax(amax, std::fabs(centred(b, h, t, d)));  // fmax passes over NaNs
  });
  QuantizedValues result;
  for_each_index(s, [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    const float amax = maxima[channel_of(b, h, d)];
    const float inverse = amax == 0 ? 0.0f : range / amax;
    const float scaled = centred(b, h, t, d) * inverse;
    result.codes.push_back(encode_value(type, scaled));
  });
  for (const float amax : maxima) result.scales.push_back(amax / range);
  return result;
}

float value_range(const Variant& variant) {
  if (variant.v.range != 0) return static_cast<float>(variant.v.range);
  if (variant.v.type == DType::kE2M1) return kMaxE2m1;
  return variant.v.type == DType::kE4M3   ? kMaxE4m3
         : variant.v.type == DType::kE5M2 ? kMaxE5m2
                                          : kMaxS8;
}

namespace {

constexpr float kLeastDivisor = 0x1p-9f;  // the least e4m3 above 0

uint8_t group_scale(const std::vector<float>& x, float largest) {
  float amax = 0;
  for (const float element : x) amax = std::fmax(amax, std::fabs(element));
  return f64_to_e4m3(amax * (1 / largest));
}
uint8_t group_code(float x, uint8_t scale) {
  return f64_to_e2m1(x * (1 / std::max(e4m3_to_f32(scale), kLeastDivisor)));
}

float without_nan(float x) {
  return std::isnan(x) ? 0.0f : x;
}

}  // namespace

GroupQuantized quantize_in_groups(const HostTensor& x, const Means& means, bool rotates) {
  const Shape4& s = x.shape();
  const int64_t groups = (s[3] + kGroupElements - 1) / kGroupElements, rows = s[0] * s[1] * s[2];
  GroupQuantized result;
  result.codes.resize(static_cast<size_t>(rows * s[3]));
  result.scales.resize(static_cast<size_t>(rows * groups));
  parallel_for(rows, [&](int64_t row) {
    const int64_t head = row / s[2];
    std::vector<float> elements =
        HeadView{x, means, rotates, head / s[1], head % s[1]}.row(row % s[2]);
    for (float& element : elements) element = without_nan(element);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * kGroupElements, end = std::min(begin + kGroupElements, s[3]);
      const uint8_t scale =
          group_scale({elements.begin() + begin, elements.begin() + end}, kMaxE2m1);
      result.scales[static_cast<size_t>(row * groups + g)] = scale;
      for (int64_t d = begin; d < end; ++d) {
        result.codes[static_cast<size_t>(row * s[3] + d)] =
            group_code(elements[static_cast<size_t>(d)], scale);
      }
    }
  });
  return result;
}

GroupQuantized quantize_values_in_groups(const HostTensor& x, float largest) {
  const Shape4& s = x.shape();
  const int64_t groups = (s[2] + kGroupElements - 1) / kGroupElements;
  GroupQuantized result;
  result.codes.resize(static_cast<size_t>(x.num_elements()));
  result.scales.resize(static_cast<size_t>(s[0] * s[1] * groups * s[3]));
  parallel_for(s[0] * s[1] * groups, [&](int64_t group) {
    const int64_t head = group / groups, begin = group % groups * kGroupElements;
    const int64_t end = std::min(begin + kGroupElements, s[2]);
    for (int64_t d = 0; d < s[3]; ++d) {
      std::vector<float> elements;
      for (int64_t t = begin; t < end; ++t) {
        elements.push_back(without_nan(x.get(head / s[1], head % s[1], t, d)));
      }
      const uint8_t scale = group_scale(elements, largest);
      result.scales[static_cast<size_t>(group * s[3] + d)] = scale;
      for (int64_t t = begin; t < end; ++t) {
        result.codes[static_cast<size_t>((head * s[2] + t) * s[3] + d)] =
            group_code(elements[static_cast<size_t>(t - begin)], scale);
      }
    }
  });
  return result;
}

void round_group(double* x, int64_t count) {
  double amax = 0;
  for (int64_t i = 0; i < count; ++i) amax = std::max(amax, std::fabs(x[i]));
  const double scale = e4m3_to_f32(f64_to_e4m3(amax / kMaxE2m1));
  for (int64_t i = 0; i < count; ++i) {
    x[i] = scale * e2m1_to_f32(f64_to_e2m1(x[i] / std::max(scale, double{kLeastDivisor})));
  }
}

std::vector<double> token_mean(const HostTensor& x) {
  if (x.shape()[2] > 0) return block_mean(x, x.shape()[2]);
  return std::vector<double>(static_cast<size_t>(x.shape()[0] * x.shape()[1] * x.shape()[3]), 0.0);
}

std::vector<double> block_mean(const HostTensor& x, int64_t span) {
  const Shape4& s = x.shape();
  const int64_t blocks = (s[2] + span - 1) / span;
  std::vector<double> mean(static_cast<size_t>(s[0] * s[1] * blocks * s[3]), 0.0);
  for_each_index(s, [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    const int64_t block = (b * s[1] + h) * blocks + t / span;
    const int64_t tokens = std::min(span, s[2] - t / span * span);
    mean[static_cast<size_t>(block * s[3] + d)] += x.get(b, h, t, d) / static_cast<double>(tokens);
  });
  return mean;
}

std::vector<float> mean_scores(const Means& q_means, const Shape4& q_shape, const HostTensor& k,
                               const std::vector<float>& k_mean, float scale_log2) {
  const Shape4& s = k.shape();
  const int64_t blocks = q_means.num_blocks(q_shape[2]), group = q_shape[1] / s[1];
  std::vector<float> scores(static_cast<size_t>(q_shape[0] * q_shape[1] * blocks * s[2]));
  parallel_for(q_shape[0] * q_shape[1] * blocks, [&](int64_t row) {
    const int64_t head = row / blocks, b = head / q_shape[1], h = head % q_shape[1] / group;
    for (int64_t j = 0; j < s[2]; ++j) {
      float sum = 0;
      for (int64_t c = 0; c < s[3]; ++c) {
        float x = k.get(b, h, j, c);
        if (!k_mean.empty()) x -= k_mean[static_cast<size_t>((b * s[1] + h) * s[3] + c)];
        sum = std::fma(q_means.values[static_cast<size_t>(row * s[3] + c)], x, sum);
      }
      scores[static_cast<size_t>(row * s[2] + j)] = sum * scale_log2;
    }
  });
  return scores;
}

}  // namespace sagejit::reference
