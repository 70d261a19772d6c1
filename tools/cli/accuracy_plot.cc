#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/cli/accuracy_report.h"

namespace sagejit::cli {
namespace {

constexpr int kLabelWidth = 430, kPlotWidth = 560, kRight = 20, kTop = 64, kRowHeight = 17,
              kBottom = 34;
constexpr int kFirstDecade = -8, kLastDecade = 0;  // of 1 - cosine
constexpr const char* kColors[] = {"#1b6ca8", "#d1495b", "#2e8b57",
                                   "#8d5fa8", "#c98b1b", "#4d4d4d"};

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    result += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  }
  return result;
}

double x_of(double error) {
  const double decade =
      std::clamp(std::log10(std::max(error, 1e-30)), 1.0 * kFirstDecade, 1.0 * kLastDecade);
  return kLabelWidth + (decade - kFirstDecade) / (kLastDecade - kFirstDecade) * kPlotWidth;
}

class Plot {
 public:
  explicit Plot(const AccuracyReport& report) : report_(report) {}

  std::string text() {
    for (const AccuracyTable& table : accuracy_tables()) add_table(table);
    const int height = y_ + kBottom;
    std::string frame = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
        "{1}\" "
        "font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" "
        "fill=\"white\"/>\n",
        kLabelWidth + kPlotWidth + kRight, height);
    return frame + legend() + grid() + body_ + "</svg>\n";
  }

 private:
  void label(double x, double y, std::string_view text, std::string_view attributes = "") {
    body_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes,
                         escaped(text));
  }

  static std::string ours(double x, double y, size_t color, bool filled) {
    return fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.6\" stroke=\"{}\" stroke-width=\"1.4\" "
        "fill=\"{}\"/>\n",
        x, y, kColors[color % std::size(kColors)],
        filled ? kColors[color % std::size(kColors)] : "none");
  }
  static std::string published(double x, double y, std::string_view color, bool filled) {
    return fmt::format(
        "<path d=\"M{0:.1f} {1:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z\" fill=\"{2}\" "
        "fill-opacity=\"{3}\" "
        "stroke=\"{2}\" stroke-width=\"1.4\"/>\n",
        x, y - 4.5, color, filled ? 0.45 : 0.0);
  }

  void add_table(const AccuracyTable& table) {
    bool is_first = true;
    for (const AccuracyResult& result : report_.results) {
      if (result.row->table != table.id) continue;
      if (is_first) label(6, (y_ += kRowHeight + 5) + 4, table.title, "font-weight=\"bold\"");
      is_first = false;
      y_ += kRowHeight;
      label(18, y_ + 4, result.row->setting);
      if (result.measurement.figures.empty()) {
        label(kLabelWidth - 8, y_ + 4, "unsupported", "text-anchor=\"end\" fill=\"#888\"");
      }
      add_row(result);
    }
  }

  void add_row(const AccuracyResult& result) {
    const std::vector<DataSetFigures>& figures = result.measurement.figures;
    for (size_t i = 0; i < report_.data_sets.size(); ++i) {
      const bool is_real = report_.data_sets[i] == report_.real_data;
      if (!figures.empty()) {
        if (is_real) body_ += ours(x_of(1 - figures[i].worst.cosine), y_, i, false);
        body_ += ours(x_of(1 - figures[i].average.cosine), y_, i, true);
      }
      const auto add = [&](const PublishedFigures& p, bool filled) {
        if (!p.cosine) return;
        body_ += published(x_of(1 - *p.cosine), y_, kColors[i % std::size(kColors)], filled);
      };
      if (is_real) {
        add(result.row->average, true);
        add(result.row->worst, false);
      } else if (report_.data_sets[i] == "normal") {
        add(result.row->normal, true);
      }
    }
  }

  std::string grid() const {
    std::string text;
    for (int decade = kFirstDecade; decade <= kLastDecade; ++decade) {
      const double x = x_of(std::pow(10.0, decade));
      text += fmt::format(
          "<line x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\" stroke=\"#ddd\"/>\n", x, kTop,
          y_ + 10);
      text += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">1e{}</text>\n", x,
                          y_ + 26, decade);
    }
    return text;
  }

  std::string legend() const {
    std::string text = fmt::format(
        "<text x=\"6\" y=\"18\" font-size=\"13\" font-weight=\"bold\">1 - cosine against float64; "
        "further left is more accurate</text>\n");
    double x = 12;
    const auto add = [&](const std::string& mark, std::string_view name) {
      text += mark + fmt::format("<text x=\"{:.1f}\" y=\"42\">{}</text>\n", x + 9, escaped(name));
      x += 24 + 6.2 * static_cast<double>(name.size());
    };
    for (size_t i = 0; i < report_.data_sets.size(); ++i) {
      const bool is_real = report_.data_sets[i] == report_.real_data;
      add(ours(x, 38, i, true), is_real ? "real layers, average" : report_.data_sets[i]);
      if (is_real) add(ours(x, 38, i, false), "worst real layer");
    }
    add(published(x, 38, "#222", true), "published, of the same color");
    add(published(x, 38, "#222", false), "worst published");
    return text;
  }

  const AccuracyReport& report_;
  std::string body_;
  int y_ = kTop - 10;
};

}  // namespace

std::string to_svg(const AccuracyReport& report) {
  return Plot(report).text();
}

}  // namespace sagejit::cli
