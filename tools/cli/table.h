// Plain-text tables: columns as wide as their widest cell, two blanks between them.
#pragma once

#include <string>
#include <vector>

namespace sagejit::cli {

class Table {
 public:
  // A title starting with '>' makes a right-aligned column (numbers).
  explicit Table(std::vector<std::string> titles);

  // As many cells as there are titles; throws Error{kInternal} otherwise.
  void add(std::vector<std::string> cells);
  bool empty() const { return rows_.size() == 1; }

  // Every line starts with `indent` and ends with a newline; no blanks at line ends.
  std::string text(const std::string& indent = "") const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;  // titles first
};

}  // namespace sagejit::cli
