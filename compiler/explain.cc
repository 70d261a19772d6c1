#include "compiler/explain.h"

#include <algorithm>
#include <array>

#include "compiler/kernels/generators.h"
#include "compiler/plan/forward_plan.h"
#include "compiler/sema/check.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

// Of a contiguous tensor of the problem.
double tensor_bytes(const Variant& v, const ExplainedProblem& p, std::string_view tensor) {
  const auto bytes = [](int64_t elements, DType type) {
    return static_cast<double>(elements) * bits_of(type) / 8;
  };
  if (tensor == "q") return bytes(p.b * p.hq * p.m * v.head_dim, v.input);
  if (tensor == "k") return bytes(p.b * p.hkv * p.n * v.head_dim, v.input);
  if (tensor == "v") return bytes(p.b * p.hkv * p.n * v.value_head_dim, v.input);
  if (tensor == "o") return bytes(p.b * p.hq * p.m * v.value_head_dim, v.output);
  if (tensor == "lse") return bytes(p.b * p.hq * p.m, DType::kF32);
  fail(ErrorKind::kInternal, "a launch reads a tensor '{}' that has no size", tensor);
}

cost::Traffic traffic_of(const Explanation& e) {
  std::array<int64_t, kNumSymbols> values{};
  const auto set = [&](Symbol symbol, int64_t value) {
    values[static_cast<size_t>(symbol)] = value;
  };
  set(Symbol::kB, e.problem.b);
  set(Symbol::kHq, e.problem.hq);
  set(Symbol::kHkv, e.problem.hkv);
  set(Symbol::kM, e.problem.m);
  set(Symbol::kN, e.problem.n);
  set(Symbol::kNumSms, e.throughput->num_sms);
  return cost::traffic_of(e.plan, values, [&](std::string_view tensor) {
    return tensor_bytes(e.variant, e.problem, tensor);
  });
}

}  // namespace

Explanation explain(const CompileRequest& request, const ExplainedProblem& problem) {
  const std::vector<Schedule> schedules = schedules_of(request);
  Explanation e;
  e.variant = request.variant;
  e.target = request.target;
  e.schedule = schedules.front();
  e.num_schedules = schedules.size();
  e.problem = problem;
  e.throughput = find_throughput(*request.target);
  e.cautions = cautions_about(request.variant, *request.target);
  e.formulas = formulas_of(request.variant, *request.target);
  ForwardPlan plan = make_forward_plan(request.variant, e.schedule, *request.target);
  for (const ir::Function& kernel : generate_kernels(plan)) {
    e.kernels.push_back({kernel.name, kernel.smem_bytes(), cost::count_loops(kernel)});
  }
  e.plan = std::move(plan.plan);
  if (!e.throughput) return e;
  e.roofline = cost::roofline_of(e.variant, e.schedule, e.kernels.back().loops, *e.throughput);
  e.traffic = traffic_of(e);
  e.operations = 2.0 * static_cast<double>(problem.b * problem.hq * problem.m) *
                 static_cast<double>(problem.n * (e.variant.head_dim + e.variant.value_head_dim));
  e.times = cost::least_times(e.roofline, e.traffic, e.operations, *e.throughput);
  return e;
}

}  // namespace sagejit
