#include "tests/reference/quantizer.h"

#include <algorithm>
#include <cmath>

#include "compiler/support/error.h"
#include "tests/reference/float8.h"
#include "tests/reference/parallel.h"

namespace sagejit::reference {
namespace {

constexpr float kMaxCode = 127.0f;

GroupRule make_rule(const Quantization& quantization, const char* operand, int64_t thread_groups) {
  if (quantization.type != DType::kS8) {
    fail(ErrorKind::kUnsupported, "the reference models int8 {}, not {}", operand,
         name_of(quantization.type));
  }
  switch (quantization.granularity) {
    case Granularity::kTensor:
      return {0, 1, true};
    case Granularity::kHead:
      return {0, 1, false};
    case Granularity::kToken:
      return {1, 1, false};
    case Granularity::kBlock:
    case Granularity::kWarp:
      return {quantization.span, 1, false};
    case Granularity::kThread:
      return {quantization.span, thread_groups, false};
    default:
      fail(ErrorKind::kUnsupported,
           "{} can have scales per tensor, head, block, warp, thread or token, not per channel or "
           "group of 16",
           operand);
  }
}

int8_t encode(float smoothed, float inverse) {
  const float scaled = smoothed * inverse;
  if (std::isnan(scaled)) return 0;
  return static_cast<int8_t>(std::clamp(std::nearbyintf(scaled), -kMaxCode, kMaxCode));
}

struct HeadView {
  const HostTensor& x;
  const float* mean;  // [d] or null
  int64_t b, h;
  float smoothed(int64_t t, int64_t d) const {
    const float value = x.get(b, h, t, d);
    return mean ? value - mean[d] : value;
  }
};

std::vector<float> group_maxima(const HeadView& view, const GroupRule& rule) {
  const int64_t tokens = view.x.shape()[2];
  std::vector<float> maxima(static_cast<size_t>(rule.num_groups(tokens)), 0.0f);
  for (int64_t t = 0; t < tokens; ++t) {
    float& amax = maxima[static_cast<size_t>(rule.group_of(t))];
    for (int64_t d = 0; d < view.x.shape()[3]; ++d) {
      amax =
          std::fmax(amax, std::fabs(view.smoothed(t, d)));  // fmax passes over NaNs, as the GPU's
    }
  }
  return maxima;
}

}  // namespace

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

Quantized quantize(const HostTensor& x, const GroupRule& rule, const std::vector<float>& mean) {
  const int64_t num_b = x.shape()[0], num_h = x.shape()[1], tokens = x.shape()[2];
  Quantized result;
  result.num_groups = rule.num_groups(tokens);
  result.codes.resize(static_cast<size_t>(x.num_elements()));
  std::vector<std::vector<float>> maxima(static_cast<size_t>(num_b * num_h));
  const auto view_of = [&](int64_t head) {
    return HeadView{x, mean.empty() ? nullptr : mean.data() + head * x.shape()[3],
                    head / x.shape()[1], head % x.shape()[1]};
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
      const float inverse = amax == 0 ? 0.0f : kMaxCode / amax;
      for (int64_t d = 0; d < x.shape()[3]; ++d) *code++ = encode(view.smoothed(t, d), inverse);
    }
  });
  for (const auto& head : maxima) {
    for (float amax : head) result.scales.push_back(amax / kMaxCode);
  }
  return result;
}

namespace {

uint8_t encode_value(DType type, float scaled) {
  if (std::isnan(scaled)) return 0;
  if (type == DType::kE4M3) return f64_to_e4m3(scaled);
  const float code = std::clamp(std::nearbyintf(scaled), -kMaxCode - 1, kMaxCode);
  return static_cast<uint8_t>(static_cast<int8_t>(code));
}

}  // namespace

float decoded_value(DType type, uint8_t code) {
  return type == DType::kE4M3 ? e4m3_to_f32(code) : static_cast<float>(static_cast<int8_t>(code));
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
  return variant.v.type == DType::kE4M3 ? kMaxE4m3 : kMaxCode;
}

std::vector<double> token_mean(const HostTensor& x) {
  const Shape4& shape = x.shape();
  std::vector<double> mean(static_cast<size_t>(shape[0] * shape[1] * shape[3]), 0.0);
  for_each_index(shape, [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    mean[static_cast<size_t>((b * shape[1] + h) * shape[3] + d)] += x.get(b, h, t, d);
  });
  if (shape[2] > 0) {
    for (double& value : mean) value /= static_cast<double>(shape[2]);
  }
  return mean;
}

}  // namespace sagejit::reference
