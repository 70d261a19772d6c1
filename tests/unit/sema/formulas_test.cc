#include "compiler/sema/formulas.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "compiler/sema/resolve.h"
#include "tests/support/catch.h"

namespace sagejit {
namespace {

std::string text_of(std::string_view entries, std::string_view target = "sm_90a") {
  const Variant variant = resolve_variants("v.attn", fmt::format("v {{ {} }}", entries)).at(0);
  std::string text;
  for (const Formula& formula : formulas_of(variant, find_target(target))) {
    REQUIRE_FALSE(formula.lines.empty());
    text += fmt::format("{}: {}\n", formula.subject, fmt::join(formula.lines, "\n  "));
  }
  return text;
}

TEST_CASE("SageAttention 1, as the paper has it") {
  CHECK(
      text_of("head_dim = 64; q = int8 per block(128); k = int8 per block(64); smooth_k = mean; "
              "pv_accumulator = f16 + f32 every 64; lse = on",
              "sm_80") ==
      "smoothing: K' = K - kmean, kmean[d] = mean of K over the n tokens of a (batch, head), f32\n"
      "codes of Q: code = clamp(rint(Q * 127 / amax), -127, 127)\n"
      "  scale = amax / 127, one for every 128 queries; amax = max |Q| over its elements\n"
      "codes of K: code = clamp(rint(K' * 127 / amax), -127, 127)\n"
      "  scale = amax / 127, one for every 64 keys; amax = max |K'| over its elements\n"
      "V: V rounded to f16, unscaled\n"
      "scores: s[i, j] = sum over d of Qhat[i, d] Khat[j, d], in s32, exact\n"
      "  t[i, j] = s[i, j] scale_q[i] scale_k[j] 0.18033688    (scale 0.125 times log2 e)\n"
      "  every key j < n is visible\n"
      "softmax: m' = max(m, max over the tile's j of t[j])\n"
      "  alpha = 2^(m - m');  p[j] = 2^(t[j] - m')\n"
      "  2^x is ex2.approx.ftz: relative error 2^-22\n"
      "P: P[j] = f16(p[j])\n"
      "sums: part = sum of P[j] V[j] over 64 keys, in f16, from 0\n"
      "  acc = alpha acc + part, in f32\n"
      "  l = alpha l + sum of p[j], in f32, before p is rounded\n"
      "output: O[i] = acc / l, as f16;  0 where row i sees no key\n"
      "  LSE[i] = ln 2 (m + log2 l) + 0.125 (Q[i] . kmean), natural logarithm, f32;  -inf where "
      "row i sees no key\n");
}

TEST_CASE("each choice of the language shows in the formulas") {
  struct Case {
    const char* entries;
    const char* line;
  };
  const Case cases[] = {
      {"q = int4 per thread; k = int4 per thread", "clamp(rint(Q * 7 / amax), -7, 7)"},
      {"q = fp4; k = fp4", "code = e2m1(Q / scale)"},
      {"q = fp4; k = fp4",
       "s[i, j] = sum over d of (scale_q Qhat)[i, d] (scale_k Khat)[j, d], in f32"},
      {"q = fp4; k = fp4", "t[i, j] = s[i, j] 0.18033688    (scale"},
      {"q = fp4; v = fp4", "Pt[j] = 2688 p[j];  scale = e4m3(max of 16 keys / 6)"},
      {"q = fp4; v = fp4", "acc = alpha acc + sum of (scale P)[j] (scale_v Vhat)[j], in f32"},
      {"q = fp4; v = fp4", "O[i] = acc / (2688 l), as f16"},
      {"q = e4m3; k = e4m3", "code = e4m3(Q * 448 / amax), to nearest even"},
      {"smooth_q = mean per block(64)",
       "Q' = Q - qmean, qmean[d] = mean of Q over every 64 queries"},
      {"smooth_q = mean per block(64)", "0.18033688 qmean . K[j]"},
      {"smooth_q = mean per block(64); smooth_k = mean; hadamard = on",
       "0.18033688 qmean . (K[j] - kmean)"},
      {"hadamard = on", "times H / sqrt(64)"},
      {"softcap = 30", "t = c tanh(t / c), c = 30 log2 e"},
      {"alibi = on", "slope[h]"},
      {"sinks = on", "sink logit"},
      {"mask = causal(bottom_right)", "iff j <= i + (n - m)"},
      {"mask = window(10, 3)", "i + (n - m) - 10 <= j <= i + (n - m) + 3"},
      {"mask = k <= q", "visible keys: "},
      {"scale = 0.5", "0.72134752    (scale 0.5 times log2 e)"},
      {"p = e4m3 range 448; v = e4m3 per channel range 2.25", "code = e4m3(V * 2.25 / amax)"},
      {"p = e4m3 range 448; v = e4m3 per channel", "P[j] = e4m3(448 p[j])"},
      {"p = e4m3 range 448; v = e4m3 per channel", "O[i] = acc / (448 l) scale_v, as f16"},
      {"p = e4m3; v = e4m3; pv_accumulator = f32", "cut off 13 bits"},
      {"p = e4m3 range 16 direct; row_sum = quantized; pv_accumulator = f32",
       "code[j] = max(0, rint(8 (u[j] + 7) - 0.4584))"},
      {"p = e4m3 range 16; v = e4m3; rescale_threshold = 4", "m' = x > m + 4 ? x : m"},
      {"row_sum = quantized", "by the tensor cores, as P is multiplied"},
      {"exp2_polynomial = 0.25", "by a polynomial for 0.25 of the elements"},
      {"p = e4m3; v = e4m3; smooth_v = mean", "+ vmean"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.entries);
    CHECK_THAT(text_of(fmt::format("head_dim = 64; {}", c.entries)), Catch::Contains(c.line));
  }
  CHECK_THAT(text_of("head_dim = 64; p = e4m3; v = e4m3; pv_accumulator = f32", "sm_120"),
             !Catch::Contains("13 bits"));
}

}  // namespace
}  // namespace sagejit
