// f16 and bf16 arithmetic, one value or two packed in a word. Each operation is exact (or rounded to odd) in
// double and rounded once.
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

struct F16 {
  using Bits = FormatF16;
  static double load(uint16_t h) { return f16_to_f32(h); }
};
struct BF16 {
  using Bits = FormatBF16;
  static double load(uint16_t h) { return bf16_to_f32(h); }
};

enum HalfFlags : uint32_t { kFtz = 1, kSat = 2, kRelu = 4, kNan = 8 };

template <class F>
uint16_t flush_half(uint16_t h) {
  return (h & F::Bits::kInfinity) == 0 ? h & F::Bits::kSign : h;
}

template <class F>
bool is_nan(uint16_t h) {
  return static_cast<uint16_t>(h & 0x7fff) > F::Bits::kInfinity;
}

struct AddH {
  double operator()(double a, double b) const { return sum_odd(a, b); }
};
struct SubH {
  double operator()(double a, double b) const { return sum_odd(a, -b); }
};
struct MulH {
  double operator()(double a, double b) const { return a * b; }
};
struct FmaH {
  double operator()(double a, double b, double c) const { return fma_odd(a, b, c); }
};
struct Ex2H {
  double operator()(double a) const { return exp2_model(a); }
};
struct TanhH {
  double operator()(double a) const { return std::tanh(a); }
};

template <class F, class Op>
struct Arithmetic {
  template <class... H>
  static uint16_t apply(uint32_t flags, H... x) {
    const bool ftz = (flags & kFtz) != 0;
    uint16_t r = F::Bits::round(Op{}(F::load(ftz ? flush_half<F>(x) : x)...), Round::kNearest, kNanHalf);
    if (ftz) r = flush_half<F>(r);
    if ((flags & kSat) != 0) {
      const double v = F::load(r);
      if (is_nan<F>(r) || v <= 0) return 0;
      if (v > 1) return F::Bits::round(1.0, Round::kNearest, kNanHalf);
    }
    if ((flags & kRelu) != 0 && !is_nan<F>(r) && (r & F::Bits::kSign) != 0) return 0;
    return r;
  }
};

template <class F, bool kMax>
struct Extreme {
  static uint16_t apply(uint32_t flags, uint16_t a, uint16_t b) {
    if ((flags & kFtz) != 0) {
      a = flush_half<F>(a);
      b = flush_half<F>(b);
    }
    if (is_nan<F>(a) || is_nan<F>(b)) {
      if ((flags & kNan) != 0 || (is_nan<F>(a) && is_nan<F>(b))) return kNanHalf;
      return is_nan<F>(a) ? b : a;
    }
    // Sign-magnitude to two's complement order, which also puts -0 below +0.
    const auto key = [](uint16_t h) { return (h & 0x8000) != 0 ? -1 - (h & 0x7fff) : static_cast<int>(h); };
    return (key(a) > key(b)) == kMax ? a : b;
  }
};

template <bool kAbs>
struct SignH {
  static uint16_t apply(uint32_t, uint16_t a) { return static_cast<uint16_t>(kAbs ? a & 0x7fff : a ^ 0x8000); }
};

// Fn::apply on a half, or on both halves of a word.
template <class T, class Fn, class... S>
void map_halves(Warp& w, const Instr& in) {
  w.require_sources(in);
  T* d = w.dst<T>(in.op[0]);
  [&]<size_t... I>(std::index_sequence<I...>) {
    const auto sources = std::make_tuple(w.src<S>(in.op[1 + I])...);
    for_lanes(w.mask, [&](unsigned l) {
      T out = 0;
      for (unsigned shift = 0; shift < 8 * sizeof(T); shift += 16) {
        const uint16_t r = Fn::apply(in.aux, static_cast<uint16_t>(std::get<I>(sources)[l] >> shift)...);
        out = static_cast<T>(out | static_cast<T>(r) << shift);
      }
      d[l] = out;
    });
  }(std::index_sequence_for<S...>{});
  w.defined[in.op[0].defined] |= w.mask;
}

template <int kSources, class Fn>
ExecFn half_body(bool packed) {
  const auto choose = [&]<size_t... I>(std::index_sequence<I...>) -> ExecFn {
    return packed ? map_halves<uint32_t, Fn, std::enable_if_t<(I >= 0), uint32_t>...>
                  : map_halves<uint16_t, Fn, std::enable_if_t<(I >= 0), uint16_t>...>;
  };
  return choose(std::make_index_sequence<kSources>{});
}

void set_flags(const Match& m, Instr& in) {
  in.aux = (m.has("ftz") ? kFtz : 0u) | (m.has("sat") ? kSat : 0u) | (m.has("relu") ? kRelu : 0u) |
           (m.has("NaN") ? kNan : 0u);
}
bool is_brain(Type t) { return t == Type::kBF16 || t == Type::kBF16x2; }

template <int kSources, class Op>
void bind_half(const Match& m, Instr& in) {
  set_flags(m, in);
  const bool packed = info(m.type(0)).bytes == 4;
  in.exec = is_brain(m.type(0)) ? half_body<kSources, Arithmetic<BF16, Op>>(packed)
                                : half_body<kSources, Arithmetic<F16, Op>>(packed);
}
template <bool kMax>
void bind_extreme(const Match& m, Instr& in) {
  set_flags(m, in);
  const bool packed = info(m.type(0)).bytes == 4;
  in.exec = is_brain(m.type(0)) ? half_body<2, Extreme<BF16, kMax>>(packed)
                                : half_body<2, Extreme<F16, kMax>>(packed);
}
template <bool kAbs>
void bind_sign(const Match& m, Instr& in) {
  in.exec = half_body<1, SignH<kAbs>>(info(m.type(0)).bytes == 4);
}

constexpr Row kRows[] = {
    {"add.rn?.ftz?.sat?.f16|f16x2", "d:0 s:0 s:0", bind_half<2, AddH>},
    {"sub.rn?.ftz?.sat?.f16|f16x2", "d:0 s:0 s:0", bind_half<2, SubH>},
    {"mul.rn?.ftz?.sat?.f16|f16x2", "d:0 s:0 s:0", bind_half<2, MulH>},
    {"add.rn?.bf16|bf16x2", "d:0 s:0 s:0", bind_half<2, AddH>},
    {"sub.rn?.bf16|bf16x2", "d:0 s:0 s:0", bind_half<2, SubH>},
    {"mul.rn?.bf16|bf16x2", "d:0 s:0 s:0", bind_half<2, MulH>},
    {"fma.rn.ftz?.sat|relu?.f16|f16x2", "d:0 s:0 s:0 s:0", bind_half<3, FmaH>},
    {"fma.rn.relu?.bf16|bf16x2", "d:0 s:0 s:0 s:0", bind_half<3, FmaH>},
    {"min.ftz?.NaN?.$half", "d:0 s:0 s:0", bind_extreme<false>},
    {"max.ftz?.NaN?.$half", "d:0 s:0 s:0", bind_extreme<true>},
    {"neg.$half", "d:0 s:0", bind_sign<false>},
    {"abs.$half", "d:0 s:0", bind_sign<true>},
    {"ex2.approx.ftz?.$half", "d:0 s:0", bind_half<1, Ex2H>},
    {"tanh.approx.$half", "d:0 s:0", bind_half<1, TanhH>},
};

}  // namespace

std::span<const Row> half_rows() { return kRows; }

}  // namespace sagejit::emulator
