#include "tools/cli/accuracy_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

namespace sagejit::cli {
namespace {

using nlohmann::json;
using reference::Closeness;

constexpr double kPercent = 100;

// Five digits of a cosine in percent say nothing above 99.99: what is left of 1 does.
std::string cell(const Closeness& c) {
  if (std::isnan(c.cosine)) return "NaN";
  const double percent = kPercent * c.cosine;
  const int digits = percent > 99.99 ? 4 : percent > 99 ? 3 : 2;
  return fmt::format("{:.{}f} / {:.3g} / {:.2e}", percent, digits, c.relative_l1, c.rmse);
}

std::string published_cell(const PublishedFigures& p) {
  std::string text(p.text);
  for (size_t at = 0; (at = text.find(' ', at)) != std::string::npos; at += 3)
    text.replace(at, 1, " / ");
  return text;
}

// Of other shapes than ours.
constexpr std::string_view kGeneratedData = "N(0, 1)";

// Which of ours a published figure stands beside.
struct Comparison {
  const PublishedFigures* published;
  const Closeness* ours;
  std::string data;
  std::string_view setting;
};

std::vector<Comparison> comparisons_of(const AccuracyReport& report, const AccuracyResult& result) {
  std::vector<Comparison> list;
  const std::vector<DataSetFigures>& figures = result.measurement.figures;
  for (size_t i = 0; i < figures.size(); ++i) {
    if (report.data_sets[i] == report.real_data) {
      list.push_back({&result.row->average, &figures[i].average, "average of real layers",
                      result.row->setting});
      list.push_back(
          {&result.row->worst, &figures[i].worst, "worst real layer", result.row->setting});
    } else if (report.data_sets[i] == "normal") {
      list.push_back({&result.row->normal, &figures[i].average, std::string(kGeneratedData),
                      result.row->setting});
    }
  }
  std::erase_if(list, [](const Comparison& c) { return !c.published->cosine; });
  return list;
}

// On generated data alone: the real layers are of other models than the papers', and how far
// figures of different models are apart says nothing of either.
std::string contrast(const AccuracyResult& result, const Comparison& c) {
  if (c.data != kGeneratedData) return "";
  const double ours = 1 - c.ours->cosine;
  const double published = 1 - *c.published->cosine, slack = c.published->cosine_error;
  const bool is_less = std::isnan(ours) || ours > kContradictionFactor * (published + slack);
  const bool is_more = ours < (published - slack) / kContradictionFactor;
  if (!is_less && !is_more) return "";
  return fmt::format("{}, {}: {} accurate here: cosine {:.5f}; the paper, of other shapes, has {}.",
                     result.row->setting, c.data, is_less ? "less" : "more", c.ours->cosine,
                     c.published->text.substr(0, c.published->text.find(' ')));
}

// The paper has `a` clearly more accurate than `b`, and here it is the other way round.
bool is_reversed(const Comparison& a, const Comparison& b) {
  if (a.data != b.data) return false;
  const double least_of_b = 1 - *b.published->cosine - b.published->cosine_error;
  const double most_of_a = 1 - *a.published->cosine + a.published->cosine_error;
  constexpr double kClearly = 1.1;
  return most_of_a < least_of_b && 1 - a.ours->cosine > kClearly * (1 - b.ours->cosine);
}

// On real layers alone, where figures cannot be compared one by one: the paper's most accurate
// setting is far more accurate than its least accurate one, and ours are much less apart.
std::string narrower(const Comparison& best, const Comparison& worst) {
  if (best.data == kGeneratedData) return "";
  const double least = 1 - *worst.published->cosine - worst.published->cosine_error;
  const double published = least / (1 - *best.published->cosine + best.published->cosine_error);
  const double ours = (1 - worst.ours->cosine) / (1 - best.ours->cosine);
  if (!(published > kContradictionFactor * std::max(1.0, ours))) return "";
  return fmt::format(
      "{}: by 1 - cosine the paper, of other models, has {} at least {:.0f} times as accurate as "
      "{}; here it is {:.2g} times.",
      best.data, best.setting, published, worst.setting, ours);
}

std::vector<const AccuracyResult*> results_of(const AccuracyReport& report,
                                              std::string_view table) {
  std::vector<const AccuracyResult*> list;
  for (const AccuracyResult& result : report.results) {
    if (result.row->table == table) list.push_back(&result);
  }
  return list;
}

std::string row_text(const AccuracyReport& report, const AccuracyResult& result) {
  const Measurement& m = result.measurement;
  std::string text = fmt::format("| {} |", result.row->setting);
  for (size_t i = 0; i < report.data_sets.size(); ++i) {
    const bool is_real = report.data_sets[i] == report.real_data;
    const auto ours = [&](const auto& of) {
      return m.figures.empty() ? std::string(i == 0 ? "unsupported" : "") : cell(of(m.figures[i]));
    };
    text += fmt::format(" {} |", ours([](const DataSetFigures& f) { return f.average; }));
    if (is_real) {
      text += fmt::format(" {} |", published_cell(result.row->average));
      text += fmt::format(" {} |", m.figures.empty() ? ""
                                                     : cell(m.figures[i].worst) + " (" +
                                                           m.figures[i].worst_layer + ")");
      text += fmt::format(" {} |", published_cell(result.row->worst));
    } else if (report.data_sets[i] == "normal") {
      text += fmt::format(" {} |", published_cell(result.row->normal));
    }
  }
  return text + fmt::format(" {} |\n", m.target);
}

std::string table_text(const AccuracyReport& report, const AccuracyTable& table) {
  const std::vector<const AccuracyResult*> results = results_of(report, table.id);
  if (results.empty()) return "";
  const bool is_paper = table.paper != "none";
  std::string text = fmt::format("## {}{}\n\n| setting |", table.title,
                                 is_paper ? fmt::format(" ({})", table.paper) : "");
  std::string rule = "|---|";
  const auto column = [&](std::string_view title) {
    text += fmt::format(" {} |", title);
    rule += "---|";
  };
  for (const std::string& name : report.data_sets) {
    if (name == report.real_data) {
      for (const char* title :
           {"real layers, average", "published", "worst real layer", "published"})
        column(title);
    } else {
      column(name);
      if (name == "normal") column("published");
    }
  }
  column("compiled for");
  text += "\n" + rule + "\n";
  for (const AccuracyResult* result : results) text += row_text(report, *result);
  std::string remarks;
  for (const std::string& sentence : contradictions(report, table.id)) {
    remarks += "- " + sentence + "\n";
  }
  for (const AccuracyResult* result : results) {
    if (result->measurement.why_unsupported.empty()) continue;
    remarks += fmt::format("- {}: unsupported: {}.\n", result->row->setting,
                           result->measurement.why_unsupported);
  }
  return text + "\n" + remarks + (remarks.empty() ? "" : "\n");
}

json closeness_json(const Closeness& c) {
  return {{"cosine", c.cosine}, {"relative_l1", c.relative_l1}, {"rmse", c.rmse}};
}

}  // namespace

std::vector<std::string> contradictions(const AccuracyReport& report, std::string_view table) {
  std::vector<std::string> sentences;
  const std::vector<const AccuracyResult*> results = results_of(report, table);
  std::map<std::string, std::pair<Comparison, Comparison>> extremes;  // best, worst of a data set
  for (const AccuracyResult* a : results) {
    for (const Comparison& of_a : comparisons_of(report, *a)) {
      const std::string sentence = contrast(*a, of_a);
      if (!sentence.empty()) sentences.push_back(sentence);
      auto& [best, worst] = extremes.try_emplace(of_a.data, of_a, of_a).first->second;
      if (*of_a.published->cosine > *best.published->cosine) best = of_a;
      if (*of_a.published->cosine < *worst.published->cosine) worst = of_a;
      for (const AccuracyResult* b : results) {
        for (const Comparison& of_b : comparisons_of(report, *b)) {
          if (!is_reversed(of_a, of_b)) continue;
          sentences.push_back(fmt::format(
              "{}: the paper, of other {}, has {} more accurate than {}; here it is less: {:.5f} "
              "against {:.5f}.",
              of_a.data, of_a.data == kGeneratedData ? "shapes" : "models", a->row->setting,
              b->row->setting, of_a.ours->cosine, of_b.ours->cosine));
        }
      }
    }
  }
  for (const auto& [data, pair] : extremes) {
    const std::string sentence = narrower(pair.first, pair.second);
    if (!sentence.empty()) sentences.push_back(sentence);
  }
  return sentences;
}

std::string to_markdown(const AccuracyReport& report, const std::string& plot_path) {
  std::string text = fmt::format(
      "# Accuracy\n\nMade by `{}` on: {}. Every figure of ours is of a kernel's output against the "
      "float64 answer "
      "(specs/numerics.md, section 6):\ncosine in percent / relative L1 / RMSE, over whole "
      "tensors. Generated data: {}, f16. "
      "Real layers: {}.\nPublished figures are as printed; those over real layers are of the "
      "papers' models (CogvideoX, "
      "Llama 2, UltraPixel, ...), not of ours, and those on N(0, 1) of other shapes, so that "
      "orders "
      "compare, digits do not.\n"
      "What no generator makes yet is `unsupported`, and has no figure.\n\n",
      report.command, report.device, report.shape,
      report.real_data.empty() ? "none" : report.real_data);
  if (!plot_path.empty()) text += fmt::format("![1 - cosine of every row]({})\n\n", plot_path);
  for (const AccuracyTable& table : accuracy_tables()) text += table_text(report, table);
  text.pop_back();
  return text;
}

std::string to_json_text(const AccuracyReport& report) {
  json rows = json::array();
  for (const AccuracyResult& result : report.results) {
    const Measurement& m = result.measurement;
    json figures = json::object();
    for (size_t i = 0; i < m.figures.size(); ++i) {
      figures[report.data_sets[i]] = {{"average", closeness_json(m.figures[i].average)},
                                      {"worst", closeness_json(m.figures[i].worst)},
                                      {"worst_layer", m.figures[i].worst_layer},
                                      {"num_non_finite", m.figures[i].num_non_finite}};
    }
    rows.push_back({{"table", result.row->table},
                    {"setting", result.row->setting},
                    {"entries", result.row->entries},
                    {"published",
                     {{"average", result.row->average.text},
                      {"worst", result.row->worst.text},
                      {"normal", result.row->normal.text}}},
                    {"target", m.target},
                    {"unsupported", m.why_unsupported},
                    {"figures", figures}});
  }
  json sentences = json::object();
  for (const AccuracyTable& table : accuracy_tables()) {
    const std::vector<std::string> found = contradictions(report, table.id);
    if (!found.empty()) sentences[std::string(table.id)] = found;
  }
  return json{{"command", report.command},
              {"device", report.device},
              {"rows", rows},
              {"contradictions", sentences}}
             .dump(2) +
         "\n";
}

}  // namespace sagejit::cli
