#include "tools/cli/run_judge.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/reference/quantized_attention.h"

namespace sagejit::cli {
namespace {

struct Bar {
  int min_bits;  // of the narrower of P and V
  double cosine;
};
constexpr Bar kBars[] = {{16, 0.9995}, {8, 0.999}};
constexpr double kInt4Bar = 0.96, kFp4Bar = 0.975;  // with such Q and K, whatever P and V are
// specs/numerics.md, 6. Where two hold, both errors add up.
constexpr double kE5M2Bar = 0.996, kE4M3ScoresBar = 0.998, kE4M3ScoresE5M2Bar = 0.995;

std::vector<std::string> failures_of(const Judgement& judgement, const DeviceResult& result,
                                     double bar) {
  std::vector<std::string> failures;
  const reference::OutputMetrics& metrics = judgement.metrics;
  if (metrics.num_non_finite > 0) {
    failures.push_back(fmt::format("{} outputs are NaN or infinite", metrics.num_non_finite));
  } else if (!(metrics.overall.cosine >= bar)) {
    failures.push_back(fmt::format("cosine {:.6f} is below {}", metrics.overall.cosine, bar));
  }
  const double lse_limit = judgement.ideal_lse_error.value_or(0.0) + kLseMargin;
  if (judgement.lse_error && !(*judgement.lse_error <= lse_limit)) {
    failures.push_back(
        fmt::format("the LSE is off by up to {:.3g}; quantization alone explains {:.3g}",
                    *judgement.lse_error, judgement.ideal_lse_error.value_or(0.0)));
  }
  if (!result.repeatable) failures.push_back("launches of the same problem gave different bits");
  return failures;
}

}  // namespace

double cosine_bar(const Variant& variant) {
  if (variant.q.type == DType::kS4) return kInt4Bar;
  if (variant.q.type == DType::kE2M1) return kFp4Bar;
  const bool has_e5m2 = variant.p.type == DType::kE5M2 || variant.v.type == DType::kE5M2;
  const bool has_e4m3_scores = variant.q.type == DType::kE4M3;
  if (has_e5m2) return has_e4m3_scores ? kE4M3ScoresE5M2Bar : kE5M2Bar;
  if (has_e4m3_scores) return kE4M3ScoresBar;
  const int bits = std::min(bits_of(variant.p.type), bits_of(variant.v.type));
  for (const Bar& bar : kBars) {
    if (bits >= bar.min_bits) return bar.cosine;
  }
  return std::end(kBars)[-1].cosine;
}

reference::OutputMetrics metrics_of(const DeviceResult& result,
                                    const reference::AttentionResult& answer) {
  return reference::compare_output({answer.b, answer.h, answer.m, answer.dv}, result.o.to_f64(),
                                   answer.o);
}

Judgement judge(const Variant& variant, const Layer& layer, const DeviceResult& result) {
  const reference::Inputs& in = layer.inputs;
  const reference::AttentionResult exact = reference::exact_attention(variant, in.q, in.k, in.v);
  Judgement judgement;
  judgement.metrics = metrics_of(result, exact);
  if (variant.lse) {
    judgement.lse_error = reference::max_lse_error(result.lse.to_f64(), exact.lse);
  }
  if (reference::models_quantization(variant, nullptr)) {
    const reference::AttentionResult ideal =
        reference::quantized_attention(variant, in.q, in.k, in.v);
    const reference::Shape4 shape{exact.b, exact.h, exact.m, exact.dv};
    judgement.ideal_cosine = reference::compare_output(shape, ideal.o, exact.o).overall.cosine;
    if (variant.lse) judgement.ideal_lse_error = reference::max_lse_error(ideal.lse, exact.lse);
  }
  judgement.failures = failures_of(judgement, result, cosine_bar(variant));
  return judgement;
}

}  // namespace sagejit::cli
