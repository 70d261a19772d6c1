#include "tests/reference/attention.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "compiler/support/error.h"
#include "tests/reference/float16.h"
#include "tests/reference/float8.h"
#include "tests/reference/parallel.h"
#include "tests/reference/quantizer.h"

namespace sagejit::reference {
namespace {

constexpr int64_t kBlockRows = 32;

// Where P's e4m3 code is written directly: a line through the codes of powers of 2, moved by the
// mean over a fraction f of 8 (2^f - 1 - f).
constexpr double kDirectCodeOffset = 8 * (1 / std::numbers::ln2 - 1.5);
double directly_coded(double scaled) {
  if (std::isnan(scaled)) return scaled;
  const double code = std::nearbyint(8 * (std::log2(scaled) + 7) + kDirectCodeOffset);
  return e4m3_to_f32(static_cast<uint8_t>(std::clamp(code, 0.0, 126.0)));
}

double rounded(double p, const ProbabilityOperand& to) {
  const double scaled = p * to.range;
  if (to.direct_code) return directly_coded(scaled) / to.range;
  switch (to.type) {
    case DType::kF16:
      return f16_to_f32(f64_to_f16(scaled)) / to.range;
    case DType::kE4M3:
    case DType::kE5M2:
      return fp8_to_f32(to.type, f64_to_fp8(to.type, scaled)) / to.range;
    case DType::kS8:
    case DType::kU8:
      return std::nearbyint(scaled) / to.range;  // at most the range
    default:
      return bf16_to_f32(f64_to_bf16(scaled)) / to.range;
  }
}

// P of the keys [begin, end) of a row, in place. Those of fp4 are rounded in groups of 16.
void round_row(const ProbabilityOperand& to, int64_t begin, int64_t end, double* row) {
  if (to.type != DType::kE2M1) {
    for (int64_t j = begin; j < end; ++j) row[j] = rounded(row[j], to);
    return;
  }
  for (int64_t j = begin; j < end;) {
    const int64_t next = std::min(end, j / kGroupElements * kGroupElements + kGroupElements);
    for (int64_t i = j; i < next; ++i) row[i] *= to.range;
    round_group(row + j, next - j);
    for (; j < next; ++j) row[j] /= to.range;
  }
}

// What the products of a row and the keys are multiplied by to be scores.
struct RowFactors {
  double row;
  const std::vector<double>& keys;
};

// What o of a row is a multiple of, in base-2 units, for the largest factor of any key; 0 where one
// multiply-add is not enough.
class OffsetGrid {
 public:
  OffsetGrid(const AttentionEngine& engine, const RowFactors& factors) : engine_(engine) {
    constexpr double kLargestFactor = 0x1p-4, kLargestMaximum = 0x1p15;
    const double largest = factors.row * std::numbers::log2e *
                           *std::max_element(factors.keys.begin(), factors.keys.end());
    const double code =
        GroupRule{
            .span = 0, .groups_per_tile = 1, .whole_tensor = false, .type = engine.variant.q.type}
            .largest_code();
    const double limit =
        std::min(kLargestFactor, kLargestMaximum / (code * code * engine.variant.head_dim));
    if (largest > 0 && largest <= std::exp2(std::floor(std::log2(limit)))) {
      grid_ = std::ldexp(2.0, std::ilogb(largest));
    }
  }

  // The maximum, in natural units, whose o is on the grid next below.
  double maximum(double max) const {
    if (grid_ == 0) return max;
    const bool codes = engine_.round_p->direct_code;
    const double top = std::log2(engine_.round_p->range) +
                       (codes ? 7 + kDirectCodeOffset / 8 : 0.0);  // o where m is 0
    const double o = top - max * std::numbers::log2e;
    return (top - std::floor(o / grid_) * grid_) * std::numbers::ln2;
  }

 private:
  const AttentionEngine& engine_;
  double grid_ = 0;
};

// One row of scores becomes one row of unnormalized probabilities; outside `range` they are zero.
struct RowSoftmax {
  double denominator = 0;
  double lse = -std::numeric_limits<double>::infinity();
};
RowSoftmax softmax_row(const AttentionEngine& engine, const RowFactors& factors, KeyRange range,
                       KeyRange stored, double* row) {
  RowSoftmax result;
  std::fill(row + stored.begin, row + range.begin, 0.0);
  std::fill(row + range.end, row + stored.end, 0.0);
  if (range.begin == range.end) return result;
  const int64_t tile = engine.key_tile == 0 ? std::max<int64_t>(engine.n, 1) : engine.key_tile;
  const double threshold =
      engine.key_tile == 0 ? 0.0 : engine.variant.rescale_threshold * std::numbers::ln2;
  double max = -std::numeric_limits<double>::infinity();
  std::optional<OffsetGrid> grid;
  if (engine.grids_offset) grid.emplace(engine, factors);
  for (int64_t begin = range.begin; begin < range.end;) {
    const int64_t end = std::min(range.end, begin / tile * tile + tile);
    const double tile_max = *std::max_element(row + begin, row + end);
    double next = tile_max > max + threshold ? tile_max : max;
    if (grid && next > max) next = grid->maximum(next);
    if (next > max) {  // what came before is relative to the new one
      const double factor = std::exp(max - next);
      for (int64_t j = range.begin; j < begin; ++j) row[j] *= factor;
      result.denominator *= factor;
      max = next;
    }
    double sum = 0;
    for (int64_t j = begin; j < end; ++j) sum += row[j] = std::exp(row[j] - max);
    if (engine.round_p) round_row(*engine.round_p, begin, end, row);
    if (engine.sum_rounded) sum = std::accumulate(row + begin, row + end, 0.0);
    result.denominator += sum;
    begin = end;
  }
  result.lse = max + std::log(result.denominator);
  return result;
}

class HeadAttention {
 public:
  HeadAttention(const AttentionEngine& engine, const QueryOperand& queries, const KeyOperand& keys,
                AttentionResult& result, int64_t head_row)
      : engine_(engine), queries_(queries), keys_(keys), result_(result), head_row_(head_row) {}

  // Rows [begin, end) of the head.
  void compute(int64_t begin, int64_t end) const {
    const int64_t d = engine_.variant.head_dim, rows = end - begin;
    KeyRange stored{engine_.n, 0};
    for (int64_t i = begin; i < end; ++i) {
      const KeyRange range = range_of(i);
      if (range.begin == range.end) continue;
      stored = {std::min(stored.begin, range.begin), std::max(stored.end, range.end)};
    }
    if (stored.begin >= stored.end) return write_empty(begin, end);
    const int64_t panel_begin = stored.begin / kPanelColumns;
    const int64_t panel_end = (stored.end + kPanelColumns - 1) / kPanelColumns;
    const int64_t lds = keys_.keys.num_panels() * kPanelColumns;
    std::vector<double> scores(static_cast<size_t>(rows * lds));
    multiply(keys_.keys, {queries_.rows.data() + begin * d, d, rows, 0, d, panel_begin, panel_end,
                          scores.data(), lds});
    std::vector<RowSoftmax> sums;
    for (int64_t i = begin; i < end; ++i) {
      double* row = scores.data() + (i - begin) * lds;
      const KeyRange range = range_of(i);
      scale_row(i, range, row);
      const RowFactors factors{queries_.row_factor[static_cast<size_t>(i)], keys_.key_factor};
      sums.push_back(softmax_row(engine_, factors, range, stored, row));
    }
    const int64_t ldo = keys_.values.num_panels() * kPanelColumns;
    std::vector<double> output(static_cast<size_t>(rows * ldo));
    multiply(keys_.values, {scores.data(), lds, rows, stored.begin, stored.end, 0,
                            keys_.values.num_panels(), output.data(), ldo});
    for (int64_t i = begin; i < end; ++i) {
      write(i, sums[static_cast<size_t>(i - begin)], output.data() + (i - begin) * ldo);
    }
  }

 private:
  KeyRange range_of(int64_t i) const {
    return visible_keys(engine_.variant.mask, i, engine_.m, engine_.n);
  }

  void scale_row(int64_t i, KeyRange range, double* row) const {
    const double factor = queries_.row_factor[static_cast<size_t>(i)];
    const std::optional<double>& cap = engine_.variant.score.softcap;
    for (int64_t j = range.begin; j < range.end; ++j) {
      row[j] *= factor * keys_.key_factor[static_cast<size_t>(j)];
      if (queries_.block_rows > 0) {
        row[j] +=
            queries_.block_scores[static_cast<size_t>(i / queries_.block_rows * engine_.n + j)];
      }
      if (cap) row[j] = *cap * std::tanh(row[j] / *cap);
    }
  }

  void write(int64_t i, const RowSoftmax& sums, const double* output) const {
    const int64_t dv = result_.dv, row = head_row_ + i;
    const double offset =
        queries_.lse_offset.empty() ? 0.0 : queries_.lse_offset[static_cast<size_t>(i)];
    result_.lse[static_cast<size_t>(row)] = sums.lse + offset;
    result_.sum[static_cast<size_t>(row)] = sums.denominator;
    for (int64_t d = 0; d < dv; ++d) {
      // A NaN denominator must reach the output, so "no key seen" is told by the LSE.
      const bool empty = sums.lse == -std::numeric_limits<double>::infinity();
      result_.o[static_cast<size_t>(row * dv + d)] = empty ? 0.0 : output[d] / sums.denominator;
    }
  }

  void write_empty(int64_t begin, int64_t end) const {
    const std::vector<double> zeros(static_cast<size_t>(result_.dv), 0.0);
    for (int64_t i = begin; i < end; ++i) write(i, RowSoftmax{}, zeros.data());
  }

  const AttentionEngine& engine_;
  const QueryOperand& queries_;
  const KeyOperand& keys_;
  AttentionResult& result_;
  const int64_t head_row_;
};

// Rows share one product over the keys any of them sees, with P = 0 for those a row does not. That
// is right only while 0 * V is 0: with an infinity or NaN in V, rows go one by one.
int64_t rows_per_block(const KeyOperand& keys, int64_t n, int64_t dv) {
  for (int64_t p = 0; p < keys.values.num_panels(); ++p) {
    const double* panel = keys.values.panel(p);
    for (int64_t e = 0; e < n * std::min(dv, kPanelColumns); ++e) {
      if (!std::isfinite(panel[e])) return 1;
    }
  }
  return kBlockRows;
}

void check_mask_and_score(const Variant& variant) {
  switch (variant.mask.kind) {
    case MaskKind::kNone:
    case MaskKind::kCausalTopLeft:
    case MaskKind::kCausalBottomRight:
    case MaskKind::kWindow:
      break;
    default:
      fail(ErrorKind::kUnsupported,
           "the reference models the masks none, causal and window; not tensors or expressions");
  }
  if (variant.score.alibi || variant.score.sinks ||
      !variant.score.expression.canonical_text.empty()) {
    fail(ErrorKind::kUnsupported,
         "the reference models scale and softcap; not ALiBi, sinks or score expressions");
  }
  if (variant.structure.kind != StructureKind::kDense &&
      variant.structure.kind != StructureKind::kSplitKv) {
    fail(ErrorKind::kUnsupported, "the reference models dense and split-KV structures alone");
  }
}

}  // namespace

KeyRange visible_keys(const Mask& mask, int64_t i, int64_t m, int64_t n) {
  const auto clamped = [n](int64_t begin, int64_t end) {
    const int64_t first = std::clamp<int64_t>(begin, 0, n);
    return KeyRange{first, std::clamp<int64_t>(end, first, n)};
  };
  const int64_t diagonal = i + (n - m);
  switch (mask.kind) {
    case MaskKind::kCausalTopLeft:
      return clamped(0, i + 1);
    case MaskKind::kCausalBottomRight:
      return clamped(0, diagonal + 1);
    case MaskKind::kWindow:
      return clamped(diagonal - mask.window_left, diagonal + mask.window_right + 1);
    default:
      return {0, n};
  }
}

double score_scale(const Variant& variant) {
  return variant.score.scale.value_or(1.0 / std::sqrt(static_cast<double>(variant.head_dim)));
}

void check_problem(const Variant& variant, const HostTensor& q, const HostTensor& k,
                   const HostTensor& v) {
  check_mask_and_score(variant);
  const Shape4 &sq = q.shape(), &sk = k.shape(), &sv = v.shape();
  const bool heads_fit = sk[1] > 0 ? sq[1] % sk[1] == 0 : sq[1] == 0;
  if (sq[0] != sk[0] || sk[0] != sv[0] || sk[1] != sv[1] || sk[2] != sv[2] || !heads_fit) {
    fail(ErrorKind::kArgument,
         "shapes do not fit: q [{}], k [{}], v [{}]; q is [b, hq, m, d], k [b, hkv, n, d], v [b, "
         "hkv, n, dv], and hq a multiple of hkv",
         fmt::join(sq, ", "), fmt::join(sk, ", "), fmt::join(sv, ", "));
  }
  if (sq[3] != variant.head_dim || sk[3] != variant.head_dim || sv[3] != variant.value_head_dim) {
    fail(ErrorKind::kArgument,
         "head dims of q, k, v are {}, {}, {}; the variant has head_dim {} and value_head_dim {}",
         sq[3], sk[3], sv[3], variant.head_dim, variant.value_head_dim);
  }
}

AttentionResult run_engine(const AttentionEngine& engine) {
  const int64_t dv = engine.variant.value_head_dim;
  AttentionResult result{engine.b, engine.hq, engine.m, dv, {}, {}, {}};
  result.o.assign(static_cast<size_t>(engine.b * engine.hq * engine.m * dv), 0.0);
  result.lse.assign(static_cast<size_t>(engine.b * engine.hq * engine.m), 0.0);
  result.sum = result.lse;
  if (result.lse.empty()) return result;
  const int64_t group = engine.hq / engine.hkv;
  for (int64_t head = 0; head < engine.b * engine.hkv; ++head) {
    const int64_t b = head / engine.hkv, hkv = head % engine.hkv;
    const KeyOperand keys = engine.load_keys(b, hkv);
    const int64_t step = rows_per_block(keys, engine.n, dv);
    const int64_t blocks = (engine.m + step - 1) / step;
    std::vector<QueryOperand> queries(static_cast<size_t>(group));
    parallel_for(group, [&](int64_t g) {
      queries[static_cast<size_t>(g)] = engine.load_queries(b, hkv * group + g);
    });
    parallel_for(group * blocks, [&](int64_t item) {
      const int64_t g = item / blocks, begin = item % blocks * step;
      const int64_t head_row = (b * engine.hq + hkv * group + g) * engine.m;
      HeadAttention(engine, queries[static_cast<size_t>(g)], keys, result, head_row)
          .compute(begin, std::min(begin + step, engine.m));
    });
  }
  return result;
}

AttentionResult exact_attention(const Variant& variant, const HostTensor& q, const HostTensor& k,
                                const HostTensor& v) {
  check_problem(variant, q, k, v);
  const int64_t d = variant.head_dim, dv = variant.value_head_dim;
  const int64_t m = q.shape()[2], n = k.shape()[2];
  const double scale = reference::score_scale(variant);
  AttentionEngine engine{variant, q.shape()[0], q.shape()[1], k.shape()[1], m,
                         n,       {},           {},           {},           false};
  engine.load_queries = [&](int64_t b, int64_t h) {
    QueryOperand operand;
    operand.rows.reserve(static_cast<size_t>(m * d));
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t c = 0; c < d; ++c) operand.rows.push_back(q.get(b, h, i, c));
    }
    operand.row_factor.assign(static_cast<size_t>(m), scale);
    return operand;
  };
  engine.load_keys = [&](int64_t b, int64_t h) {
    KeyOperand operand{PackedMatrix(d, n), PackedMatrix(n, dv),
                       std::vector<double>(static_cast<size_t>(n), 1.0)};
    parallel_for((n + 63) / 64, [&](int64_t block) {
      for (int64_t j = block * 64; j < std::min(n, block * 64 + 64); ++j) {
        for (int64_t c = 0; c < d; ++c) operand.keys.at(c, j) = k.get(b, h, j, c);
        for (int64_t c = 0; c < dv; ++c) operand.values.at(j, c) = v.get(b, h, j, c);
      }
    });
    return operand;
  };
  return run_engine(engine);
}

}  // namespace sagejit::reference
