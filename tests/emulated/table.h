// Runs rows of a table: a variant's body, a shape, an input, a layout and a schedule each.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"

namespace sagejit::test {

struct Case {
  std::string variant;            // body, as variant_of() takes it
  reference::ProblemShape shape;  // d and dv are the variant's
  std::string input = "normal";
  Layout layout = Layout::kBhtd;
  std::optional<Schedule> schedule = {};  // none: the default
};

// Launches every row and judges it; failures carry the row's text.
void run_cases(const std::vector<Case>& cases, Lab& lab = Lab::mma_sync());

}  // namespace sagejit::test
