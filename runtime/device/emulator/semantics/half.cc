// f16 and bf16 arithmetic, one value or two packed in a word. Each operation is exact (or rounded
// to odd) in double and rounded once.
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

struct F16 {
  using Bits = FormatF16;
  static uint16_t round(double x) { return f32_to_f16(odd_f32(x)); }
  static double load(uint16_t h) { return f16_to_f32(h); }
};
struct BF16 {
  using Bits = FormatBF16;
  static uint16_t round(double x) { return f32_to_bf16(odd_f32(x)); }
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
  double operator()(double a) const { return exp2_model(static_cast<float>(a)); }
};
struct TanhH {
  double operator()(double a) const { return std::tanh(a); }
};

template <class F, class Op>
struct Arithmetic {
  template <class... H>
  static uint16_t apply(uint32_t flags, H... x) {
    const bool ftz = (flags & kFtz) != 0;
    uint16_t r = F::round(Op{}(F::load(ftz ? flush_half<F>(x) : x)...));
    if (ftz) r = flush_half<F>(r);
    if ((flags & kSat) != 0) {
      const double v = F::load(r);
      if (is_nan<F>(r) || v <= 0) return 0;
      if (v > 1) return F::round(1.0);
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
    const auto key = [](uint16_t h) {
      return (h & 0x8000) != 0 ? -1 - (h & 0x7fff) : static_cast<int>(h);
    };
    return (key(a) > key(b)) == kMax ? a : b;
  }
};

template <class F, bool kAbs>
struct SignH {
  static uint16_t apply(uint32_t, uint16_t a) {
    if (is_nan<F>(a)) return kNanHalf;
    return static_cast<uint16_t>(kAbs ? a & 0x7fff : a ^ 0x8000);
  }
};

// Fn::apply on a half, or on both halves of a word: a register of words is one of twice as many
// halves.
template <class T, class Fn, uint32_t kKnownFlags, class... S>
void map_halves(Warp& w, const Instr& in) {
  constexpr unsigned kHalves = sizeof(T) / 2;
  w.require_sources(in);
  uint16_t* __restrict d = w.dst<uint16_t>(in.op[0]);
  const uint32_t flags = kKnownFlags == 0 ? 0 : in.aux;
  [&]<size_t... I>(std::index_sequence<I...>) {
    const auto sources = std::make_tuple(w.src<uint16_t>(in.op[1 + I])...);
    const auto apply = [&](unsigned h) { d[h] = Fn::apply(flags, std::get<I>(sources)[h]...); };
    if (w.mask == kAllLanes) {
      SAGEJIT_LANES_INDEPENDENT
      for (unsigned h = 0; h < kHalves * kWarpLanes; ++h) apply(h);
    } else {
      for_lanes(w.mask, [&](unsigned l) {
        for (unsigned i = 0; i < kHalves; ++i) apply(kHalves * l + i);
      });
    }
  }
  (std::index_sequence_for<S...>{});
  w.defined[in.op[0].defined] |= w.mask;
}

// The body without flags is a straight loop.
template <int kSources, class Fn>
ExecFn half_body(bool packed, bool flags) {
  const auto choose = [&]<class T, size_t... I>(Tag<T>, std::index_sequence<I...>) -> ExecFn {
    return flags ? map_halves<T, Fn, 1, std::enable_if_t<(I >= 0), T>...>
                 : map_halves<T, Fn, 0, std::enable_if_t<(I >= 0), T>...>;
  };
  constexpr auto kIndices = std::make_index_sequence<kSources>{};
  return packed ? choose(Tag<uint32_t>{}, kIndices) : choose(Tag<uint16_t>{}, kIndices);
}

void set_flags(const Match& m, Instr& in) {
  in.aux = (m.has("ftz") ? kFtz : 0u) | (m.has("sat") ? kSat : 0u) | (m.has("relu") ? kRelu : 0u) |
           (m.has("NaN") ? kNan : 0u);
}
bool is_brain(Type t) {
  return t == Type::kBF16 || t == Type::kBF16x2;
}

template <int kSources, class Op>
void bind_half(const Match& m, Instr& in) {
  set_flags(m, in);
  const bool packed = info(m.type(0)).bytes == 4;
  in.exec = is_brain(m.type(0)) ? half_body<kSources, Arithmetic<BF16, Op>>(packed, in.aux != 0)
                                : half_body<kSources, Arithmetic<F16, Op>>(packed, in.aux != 0);
}
template <bool kMax>
void bind_extreme(const Match& m, Instr& in) {
  set_flags(m, in);
  const bool packed = info(m.type(0)).bytes == 4;
  in.exec = is_brain(m.type(0)) ? half_body<2, Extreme<BF16, kMax>>(packed, in.aux != 0)
                                : half_body<2, Extreme<F16, kMax>>(packed, in.aux != 0);
}
template <bool kAbs>
void bind_sign(const Match& m, Instr& in) {
  const bool packed = info(m.type(0)).bytes == 4;
  in.exec = is_brain(m.type(0)) ? half_body<1, SignH<BF16, kAbs>>(packed, false)
                                : half_body<1, SignH<F16, kAbs>>(packed, false);
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

std::span<const Row> half_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
