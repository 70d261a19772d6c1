// The true answer: attention of a variant in float64, without quantization.
//
//   S = scale * q . k;  S = c tanh(S / c) where the variant has a softcap;  masked keys take no
//   part; P = softmax(S);  O = P V;  LSE = log(sum(exp(S))), natural logarithm.
// A row that sees no key (masked altogether, or n == 0) gives O = 0 and LSE = -inf.
// Query head h reads key head h / (hq / hkv).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "compiler/sema/variant.h"
#include "tests/reference/host_tensor.h"
#include "tests/reference/matmul.h"

namespace sagejit::reference {

struct AttentionResult {
  int64_t b = 0, h = 0, m = 0, dv = 0;
  std::vector<double> o;    // [b, h, m, dv]
  std::vector<double> lse;  // [b, h, m]
  std::vector<double> sum;  // [b, h, m]: of exp(S - row's maximum); 0 for a row without keys
};

// q [b, hq, m, d], k [b, hkv, n, d], v [b, hkv, n, dv]. Quick: about 4 GFLOP/s per core and more.
// Throws Error{kArgument} for shapes that do not fit one another or the variant, and
// Error{kUnsupported} for parts of a variant the reference does not model.
AttentionResult exact_attention(const Variant& variant, const HostTensor& q, const HostTensor& k,
                                const HostTensor& v);

// The keys [begin, end) that query row i of m sees of n; begin == end: none.
struct KeyRange {
  int64_t begin, end;
};
KeyRange visible_keys(const Mask& mask, int64_t i, int64_t m, int64_t n);

// The multiplier of q . k: the variant's, or 1 / sqrt(head_dim).
double score_scale(const Variant& variant);

// ---- The engine, shared by the exact answer and the model of the quantized variant.

struct QueryOperand {              // of one (batch, query head)
  std::vector<double> rows;        // [m, d]
  std::vector<double> row_factor;  // [m]: multiplies the products of the row
  std::vector<double> lse_offset;  // [m], added to the LSE; empty: none
  // [blocks, n], added to the scaled scores of `block_rows` rows each; empty: none
  std::vector<double> block_scores;
  int64_t block_rows = 0;
};
struct KeyOperand {                // of one (batch, key head)
  PackedMatrix keys;               // d x n
  PackedMatrix values;             // n x dv
  std::vector<double> key_factor;  // [n]
};
struct AttentionEngine {
  const Variant& variant;
  int64_t b, hq, hkv, m, n;
  std::function<QueryOperand(int64_t b, int64_t h)> load_queries;
  std::function<KeyOperand(int64_t b, int64_t h)> load_keys;
  // What P is rounded to, or coded as, before the second product, relative to the row's maximum.
  std::optional<ProbabilityOperand> round_p;
  bool sum_rounded = false;  // the denominator sums the rounded P
  // Keys after which the maximum that P is relative to follows the row's, as it does in a kernel;
  // 0: it is the row's final one.
  int64_t key_tile = 0;
  // Whether o = log2 range - m, what base-2 exponents of P are above the scores, is rounded down to
  // a grid as in kernels (specs/numerics.md, 4.2), m being the maximum that P is relative to.
  bool grids_offset = false;
};
AttentionResult run_engine(const AttentionEngine& engine);

// Throws as exact_attention does.
void check_problem(const Variant& variant, const HostTensor& q, const HostTensor& k,
                   const HostTensor& v);

}  // namespace sagejit::reference
