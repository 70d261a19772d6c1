// f32 and f64 arithmetic.
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

// Exact value of an operation as a double that rounds to f32 like the exact one. The nearest mode
// of add, sub, mul uses f32 arithmetic instead, which vectorises better and gives the same. A sum
// that is exactly 0 is -0 when rounding down, unless both terms are +0.
double sum_directed(Round mode, double a, double b) {
  const double s = sum_odd(a, b);
  return s == 0.0 && mode == Round::kDown && (std::signbit(a) || std::signbit(b)) ? -0.0 : s;
}

struct AddF {
  float nearest(float a, float b) const { return a + b; }
  double odd(Round mode, double a, double b) const { return sum_directed(mode, a, b); }
};
struct SubF {
  float nearest(float a, float b) const { return a - b; }
  double odd(Round mode, double a, double b) const { return sum_directed(mode, a, -b); }
};
struct MulF {
  float nearest(float a, float b) const { return a * b; }
  double odd(Round, double a, double b) const { return a * b; }
};
struct FmaF {
  float nearest(float a, float b, float c) const { return static_cast<float>(fma_odd(a, b, c)); }
  double odd(Round mode, double a, double b, double c) const {
    return sum_directed(mode, a * b, c);
  }
};
struct DivF {
  float nearest(float a, float b) const { return a / b; }
  double odd(Round, double a, double b) const { return div_odd(a, b); }
};
struct RcpF {
  float nearest(float a) const { return 1.0f / a; }
  double odd(Round, double a) const { return div_odd(1.0, a); }
};
struct SqrtF {
  float nearest(float a) const { return std::sqrt(a); }
  double odd(Round, double a) const { return sqrt_odd(a); }
};

enum F32Flags : uint32_t { kFtz = 1, kSat = 2, kRoundShift = 2 };

template <class Op, bool kFlush, bool kSaturate>
struct Nearest {
  template <class... F>
  float operator()(F... x) const {
    float r = canonical(Op{}.nearest((kFlush ? flush(x) : x)...));
    if (kFlush) r = flush(r);
    return kSaturate ? saturate(r) : r;
  }
};

template <class Op, class... S>
void directed(Warp& w, const Instr& in) {
  w.require_sources(in);
  const auto mode = static_cast<Round>(in.aux >> kRoundShift);
  float* d = w.dst<float>(in.op[0]);
  [&]<size_t... I>(std::index_sequence<I...>) {
    const auto sources = std::make_tuple(w.src<S>(in.op[1 + I])...);
    for_lanes(w.mask, [&](unsigned l) {
      const auto get = [&](float x) { return (in.aux & kFtz) != 0 ? flush(x) : x; };
      float r =
          round_f32(Op{}.odd(mode, static_cast<double>(get(std::get<I>(sources)[l]))...), mode);
      if ((in.aux & kFtz) != 0) r = flush(r);
      d[l] = (in.aux & kSat) != 0 ? saturate(r) : r;
    });
  }
  (std::index_sequence_for<S...>{});
  w.defined[in.op[0].defined] |= w.mask;
}

template <class Op, class... S>
void bind_f32(const Match& m, Instr& in) {
  const Round mode = rounding(m);
  in.aux = (m.has("ftz") ? kFtz : 0u) | (m.has("sat") ? kSat : 0u) |
           static_cast<uint32_t>(mode) << kRoundShift;
  static constexpr ExecFn kNearest[] = {map_lanes<float, Nearest<Op, false, false>, S...>,
                                        map_lanes<float, Nearest<Op, true, false>, S...>,
                                        map_lanes<float, Nearest<Op, false, true>, S...>,
                                        map_lanes<float, Nearest<Op, true, true>, S...>};
  in.exec = mode == Round::kNearest ? kNearest[in.aux & 3] : directed<Op, S...>;
}

// Functions computed in double and rounded once.
struct Ex2 {
  double operator()(double x) const { return exp2_model(static_cast<float>(x)); }
};
struct Lg2 {
  double operator()(double x) const { return std::log2(x); }
};
struct Rcp {
  double operator()(double x) const { return 1.0 / x; }
};
struct Rsqrt {
  double operator()(double x) const { return 1.0 / std::sqrt(x); }
};
struct SqrtD {
  double operator()(double x) const { return std::sqrt(x); }
};
struct Sin {
  double operator()(double x) const { return std::sin(x); }
};
struct Cos {
  double operator()(double x) const { return std::cos(x); }
};
struct Tanh {
  double operator()(double x) const { return std::tanh(x); }
};
template <class Fn, bool kFlush>
struct Approximate {
  template <class... F>
  float operator()(F... x) const {
    const float r =
        canonical(static_cast<float>(Fn{}(static_cast<double>(kFlush ? flush(x) : x)...)));
    return kFlush ? flush(r) : r;
  }
};
template <class Fn>
void bind_approx(const Match& m, Instr& in) {
  in.exec = m.has("ftz") ? map_lanes<float, Approximate<Fn, true>, float>
                         : map_lanes<float, Approximate<Fn, false>, float>;
}
struct Quotient {
  double operator()(double a, double b) const { return a / b; }
};
void bind_div_approx(const Match& m, Instr& in) {
  in.exec = m.has("ftz") ? map_lanes<float, Approximate<Quotient, true>, float, float>
                         : map_lanes<float, Approximate<Quotient, false>, float, float>;
}

template <bool kAbs, bool kFlush>
struct Sign {
  uint32_t operator()(uint32_t a) const {
    if ((a & 0x7fffffffu) > 0x7f800000u) return kNanF32;
    if (kFlush && (a & 0x7f800000u) == 0) a &= 0x80000000u;
    return kAbs ? a & 0x7fffffffu : a ^ 0x80000000u;
  }
};
template <bool kAbs>
void bind_sign(const Match& m, Instr& in) {
  in.exec = m.has("ftz") ? map_lanes<uint32_t, Sign<kAbs, true>, uint32_t>
                         : map_lanes<uint32_t, Sign<kAbs, false>, uint32_t>;
}
// f64 keeps a NaN's sign and payload, made quiet, in these and in arithmetic; the latter is what
// the host does.
template <bool kAbs>
struct Sign64 {
  uint64_t operator()(uint64_t a) const {
    constexpr uint64_t kTop = uint64_t{1} << 63;
    if ((a & ~kTop) > 0x7ff0000000000000u) return a | uint64_t{1} << 51;
    return kAbs ? a & ~kTop : a ^ kTop;
  }
};
struct Copysign {
  template <class T>
  T operator()(T a, T b) const {  // b's magnitude with a's sign
    constexpr T kTop = T{1} << (8 * sizeof(T) - 1);
    return (a & kTop) | (b & ~kTop);
  }
};

// min and max: a NaN loses unless .NaN; -0 is below +0.
template <bool kMax, bool kNan, class F>
F select_extreme(F a, F b) {
  if (a != a || b != b) {
    if (kNan || (a != a && b != b)) return canonical(std::numeric_limits<F>::quiet_NaN());
    return a != a ? b : a;
  }
  if (a == b) return std::signbit(a) == kMax ? b : a;
  return (a > b) == kMax ? a : b;
}
template <bool kMax, bool kNan, bool kFlush, bool kXorSign>
struct Extreme {
  float operator()(float a, float b) const {
    if (kFlush) {
      a = flush(a);
      b = flush(b);
    }
    const bool sign =
        kXorSign && (std::signbit(a) != std::signbit(b)) && (!kNan || (a == a && b == b));
    if (kXorSign) {
      a = std::abs(a);
      b = std::abs(b);
    }
    const float r = select_extreme<kMax, kNan>(a, b);
    return sign ? -r : r;
  }
};
template <bool kMax, size_t... I>
constexpr auto extreme_bodies(std::index_sequence<I...>) {
  return std::array<ExecFn, sizeof...(I)>{
      map_lanes<float, Extreme<kMax, (I & 1) != 0, (I & 2) != 0, (I & 4) != 0>, float, float>...};
}
template <bool kMax>
void bind_extreme(const Match& m, Instr& in) {
  static constexpr auto kBodies = extreme_bodies<kMax>(std::make_index_sequence<8>{});
  in.exec =
      kBodies[(m.has("NaN") ? 1u : 0u) + (m.has("ftz") ? 2u : 0u) + (m.has("xorsign") ? 4u : 0u)];
}
template <bool kMax>
struct Extreme64 {
  double operator()(double a, double b) const { return select_extreme<kMax, false>(a, b); }
};

struct Add64 {
  double operator()(double a, double b) const { return a + b; }
};
struct Sub64 {
  double operator()(double a, double b) const { return a - b; }
};
struct Mul64 {
  double operator()(double a, double b) const { return a * b; }
};
struct Fma64 {
  double operator()(double a, double b, double c) const { return std::fma(a, b, c); }
};
struct Div64 {
  double operator()(double a, double b) const { return a / b; }
};
struct Rcp64 {
  double operator()(double a) const { return 1.0 / a; }
};
struct Sqrt64 {
  double operator()(double a) const { return std::sqrt(a); }
};

constexpr std::string_view kUnary = "d:0 s:0";
constexpr std::string_view kBinary = "d:0 s:0 s:0";
constexpr std::string_view kTernary = "d:0 s:0 s:0 s:0";

constexpr Row kRows[] = {
    {"add.$round?.ftz?.sat?.f32", kBinary, bind_f32<AddF, float, float>},
    {"sub.$round?.ftz?.sat?.f32", kBinary, bind_f32<SubF, float, float>},
    {"mul.$round?.ftz?.sat?.f32", kBinary, bind_f32<MulF, float, float>},
    {"fma.$round.ftz?.sat?.f32", kTernary, bind_f32<FmaF, float, float, float>},
    {"mad.$round.ftz?.sat?.f32", kTernary, bind_f32<FmaF, float, float, float>},
    {"div.$round.ftz?.f32", kBinary, bind_f32<DivF, float, float>},
    {"div.approx|full.ftz?.f32", kBinary, bind_div_approx},
    {"rcp.$round.ftz?.f32", kUnary, bind_f32<RcpF, float>},
    {"rcp.approx.ftz?.f32", kUnary, bind_approx<Rcp>},
    {"sqrt.$round.ftz?.f32", kUnary, bind_f32<SqrtF, float>},
    {"sqrt.approx.ftz?.f32", kUnary, bind_approx<SqrtD>},
    {"rsqrt.approx.ftz?.f32", kUnary, bind_approx<Rsqrt>},
    {"ex2.approx.ftz?.f32", kUnary, bind_approx<Ex2>},
    {"lg2.approx.ftz?.f32", kUnary, bind_approx<Lg2>},
    {"sin.approx.ftz?.f32", kUnary, bind_approx<Sin>},
    {"cos.approx.ftz?.f32", kUnary, bind_approx<Cos>},
    {"tanh.approx.f32", kUnary, bind_approx<Tanh>},
    {"abs.ftz?.f32", kUnary, bind_sign<true>},
    {"neg.ftz?.f32", kUnary, bind_sign<false>},
    {"copysign.f32", kBinary, bind_fixed<uint32_t, Copysign, uint32_t, uint32_t>},
    {"min.ftz?.NaN?.f32", kBinary, bind_extreme<false>},
    {"max.ftz?.NaN?.f32", kBinary, bind_extreme<true>},
    {"min.ftz?.NaN?.xorsign.abs.f32", kBinary, bind_extreme<false>},
    {"max.ftz?.NaN?.xorsign.abs.f32", kBinary, bind_extreme<true>},
    {"add.rn?.f64", kBinary, bind_fixed<double, Add64, double, double>},
    {"sub.rn?.f64", kBinary, bind_fixed<double, Sub64, double, double>},
    {"mul.rn?.f64", kBinary, bind_fixed<double, Mul64, double, double>},
    {"fma.rn.f64", kTernary, bind_fixed<double, Fma64, double, double, double>},
    {"mad.rn.f64", kTernary, bind_fixed<double, Fma64, double, double, double>},
    {"div.rn.f64", kBinary, bind_fixed<double, Div64, double, double>},
    {"rcp.rn.f64", kUnary, bind_fixed<double, Rcp64, double>},
    {"sqrt.rn.f64", kUnary, bind_fixed<double, Sqrt64, double>},
    {"abs.f64", kUnary, bind_fixed<uint64_t, Sign64<true>, uint64_t>},
    {"neg.f64", kUnary, bind_fixed<uint64_t, Sign64<false>, uint64_t>},
    {"copysign.f64", kBinary, bind_fixed<uint64_t, Copysign, uint64_t, uint64_t>},
    {"min.f64", kBinary, bind_fixed<double, Extreme64<false>, double, double>},
    {"max.f64", kBinary, bind_fixed<double, Extreme64<true>, double, double>},
};

}  // namespace

std::span<const Row> float_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
