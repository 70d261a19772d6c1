#include "tools/cli/accuracy_rows.h"

#include <cmath>
#include <string>
#include <vector>

#include "compiler/support/error.h"

namespace sagejit::cli {
namespace {

double read_number(std::string_view word) {
  size_t end = 0;
  const std::string text(word);
  double value = NAN;
  try {
    value = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (end == 0 || end != text.size()) {
    fail(ErrorKind::kInternal, "'{}' is no published figure", word);
  }
  return value;
}

}  // namespace

PublishedFigures read_published(std::string_view text) {
  PublishedFigures figures;
  figures.text = text;
  std::optional<double>* const fields[] = {&figures.cosine, &figures.relative_l1, &figures.rmse};
  size_t field = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find(' '), rest.size());
    if (field == std::size(fields)) fail(ErrorKind::kInternal, "'{}' has too many figures", text);
    const std::string_view word = rest.substr(0, end);
    *fields[field] = read_number(word);
    if (field == 0) {
      const size_t point = std::min(word.find('.'), word.size() - 1);
      figures.cosine_error = 0.5 * std::pow(10.0, -static_cast<double>(word.size() - point - 1));
    }
    ++field;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  constexpr double kLargestFraction = 1.5, kPercent = 100;
  if (figures.cosine && *figures.cosine > kLargestFraction) {
    *figures.cosine /= kPercent;
    figures.cosine_error /= kPercent;
  }
  return figures;
}

std::span<const AccuracyTable> accuracy_tables() {
  static constexpr AccuracyTable kTables[] = {
#define ACCURACY_TABLE(id, paper, title) {id, paper, title},
#define ACCURACY_ROW(table, setting, average, worst, normal, entries)
#include "tools/cli/accuracy_rows.def"
#undef ACCURACY_TABLE
#undef ACCURACY_ROW
  };
  return kTables;
}

std::span<const AccuracyRow> accuracy_rows() {
  static const std::vector<AccuracyRow> rows = {
#define ACCURACY_TABLE(id, paper, title)
#define ACCURACY_ROW(table, setting, average, worst, normal, entries) \
  {table, setting, read_published(average), read_published(worst), read_published(normal), entries},
#include "tools/cli/accuracy_rows.def"
#undef ACCURACY_TABLE
#undef ACCURACY_ROW
  };
  return rows;
}

}  // namespace sagejit::cli
