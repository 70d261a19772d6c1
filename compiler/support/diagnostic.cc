#include "compiler/support/diagnostic.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "compiler/support/error.h"
#include "compiler/support/utf8.h"

namespace sagejit {
namespace {

constexpr size_t kMaxKept = 50;   // a binary file must not produce a message of megabytes
constexpr int kMaxColumns = 120;  // longer lines are cut to this many columns around the caret
constexpr int kColumnsBefore = 60;
constexpr uint32_t kBytesAround = 1024;   // of a line that are looked at on each side of the caret
constexpr size_t kMaxMessageBytes = 600;  // longer ones quote something that is no name

struct Line {
  int number = 1;      // from 1
  uint32_t begin = 0;  // bytes of the text
  uint32_t end = 0;    // without the line's end
};

Line find_line(const std::string& text, uint32_t offset) {
  offset = std::min<uint32_t>(offset, text.size());
  Line line;
  for (uint32_t i = 0; i < offset; ++i) {
    if (text[i] == '\n') {
      ++line.number;
      line.begin = i + 1;
    }
  }
  const size_t newline = text.find('\n', line.begin);
  line.end = newline == std::string::npos ? text.size() : newline;
  if (line.end > line.begin && text[line.end - 1] == '\r') --line.end;
  return line;
}

// One column of a line as it is shown: a code point, or `?` for what does not print.
struct Column {
  std::string shown;
  uint32_t begin;  // its byte in the text
};

std::vector<Column> columns_of(const std::string& text, const Line& line) {
  std::vector<Column> columns;
  for (uint32_t at = line.begin; at < line.end;) {
    const auto rest = std::string_view(text).substr(at, line.end - at);
    const int length = utf8_length(rest);
    const auto first = static_cast<unsigned char>(rest[0]);
    const bool prints = length > 0 && (first >= 0x20 || first == '\t') && first != 0x7f;
    columns.push_back({prints ? std::string(rest.substr(0, length)) : "?", at});
    at += std::max(length, 1);
  }
  return columns;
}

std::string render_excerpt(const Span& span, const Line& line) {
  const std::string& text = span.file->text;
  Line near = line;
  if (span.begin > line.begin + kBytesAround) near.begin = span.begin - kBytesAround;
  while (near.begin > line.begin && (text[near.begin] & 0xc0) == 0x80) --near.begin;
  near.end = std::min(line.end, span.begin + kBytesAround);
  const std::vector<Column> columns = columns_of(text, near);
  const auto column_at = [&](uint32_t offset) {
    const auto at = std::lower_bound(columns.begin(), columns.end(), offset,
                                     [](const Column& c, uint32_t o) { return c.begin < o; });
    return static_cast<int>(at - columns.begin());
  };
  const int num_columns = static_cast<int>(columns.size());
  const int caret_begin = column_at(span.begin);
  const int caret_end = std::max(column_at(std::min(span.end, near.end)), caret_begin + 1);
  int shown_begin = 0, shown_end = num_columns;
  if (num_columns > kMaxColumns || near.begin > line.begin || near.end < line.end) {
    shown_begin = std::max(0, caret_begin - kColumnsBefore);
    shown_end = std::min(num_columns, shown_begin + kMaxColumns);
  }
  std::string source = shown_begin > 0 || near.begin > line.begin ? "..." : "";
  std::string marks(source.size(), ' ');
  for (int i = shown_begin; i < std::max(shown_end, caret_begin + 1); ++i) {
    if (i < shown_end) source += columns[i].shown;
    if (i < caret_begin) marks += i < shown_end && columns[i].shown == "\t" ? '\t' : ' ';
    if (i >= caret_begin && i < caret_end) marks += '^';
  }
  if (shown_end < num_columns || near.end < line.end) source += "...";
  return fmt::format("{:>4} |{}{}\n     | {}", line.number, source.empty() ? "" : " ", source,
                     marks);
}

// The start of a text that is too long to be read.
std::string shorten(std::string text) {
  if (text.size() <= kMaxMessageBytes) return text;
  size_t end = kMaxMessageBytes;
  while ((text[end] & 0xc0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

}  // namespace

Span join(Span first, Span last) {
  return {first.file, first.begin, last.end};
}

std::string render(const Diagnostic& diagnostic) {
  const Span& span = diagnostic.span;
  const Line line = find_line(span.file->text, span.begin);
  int column = 1;
  for (uint32_t at = line.begin; at < std::min(span.begin, line.end); ++column) {
    at += std::max(utf8_length(std::string_view(span.file->text).substr(at)), 1);
  }
  std::string text = fmt::format("{}:{}:{}: {}: {}\n{}", span.file->name, line.number, column,
                                 diagnostic.severity == Severity::kError ? "error" : "warning",
                                 diagnostic.message, render_excerpt(span, line));
  for (const std::string& note : diagnostic.notes) text += "\n  note: " + note;
  return text;
}

void Diagnostics::error(Span span, std::string message, std::string note) {
  Diagnostic diagnostic{Severity::kError, span, std::move(message), {}};
  if (!note.empty()) diagnostic.notes.push_back(std::move(note));
  add(std::move(diagnostic));
}

void Diagnostics::warning(Span span, std::string message, std::string note) {
  Diagnostic diagnostic{Severity::kWarning, span, std::move(message), {}};
  if (!note.empty()) diagnostic.notes.push_back(std::move(note));
  add(std::move(diagnostic));
}

void Diagnostics::add(Diagnostic diagnostic) {
  diagnostic.message = shorten(std::move(diagnostic.message));
  for (std::string& note : diagnostic.notes) note = shorten(std::move(note));
  const bool known = std::any_of(all_.begin(), all_.end(), [&](const Diagnostic& other) {
    return other.span.file == diagnostic.span.file && other.span.begin == diagnostic.span.begin &&
           other.message == diagnostic.message;
  });
  if (known) return;
  size_t& count = diagnostic.severity == Severity::kError ? num_errors_ : num_warnings_;
  if (++count > kMaxKept) return;
  all_.push_back(std::move(diagnostic));
}

std::vector<Diagnostic> Diagnostics::in_text_order(Severity severity) const {
  std::map<const SourceFile*, int> file_order;
  for (const Diagnostic& d : all_) file_order.emplace(d.span.file, file_order.size());
  std::vector<Diagnostic> sorted;
  std::copy_if(all_.begin(), all_.end(), std::back_inserter(sorted),
               [&](const Diagnostic& d) { return d.severity == severity; });
  std::stable_sort(sorted.begin(), sorted.end(), [&](const Diagnostic& a, const Diagnostic& b) {
    return std::pair(file_order[a.span.file], a.span.begin) <
           std::pair(file_order[b.span.file], b.span.begin);
  });
  return sorted;
}

std::vector<std::string> Diagnostics::warnings() const {
  std::vector<std::string> rendered;
  for (const Diagnostic& d : in_text_order(Severity::kWarning)) rendered.push_back(render(d));
  return rendered;
}

void Diagnostics::throw_if_errors() const {
  if (num_errors_ == 0) return;
  std::string message;
  for (const Diagnostic& d : in_text_order(Severity::kError)) {
    if (!message.empty()) message += "\n";
    message += render(d);
  }
  if (num_errors_ > kMaxKept) {
    message += fmt::format("\n... and {} more errors", num_errors_ - kMaxKept);
  }
  throw Error(ErrorKind::kSpec, std::move(message));
}

}  // namespace sagejit
