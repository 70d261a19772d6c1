// What a request would compile to, and what will limit it, without compiling: for people and for
// tools that choose. Pure; safe from several threads.
#pragma once

#include <string>
#include <vector>

#include "compiler/compile.h"
#include "compiler/cost/roofline.h"
#include "compiler/sema/formulas.h"

namespace sagejit {

// The shapes that sizes and times are told for.
struct ExplainedProblem {
  int64_t b = 1, hq = 32, hkv = 32, m = 4096, n = 4096;
};

// What the host needs to know of one kernel's loops.
struct ExplainedKernel {
  std::string kernel;
  int smem_bytes = 0;  // of a block
  std::vector<cost::LoopCount> loops;
};

struct Explanation {
  Variant variant;
  const Target* target = nullptr;
  std::vector<std::string> cautions;
  std::vector<Formula> formulas;
  Schedule schedule;
  size_t num_schedules =
      1;  // that would be tried in turn, should the assembler spill; 1 where it was given
  Plan plan;
  std::vector<ExplainedKernel> kernels;    // in launch order
  const Throughput* throughput = nullptr;  // null: not published, and what follows is not told
  cost::Roofline roofline;
  ExplainedProblem problem;
  cost::Traffic traffic;
  double operations = 0;  // 2 b hq m n (d + dv): pairs that a mask hides count
  cost::LeastTimes times;
};

// Throws like compile().
Explanation explain(const CompileRequest& request, const ExplainedProblem& problem);

}  // namespace sagejit
