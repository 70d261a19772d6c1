#include "compiler/sema/formulas.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "compiler/sema/keys.h"

namespace sagejit {
namespace {

std::string printed(std::string_view key, const Variant& v) {
  return find_key(key)->print(v);
}

std::string scope_of(Granularity granularity, int span, std::string_view tokens) {
  switch (granularity) {
    case Granularity::kTensor:
      return "one for the whole tensor";
    case Granularity::kHead:
      return "one for each (batch, head)";
    case Granularity::kBlock:
    case Granularity::kWarp:
      return fmt::format("one for every {} {}", span, tokens);
    case Granularity::kThread:
      return fmt::format("{} for every {} {}", tokens == "queries" ? 8 : 4, span, tokens);
    case Granularity::kToken:
      return "one for each token";
    case Granularity::kChannel:
      return "one for each channel of a (batch, head)";
    case Granularity::kGroup16:
      return "one for 16 consecutive elements, itself in e4m3";
  }
  return "";
}

// Of one operand: code and scale of an element x.
std::vector<std::string> code_lines(DType type, double range, std::string_view x,
                                    std::string_view scope) {
  const std::string scale =
      fmt::format("scale = amax / {}, {}; amax = max |{}| over its elements", range, scope, x);
  switch (type) {
    case DType::kS8:
    case DType::kS4:
      return {fmt::format("code = clamp(rint({} * {} / amax), -{}, {})", x, range, range, range),
              scale};
    case DType::kE2M1:
      return {fmt::format("code = e2m1({} / scale)", x),
              fmt::format("scale = e4m3(amax / {}), {}; beyond {} both saturate", range, scope,
                          range * largest_p_range(DType::kE4M3))};
    default:
      return {fmt::format("code = {}({} * {} / amax), to nearest even, saturating", name_of(type),
                          x, range),
              scale};
  }
}

double code_range(DType type) {
  switch (type) {
    case DType::kS8:
      return 127;
    case DType::kS4:
      return 7;
    case DType::kE2M1:
      return 6;
    default:
      return largest_v_range(type);
  }
}

class Formulas {
 public:
  Formulas(const Variant& variant, const Target& target) : v_(variant), target_(target) {}

  std::vector<Formula> list() {
    add_smoothing();
    add_codes("codes of Q", v_.q, q_name(), "queries");
    add_codes("codes of K", v_.k, k_name(), "keys");
    add_values();
    add_scores();
    add_softmax();
    add_probabilities();
    add_accumulators();
    add_output();
    return std::move(list_);
  }

 private:
  void add(std::string subject, std::vector<std::string> lines) {
    if (!lines.empty()) list_.push_back({std::move(subject), std::move(lines)});
  }

  bool smooths(Smoothing s) const { return s == Smoothing::kMean; }
  std::string q_name() const { return smooths(v_.smooth_q) || v_.hadamard ? "Q'" : "Q"; }
  std::string k_name() const { return smooths(v_.smooth_k) || v_.hadamard ? "K'" : "K"; }
  std::string v_name() const { return smooths(v_.v.smoothing) ? "V'" : "V"; }
  bool scales_values() const { return bits_of(v_.v.type) < 16; }

  void add_smoothing() {
    std::vector<std::string> lines;
    if (smooths(v_.smooth_k))
      lines.push_back(
          "K' = K - kmean, kmean[d] = mean of K over the n tokens of a (batch, head), f32");
    if (smooths(v_.smooth_q)) {
      lines.push_back(fmt::format("Q' = Q - qmean, qmean[d] = mean of Q over every {} queries, f32",
                                  v_.smooth_q_span));
    }
    if (v_.hadamard) {
      lines.push_back(fmt::format(
          "Q' and K' times H / sqrt({}), H the Hadamard matrix of that size", v_.head_dim));
    }
    if (smooths(v_.v.smoothing))
      lines.push_back(
          "V' = V - vmean, vmean[dv] = mean of V over the n tokens of a (batch, head), f32");
    add("smoothing", lines);
  }

  void add_codes(const char* subject, const Quantization& o, const std::string& x,
                 std::string_view tokens) {
    add(subject,
        code_lines(o.type, code_range(o.type), x, scope_of(o.granularity, o.span, tokens)));
  }

  void add_values() {
    if (!scales_values())
      return add("V", {fmt::format("V rounded to {}, unscaled", name_of(v_.v.type))});
    const double range = v_.v.range != 0 ? v_.v.range : code_range(v_.v.type);
    add("codes of V",
        code_lines(v_.v.type, range, v_name(), scope_of(v_.v.granularity, v_.v.span, "keys")));
  }

  void add_scores() {
    const double scale = score_scale(v_);
    // Scales of groups along the sum are part of the products.
    const bool grouped = v_.q.type == DType::kE2M1;
    std::vector<std::string> lines = {
        fmt::format("s[i, j] = sum over d of {}, in {}{}",
                    grouped ? "(scale_q Qhat)[i, d] (scale_k Khat)[j, d]" : "Qhat[i, d] Khat[j, d]",
                    name_of(v_.qk_accumulator), v_.qk_accumulator == DType::kS32 ? ", exact" : "")};
    if (is_fp8(v_.q.type)) add_short_sums(lines);
    // Of K as it was before a rotation.
    const std::string correction =
        smooths(v_.smooth_q) ? fmt::format(" + {:.9g} qmean . {}", scale * std::numbers::log2e,
                                           smooths(v_.smooth_k) ? "(K[j] - kmean)" : "K[j]")
                             : "";
    lines.push_back(fmt::format("t[i, j] = s[i, j]{} {:.9g}{}    (scale {:.9g} times log2 e)",
                                grouped ? "" : " scale_q[i] scale_k[j]",
                                scale * std::numbers::log2e, correction, scale));
    if (v_.score.softcap)
      lines.push_back(
          fmt::format("capped: t = c tanh(t / c), c = {:.9g} log2 e", *v_.score.softcap));
    if (v_.score.alibi) lines.push_back("plus log2 e times slope[h] (j - i), ALiBi");
    if (!v_.score.expression.canonical_text.empty() && printed("score", v_) != "s") {
      lines.push_back("with s the score: " + printed("score", v_));
    }
    lines.push_back(mask_line());
    add("scores", lines);
  }

  std::string mask_line() const {
    switch (v_.mask.kind) {
      case MaskKind::kNone:
        return "every key j < n is visible";
      case MaskKind::kCausalTopLeft:
        return "key j is visible to row i iff j <= i";
      case MaskKind::kCausalBottomRight:
        return "key j is visible to row i iff j <= i + (n - m)";
      case MaskKind::kWindow:
        return fmt::format(
            "key j is visible to row i iff i + (n - m) - {} <= j <= i + (n - m) + {}",
            v_.mask.window_left, v_.mask.window_right);
      default:
        return "visible keys: " + printed("mask", v_);
    }
  }

  void add_softmax() {
    std::vector<std::string> lines;
    if (v_.rescale_threshold > 0) {
      const double t = v_.rescale_threshold;
      lines.push_back(
          fmt::format("x = max over the tile's j of t[j];  m' = x > m + {} ? x : m", t));
      lines.push_back(
          fmt::format("alpha = 2^(m - m'), 1 in most tiles;  p[j] = 2^(t[j] - m') <= 2^{}", t));
    } else {
      lines.push_back("m' = max(m, max over the tile's j of t[j])");
      lines.push_back("alpha = 2^(m - m');  p[j] = 2^(t[j] - m')");
    }
    if (v_.p.direct_code) {
      lines.back() =
          lines.back().substr(0, lines.back().find(';')) + ";  no exponential of t: see P";
    } else if (v_.exp2_polynomial_share > 0) {
      lines.push_back(fmt::format("2^x by a polynomial for {:.9g} of the elements, else ex2.approx",
                                  v_.exp2_polynomial_share));
    } else {
      lines.push_back("2^x is ex2.approx.ftz: relative error 2^-22");
    }
    if (v_.score.sinks) lines.push_back("a row's sink logit takes part in m and in l, not in O");
    add("softmax", lines);
  }

  void add_probabilities() {
    const double range = v_.p.range;
    if (v_.p.direct_code) {
      const double offset = 8 * (1 / std::numbers::ln2 - 1.5);
      return add("P", {fmt::format("u[j] = t[j] - m' + {:.9g}    (log2 of the range, {:.9g})",
                                   std::log2(range), range),
                       fmt::format("code[j] = max(0, rint(8 (u[j] + 7) {} {:.4f})), the e4m3 "
                                   "number of that code is P[j]",
                                   offset < 0 ? "-" : "+", std::abs(offset))});
    }
    if (v_.p.type == DType::kE2M1) {
      return add(
          "P",
          {fmt::format(
              "Pt[j] = {:.9g} p[j];  scale = e4m3(max of 16 keys / 6);  P[j] = e2m1(Pt[j] / scale)",
              range)});
    }
    if (bits_of(v_.p.type) == 16)
      return add("P", {fmt::format("P[j] = {}(p[j])", name_of(v_.p.type))});
    const bool is_integer = v_.p.type == DType::kS8 || v_.p.type == DType::kU8;
    add("P", {fmt::format("P[j] = {}({:.9g} p[j]), {}", is_integer ? "rint" : name_of(v_.p.type),
                          range, "to nearest even, saturating")});
  }

  // specs/numerics.md, 4.2.
  void add_short_sums(std::vector<std::string>& lines) const {
    if (target_.sm != 90) return;
    lines.push_back(
        "products of 8-bit floats on this target: aligned to the largest, cut off 13 bits behind "
        "its point");
  }

  void add_accumulators() {
    const Accumulator& a = v_.pv_accumulator;
    std::vector<std::string> lines;
    const std::string products = v_.v.type == DType::kE2M1
                                     ? "(scale P)[j] (scale_v Vhat)[j]"
                                     : fmt::format("P[j] {}[j]", scales_values() ? "Vhat" : "V");
    if (a.outer) {
      lines.push_back(fmt::format("part = sum of {} over {} keys, in {}, from 0", products,
                                  a.interval, name_of(a.inner)));
      lines.push_back(fmt::format("acc = alpha acc + part, in {}", name_of(*a.outer)));
    } else {
      lines.push_back(
          fmt::format("acc = alpha acc + sum of {}, in {}", products, name_of(a.inner)));
    }
    if (is_fp8(v_.p.type) && a.inner == DType::kF32) add_short_sums(lines);
    lines.push_back(
        v_.row_sum == RowSum::kExact
            ? "l = alpha l + sum of p[j], in f32, before p is rounded"
            : "l = alpha l + sum of P[j] / range, by the tensor cores, as P is multiplied");
    add("sums", lines);
  }

  void add_output() {
    const bool scaled = scales_values() && v_.v.type != DType::kE2M1;
    std::string o = "O[i] = acc";
    if (v_.p.range != 1) {
      o += fmt::format(" / ({:.9g} l)", v_.p.range);
    } else {
      o += " / l";
    }
    if (scaled) o += " scale_v";
    if (smooths(v_.v.smoothing)) o += " + vmean";
    std::vector<std::string> lines = {
        o + fmt::format(", as {};  0 where row i sees no key", name_of(v_.output))};
    if (v_.lse) {
      const double scale = score_scale(v_);
      const std::string mean =
          smooths(v_.smooth_k) ? fmt::format(" + {:.9g} (Q[i] . kmean)", scale) : "";
      lines.push_back(fmt::format(
          "LSE[i] = ln 2 (m + log2 l){}, natural logarithm, f32;  -inf where row i sees no key",
          mean));
    }
    add("output", lines);
  }

  const Variant& v_;
  const Target& target_;
  std::vector<Formula> list_;
};

}  // namespace

std::vector<Formula> formulas_of(const Variant& variant, const Target& target) {
  return Formulas(variant, target).list();
}

}  // namespace sagejit
