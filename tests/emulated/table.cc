#include "tests/emulated/table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "compiler/support/error.h"
#include "tests/emulated/judge.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr uint64_t kSeed = 20241;

std::string describe(const Case& row) {
  const reference::ProblemShape& s = row.shape;
  return fmt::format("{{{}}} b={} hq={} hkv={} m={} n={} {} {} {}", row.variant, s.b, s.hq, s.hkv,
                     s.m, s.n, row.input, name_of(row.layout),
                     row.schedule ? print_schedule(*row.schedule) : "");
}

void run_case(const Case& row, Lab& lab) {
  const Variant variant = variant_of(row.variant);
  reference::ProblemShape shape = row.shape;
  shape.d = variant.head_dim;
  shape.dv = variant.value_head_dim;
  const auto kernel = lab.kernel(lab.request(variant, row.schedule));
  Problem problem(*kernel, make_inputs(row.input, shape, variant.input, kSeed), row.layout);
  problem.launch();
  for (const std::string& line : judge(variant, problem, demand_for(variant, row.input))) {
    FAIL_CHECK(line);
  }
}

}  // namespace

void run_cases(const std::vector<Case>& cases, Lab& lab) {
  std::vector<KernelRequest> requests;
  std::set<std::string> kernels;
  for (const Case& row : cases) {
    const std::string schedule = row.schedule ? print_schedule(*row.schedule) : "";
    if (!kernels.insert(row.variant + schedule).second) continue;
    requests.push_back(lab.request(variant_of(row.variant), row.schedule));
  }
  lab.prefetch(requests);
  for (const Case& row : cases) {
    INFO(describe(row));
    try {
      run_case(row, lab);
      SUCCEED();
    } catch (const Error& error) {
      FAIL_CHECK(error.what() << "\n" << error.log());
    }
  }
}

}  // namespace sagejit::test
