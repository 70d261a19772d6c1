// What `accuracy` says: the papers' tables beside ours, as Markdown, JSON and a plot.
#pragma once

#include <string>
#include <vector>

#include "tools/cli/accuracy_measure.h"
#include "tools/cli/accuracy_rows.h"

namespace sagejit::cli {

struct AccuracyResult {
  const AccuracyRow* row = nullptr;
  Measurement measurement;
};

struct AccuracyReport {
  std::string command;  // that made it
  std::string device;
  std::vector<std::string> data_sets;  // names, in the order of the measurements' figures
  std::string shape;                   // of generated data
  std::string real_data;               // the name of the data set of real layers; empty: none
  std::vector<AccuracyResult> results;
};

// Sentences, where ours contradicts a published figure or order of two:
// - an error (1 - cosine) more than kContradictionFactor times larger or smaller, printed digits
// considered;
//   published averages and worst layers are of other models than ours, and the sentence says so;
// - two rows of a table of which the paper has one clearly more accurate, and here the other is;
// - on real layers, the paper's best and worst rows of a table more than kContradictionFactor times
//   as far apart as ours, by the ratio of their errors.
inline constexpr double kContradictionFactor = 3;
std::vector<std::string> contradictions(const AccuracyReport& report, std::string_view table);

std::string to_markdown(const AccuracyReport& report, const std::string& plot_path);
std::string to_json_text(const AccuracyReport& report);

// 1 - cosine of every row and data set on a logarithmic axis, published ones beside ours.
std::string to_svg(const AccuracyReport& report);

}  // namespace sagejit::cli
