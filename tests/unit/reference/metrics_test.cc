#include "tests/reference/metrics.h"

#include <cmath>
#include <limits>

#include "compiler/support/error.h"
#include "tests/support/catch.h"

namespace sagejit::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST_CASE("hand-computed figures") {
  const OutputMetrics metrics = compare_output({1, 1, 1, 2}, {3, 4}, {4, 3});
  CHECK(metrics.overall.cosine == Approx(24.0 / 25.0));
  CHECK(metrics.overall.relative_l1 == Approx(2.0 / 7.0));
  CHECK(metrics.overall.rmse == Approx(1.0));
  CHECK(metrics.max_abs_error == 1.0);
  CHECK(metrics.num_non_finite == 0);
}

TEST_CASE("the worst head and the worst row are found and named") {
  std::vector<double> expected(2 * 3 * 4 * 2, 1.0), actual = expected;
  const size_t head = 1 * 3 + 2, row = head * 4 + 3;
  actual[row * 2] = -1.0;
  const OutputMetrics metrics = compare_output({2, 3, 4, 2}, actual, expected);
  CHECK(metrics.worst_b == 1);
  CHECK(metrics.worst_h == 2);
  CHECK(metrics.worst_head.cosine == Approx(6.0 / 8.0));
  CHECK(metrics.overall.cosine == Approx(46.0 / 48.0));
  CHECK(metrics.worst_row_b == 1);
  CHECK(metrics.worst_row_h == 2);
  CHECK(metrics.worst_row == 3);
  CHECK(metrics.worst_row_relative_l1 == Approx(1.0));
}

TEST_CASE("zero references") {
  CHECK(compare_output({1, 1, 1, 2}, {0, 0}, {0, 0}).overall.cosine == 1.0);
  CHECK(compare_output({1, 1, 1, 2}, {0, 0}, {0, 0}).overall.relative_l1 == 0.0);
  CHECK(compare_output({1, 1, 1, 2}, {1, 0}, {0, 0}).overall.cosine == 0.0);
  CHECK(compare_output({1, 1, 1, 2}, {1, 0}, {0, 0}).overall.relative_l1 == kInfinity);
}

TEST_CASE("a NaN is counted and is the worst of all, wherever it stands") {
  const OutputMetrics metrics = compare_output({1, 3, 1, 1}, {-1, std::nan(""), 1}, {1, 1, 1});
  CHECK(metrics.num_non_finite == 1);
  CHECK(std::isnan(metrics.overall.cosine));
  CHECK(std::isnan(metrics.worst_head.cosine));
  CHECK(std::isnan(metrics.max_abs_error));
  CHECK(metrics.worst_h == 1);
  CHECK(metrics.worst_row_h == 1);
}

TEST_CASE("LSE errors treat equal infinities as equal") {
  CHECK(max_lse_error({-kInfinity, 1.5}, {-kInfinity, 1.0}) == 0.5);
  CHECK(max_lse_error({-kInfinity}, {0.0}) == kInfinity);
  CHECK(max_lse_error({std::nan("")}, {0.0}) == kInfinity);
  CHECK_THROWS_AS(max_lse_error({1.0}, {}), Error);
}

}  // namespace
}  // namespace sagejit::reference
