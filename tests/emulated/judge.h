// What makes an output right: the bars of specs/numerics.md, section 6, and closeness to the model
// of the whole quantized variant, which is much the sharper of the two.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "compiler/sema/variant.h"
#include "tests/emulated/problem.h"

namespace sagejit::test {

struct Demand {
  // Lowest cosine against float64, over a tensor of kManyHeads and more, and in the worst (batch,
  // head); -1: none, where the input makes quantization itself too coarse for it.
  double cosine = 0.9995, head_cosine = 0.9995;
  // Largest LSE error against float64; infinity: none.
  double lse = 0.1;
  // With fewer queries, no cosine is judged: a few rows stray further than the bars leave room for.
  int64_t least_rows = 1;
};

// Fewer heads are judged one by one: two large channels of V may decide what the cosine of a head
// is.
inline constexpr int64_t kManyHeads = 4;

// The demands on a variant fed with an input of that name. The absolute bars hold for normal and,
// with smoothing, for biased_k; elsewhere the model alone decides.
Demand demand_for(const Variant& variant, std::string_view input);

// How far a kernel's output may be from the model's, RMS over a (batch, head), as a share of the
// output's RMS: what the model leaves out. See the .cc for the terms. `one_sidedness`: how much one
// sign prevails in V, 0 to 1; it counts for e4m3. `sum_keys`: how many e4m3 P the tensor core adds
// up for row sums, 0 if it does not.
double model_tolerance(const Variant& variant, int64_t num_rows, int64_t num_keys,
                       double one_sidedness, int64_t sum_keys);

// Everything wrong with the outputs of a launched problem, one line each; empty: right.
std::vector<std::string> judge(const Variant& variant, const Problem& problem,
                               const Demand& demand);

}  // namespace sagejit::test
