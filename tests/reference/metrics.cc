#include "tests/reference/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compiler/support/error.h"

namespace sagejit::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Sums {
  double xy = 0, xx = 0, yy = 0, abs_error = 0, abs_reference = 0, squared_error = 0;
  double max_error = 0;
  int64_t count = 0, non_finite = 0;

  void add(double x, double y) {
    const double error = x - y;
    xy += x * y;
    xx += x * x;
    yy += y * y;
    abs_error += std::fabs(error);
    abs_reference += std::fabs(y);
    squared_error += error * error;
    if (std::isnan(error) || std::fabs(error) > max_error) max_error = std::fabs(error);
    ++count;
    non_finite += !std::isfinite(x);
  }
  void add(const Sums& other) {
    xy += other.xy;
    xx += other.xx;
    yy += other.yy;
    abs_error += other.abs_error;
    abs_reference += other.abs_reference;
    squared_error += other.squared_error;
    // NaN stays: once there, it compares as neither larger nor smaller.
    if (std::isnan(other.max_error) || other.max_error > max_error) max_error = other.max_error;
    count += other.count;
    non_finite += other.non_finite;
  }

  double cosine() const {
    if (xx == 0 && yy == 0) return 1;
    if (xx == 0 || yy == 0) return 0;
    return xy / (std::sqrt(xx) * std::sqrt(yy));
  }
  double relative_l1() const {
    if (abs_reference == 0)
      return abs_error == 0 ? 0 : std::isnan(abs_error) ? abs_error : kInfinity;
    return abs_error / abs_reference;
  }
  Closeness closeness() const {
    return {cosine(), relative_l1(),
            count == 0 ? 0 : std::sqrt(squared_error / static_cast<double>(count))};
  }
};

// A NaN is worse than any number.
bool lower(double candidate, double worst) {
  return std::isnan(candidate) ? !std::isnan(worst) : candidate < worst;
}
bool higher(double candidate, double worst) {
  return lower(-candidate, -worst);
}

Sums head_sums(const Shape4& shape, int64_t head, const std::vector<double>& actual,
               const std::vector<double>& expected, OutputMetrics& metrics) {
  Sums sums;
  for (int64_t row = 0; row < shape[2]; ++row) {
    Sums row_sums;
    const auto first = static_cast<size_t>((head * shape[2] + row) * shape[3]);
    for (size_t e = first; e < first + static_cast<size_t>(shape[3]); ++e) {
      row_sums.add(actual[e], expected[e]);
    }
    if (higher(row_sums.relative_l1(), metrics.worst_row_relative_l1)) {
      metrics.worst_row_relative_l1 = row_sums.relative_l1();
      metrics.worst_row_b = head / shape[1];
      metrics.worst_row_h = head % shape[1];
      metrics.worst_row = row;
    }
    sums.add(row_sums);
  }
  return sums;
}

}  // namespace

OutputMetrics compare_output(const Shape4& shape, const std::vector<double>& actual,
                             const std::vector<double>& expected) {
  const auto size = static_cast<size_t>(shape[0] * shape[1] * shape[2] * shape[3]);
  if (actual.size() != size || expected.size() != size) {
    fail(ErrorKind::kArgument, "cannot compare {} output elements with {}; the shape has {}",
         actual.size(), expected.size(), size);
  }
  OutputMetrics metrics;
  metrics.worst_head.cosine = kInfinity;
  Sums total;
  for (int64_t head = 0; head < shape[0] * shape[1]; ++head) {
    const Sums sums = head_sums(shape, head, actual, expected, metrics);
    if (lower(sums.cosine(), metrics.worst_head.cosine)) {
      metrics.worst_head = sums.closeness();
      metrics.worst_b = head / shape[1];
      metrics.worst_h = head % shape[1];
    }
    total.add(sums);
  }
  metrics.overall = total.closeness();
  if (total.count == 0) metrics.worst_head = metrics.overall;
  metrics.max_abs_error = total.max_error;
  metrics.num_non_finite = total.non_finite;
  return metrics;
}

double max_lse_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) {
    fail(ErrorKind::kArgument, "cannot compare {} LSE values with {}", actual.size(),
         expected.size());
  }
  double worst = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[i]) continue;  // equal infinities among them
    const double error = std::fabs(actual[i] - expected[i]);
    worst = std::max(worst, std::isfinite(error) ? error : kInfinity);
  }
  return worst;
}

}  // namespace sagejit::reference
