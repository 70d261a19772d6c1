#include "tests/unit/sema/random_variant.h"

#include <fmt/format.h>

#include <initializer_list>
#include <iterator>

#include "compiler/dsl/expression.h"
#include "compiler/sema/check.h"

namespace sagejit {
namespace {

int below(Rng& rng, int n) {
  return static_cast<int>(rng() % n);
}
bool chance(Rng& rng, int one_in) {
  return below(rng, one_in) == 0;
}

template <typename T>
T pick(Rng& rng, std::initializer_list<T> values) {
  return *std::next(values.begin(), below(rng, static_cast<int>(values.size())));
}

// All magnitudes a double has, and short ones.
double random_double(Rng& rng, double low, double high) {
  const double uniform = std::uniform_real_distribution<double>(0.0, 1.0)(rng);
  const double value = low + (high - low) * uniform;
  return chance(rng, 2) ? value : static_cast<double>(static_cast<float>(value));
}

// Parenthesized everywhere; printing it canonically removes what is not needed.
std::string raw_number(Rng& rng, bool score, int depth) {
  if (depth == 0 || chance(rng, 4)) {
    if (chance(rng, 3)) return fmt::format("{}", below(rng, 1000) + 1);
    if (score && chance(rng, 3)) return fmt::format("{:e}", random_double(rng, 0.0, 10.0));
    return score && chance(rng, 2) ? "s" : pick<std::string>(rng, {"q", "k", "head", "batch"});
  }
  const auto number = [&] { return raw_number(rng, score, depth - 1); };
  switch (below(rng, 8)) {
    case 0:
      return fmt::format("(-{})", number());
    case 1:
      return fmt::format("abs({})", number());
    case 2:
      return fmt::format("min({}, {})", number(), number());
    case 3:
      return fmt::format("max({}, {})", number(), number());
    case 4:
      return fmt::format("({} {} {})", raw_number(rng, false, 0),
                         pick<std::string>(rng, {"//", "%"}), below(rng, 100) + 1);
    default:
      return fmt::format("({} {} {})", number(), pick<std::string>(rng, {"+", "-", "*"}), number());
  }
}

std::string raw_condition(Rng& rng, int depth) {
  if (depth == 0 || chance(rng, 4)) {
    const auto comparison = pick<std::string>(rng, {"<", "<=", ">", ">=", "==", "!="});
    return fmt::format("({} {} {})", raw_number(rng, false, depth), comparison,
                       raw_number(rng, false, depth));
  }
  if (chance(rng, 4)) return fmt::format("(not {})", raw_condition(rng, depth - 1));
  return fmt::format("({} {} {})", raw_condition(rng, depth - 1),
                     pick<std::string>(rng, {"and", "or"}), raw_condition(rng, depth - 1));
}

Quantization random_quantization(Rng& rng, DType type) {
  if (type == DType::kE2M1) return {type, Granularity::kGroup16, 0};
  const auto granularity =
      pick(rng, {Granularity::kTensor, Granularity::kHead, Granularity::kBlock, Granularity::kWarp,
                 Granularity::kThread, Granularity::kToken});
  const bool has_span = granularity == Granularity::kBlock || granularity == Granularity::kWarp ||
                        granularity == Granularity::kThread;
  return {type, granularity, has_span ? 8 * (1 + below(rng, 32)) : 0};
}

void randomize_products(Rng& rng, Variant& v) {
  const DType qk = pick(rng, {DType::kS8, DType::kS4, DType::kE4M3, DType::kE2M1});
  v.q = random_quantization(rng, qk);
  v.k = random_quantization(rng, qk);
  v.qk_accumulator = qk == DType::kS8 || qk == DType::kS4 ? DType::kS32 : DType::kF32;
  v.p.type = pick(rng, {DType::kF16, DType::kBF16, DType::kE4M3, DType::kE5M2, DType::kS8,
                        DType::kU8, DType::kE2M1});
  v.p.range = random_double(rng, 0.25, largest_p_range(v.p.type));
  v.p.direct_code = v.p.type == DType::kE4M3 && chance(rng, 2);
  v.v.type = v.p.type == DType::kU8 ? DType::kS8 : v.p.type;
  if (is_fp8(v.p.type)) v.v.type = pick(rng, {DType::kE4M3, DType::kE5M2});
  if (largest_v_range(v.v.type) != 0.0) {
    v.v.granularity = pick(rng, {Granularity::kTensor, Granularity::kHead, Granularity::kChannel,
                                 Granularity::kBlock});
    if (v.v.type == DType::kE2M1) v.v.granularity = Granularity::kGroup16;
    if (v.v.granularity == Granularity::kBlock) v.v.span = 64 * (1 + below(rng, 4));
    if (chance(rng, 2)) v.v.range = random_double(rng, 0.1, largest_v_range(v.v.type));
  }
  v.v.smoothing = pick(rng, {Smoothing::kNone, Smoothing::kMean});
  v.pv_accumulator.inner = pick(rng, {DType::kF32, DType::kF16, DType::kS32});
  if (chance(rng, 2)) {
    v.pv_accumulator.outer = DType::kF32;
    v.pv_accumulator.interval = 64 * (1 + below(rng, 4));
  }
}

void randomize_score_and_mask(Rng& rng, Variant& v) {
  if (chance(rng, 2)) v.score.scale = random_double(rng, -1.0, 1.0);
  if (chance(rng, 2)) v.score.softcap = random_double(rng, 1.0, 100.0);
  v.score.alibi = chance(rng, 2);
  v.score.sinks = chance(rng, 2);
  if (chance(rng, 2)) v.score.expression = {random_expression(rng, false)};
  if (v.score.expression.canonical_text == "s") v.score.expression = {};
  v.mask.kind = static_cast<MaskKind>(below(rng, static_cast<int>(MaskKind::kExpression) + 1));
  if (v.mask.kind == MaskKind::kWindow) {
    v.mask.window_left = below(rng, 1 << 30);
    v.mask.window_right = below(rng, 2);
  }
  if (v.mask.kind == MaskKind::kExpression) v.mask.expression = {random_expression(rng, true)};
}

Variant random_attempt(Rng& rng) {
  Variant v;
  v.name = pick<std::string>(rng, {"a", "with blanks", "a[head_dim=64, mask=none]", "q\"uo\\te"});
  v.head_dim = 8 * (2 + below(rng, 31));
  if (chance(rng, 4)) v.head_dim = pick(rng, {16, 32, 64, 128, 256});
  v.value_head_dim = chance(rng, 2) ? v.head_dim : 8 * (2 + below(rng, 31));
  v.input = pick(rng, {DType::kF16, DType::kBF16, DType::kF32});
  v.output = pick(rng, {DType::kF16, DType::kBF16, DType::kF32});
  v.lse = chance(rng, 2);
  randomize_products(rng, v);
  randomize_score_and_mask(rng, v);
  if (chance(rng, 2)) v.smooth_q = Smoothing::kMean, v.smooth_q_span = 1 + below(rng, 256);
  v.smooth_k = pick(rng, {Smoothing::kNone, Smoothing::kMean});
  v.hadamard = (v.head_dim & (v.head_dim - 1)) == 0 && chance(rng, 2);
  v.row_sum = pick(rng, {RowSum::kExact, RowSum::kQuantized});
  if (chance(rng, 2)) v.rescale_threshold = random_double(rng, 0.0, 8.0);
  if (chance(rng, 2)) v.exp2_polynomial_share = random_double(rng, 0.0, 1.0);
  v.structure.kind = static_cast<StructureKind>(below(rng, 5));
  switch (v.structure.kind) {
    case StructureKind::kPaged:
    case StructureKind::kBlockSparse:
      v.structure.parameter = 16 * (1 + below(rng, 8));
      break;
    case StructureKind::kSplitKv:
      v.structure.parameter = 2 + below(rng, 64);
      break;
    default:
      break;
  }
  return v;
}

}  // namespace

std::string random_expression(Rng& rng, bool is_condition) {
  const std::string raw = is_condition ? raw_condition(rng, 3) : raw_number(rng, true, 3);
  return dsl::print(*dsl::parse_canonical(raw, is_condition));
}

Variant random_variant(Rng& rng) {
  for (;;) {
    Variant v = random_attempt(rng);
    if (find_contradictions(v).empty()) return v;
  }
}

}  // namespace sagejit
