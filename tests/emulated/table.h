// Runs rows of a table: a variant's body, a shape, an input and a layout each.
#pragma once

#include <string>
#include <vector>

#include "tests/emulated/problem.h"

namespace sagejit::test {

struct Case {
  std::string variant;            // body, as variant_of() takes it
  reference::ProblemShape shape;  // d and dv are the variant's
  std::string input = "normal";
  Layout layout = Layout::kBhtd;
};

// Launches every row and judges it; failures carry the row's text.
void run_cases(const std::vector<Case>& cases);

}  // namespace sagejit::test
