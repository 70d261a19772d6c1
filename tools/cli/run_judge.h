// Verdicts: an output against the float64 answer and the bars of specs/numerics.md, section 6.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/reference/attention.h"
#include "tests/reference/metrics.h"
#include "tools/cli/run_device.h"

namespace sagejit::cli {

// How much farther off than quantization alone an LSE may be; absolute, natural logarithm.
// Quantization's share grows with the scores, so no fixed bar fits all data.
inline constexpr double kLseMargin = 0.02;

// The lowest cosine over the whole output that passes, by the narrowest operand of the second
// product.
double cosine_bar(const Variant& variant);

// The output against an answer.
reference::OutputMetrics metrics_of(const DeviceResult& result,
                                    const reference::AttentionResult& answer);

struct Judgement {
  reference::OutputMetrics metrics;
  std::optional<double> lse_error;        // where the variant writes the LSE
  std::optional<double> ideal_cosine;     // of quantization alone, where it is modelled
  std::optional<double> ideal_lse_error;  // likewise
  std::vector<std::string> failures;      // empty: passed
  bool passed() const { return failures.empty(); }
};

// Throws Error{kUnsupported} for what the reference does not model.
Judgement judge(const Variant& variant, const Layer& layer, const DeviceResult& result);

}  // namespace sagejit::cli
