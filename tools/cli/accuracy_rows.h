// The accuracy tables that papers published, as data: rows of accuracy_rows.def.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace sagejit::cli {

// As printed, and read: what a paper does not give is unset.
struct PublishedFigures {
  std::string_view text;
  std::optional<double> cosine;  // 1 for equal
  double cosine_error = 0;       // that the printed digits leave: half of the last one
  std::optional<double> relative_l1, rmse;
};

// "99.94 .0345 3.53e-3"; cosines of more than 1.5 are in percent. Throws Error{kInternal} for
// anything else.
PublishedFigures read_published(std::string_view text);

struct AccuracyTable {
  std::string_view id;
  std::string_view paper;  // "none": not a paper's, but of variants that belong beside them
  std::string_view title;
};

struct AccuracyRow {
  std::string_view table;
  std::string_view setting;
  PublishedFigures average, worst;  // over layers of real models
  PublishedFigures normal;          // on N(0, 1)
  std::string_view entries;         // of the variant, head dims apart; "": not in the language
};

std::span<const AccuracyTable> accuracy_tables();
std::span<const AccuracyRow> accuracy_rows();

}  // namespace sagejit::cli
