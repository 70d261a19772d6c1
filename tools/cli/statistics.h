// What a series of measurements comes to.
#pragma once

#include <vector>

namespace sagejit::cli {

// The value below which a share of the series lies, interpolated between neighbours: 0 is the
// least, 0.5 the median, 1 the largest. 0 for an empty series.
double quantile(std::vector<double> values, double share);

double median(std::vector<double> values);

}  // namespace sagejit::cli
