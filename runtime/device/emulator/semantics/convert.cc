// cvt among scalars, packed conversions, cvt.pack.
#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

enum ConvertFlags : uint32_t { kFtz = 1, kSat = 2, kRelu = 4, kIntegral = 8, kRoundShift = 4 };

template <class T>
constexpr bool kIsFloat =
    std::is_floating_point_v<T> || std::is_same_v<T, Half> || std::is_same_v<T, BHalf>;

// Value of a float source in double, exactly.
inline double widen(Half x) {
  return f16_to_f32(x.bits);
}
inline double widen(BHalf x) {
  return bf16_to_f32(x.bits);
}
inline double widen(float x) {
  return x;
}
inline double widen(double x) {
  return x;
}

inline double to_integral(double x, Round mode) {
  switch (mode) {
    case Round::kZero:
      return std::trunc(x);
    case Round::kDown:
      return std::floor(x);
    case Round::kUp:
      return std::ceil(x);
    default:
      break;
  }
  // Ties to even without the floating-point environment.
  if (!(std::abs(x) < 0x1p52)) return x;
  const double r = (std::abs(x) + 0x1p52) - 0x1p52;
  return std::copysign(r, x);
}

// Out of range saturates; NaN becomes 0, or just the top bit for 64-bit results and f64 sources, as
// on the device.
template <class D, class S>
D float_to_int(S source, uint32_t flags) {
  double x = widen(source);
  if (std::is_same_v<S, float> && (flags & kFtz) != 0) x = flush(static_cast<float>(x));
  if (x != x) {
    const bool indefinite = sizeof(D) == 8 || std::is_same_v<S, double>;
    return indefinite ? static_cast<D>(std::make_unsigned_t<D>{1} << (8 * sizeof(D) - 1)) : D{0};
  }
  x = to_integral(x, static_cast<Round>(flags >> kRoundShift));
  constexpr double kLow = static_cast<double>(std::numeric_limits<D>::min());
  const double end = std::ldexp(1.0, std::numeric_limits<D>::digits);  // first value too large
  if (x < kLow) return std::numeric_limits<D>::min();
  return x >= end ? std::numeric_limits<D>::max() : static_cast<D>(x);
}

// A double that is exact or rounded to odd, to D.
template <class D>
D narrow(double x, uint32_t flags) {
  const auto mode = static_cast<Round>(flags >> kRoundShift);
  if constexpr (std::is_same_v<D, double>) {
    return x;
  } else if constexpr (std::is_same_v<D, float>) {
    const float r = round_f32(x, mode);
    return (flags & kFtz) != 0 ? flush(r) : r;
  } else if constexpr (std::is_same_v<D, Half>) {
    return {FormatF16::round(x, mode, kNanHalf)};
  } else {
    return {FormatBF16::round(x, mode, kNanHalf)};
  }
}

template <class D>
D cut_nan(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x) | uint64_t{1} << 51;
  const auto cut = [&](int exponent_bits, int mantissa_bits) {
    const uint64_t exponent = ((uint64_t{1} << exponent_bits) - 1) << mantissa_bits;
    const uint64_t payload = bits << 12 >> (64 - mantissa_bits);
    return (bits >> 63) << (exponent_bits + mantissa_bits) | exponent | payload;
  };
  if constexpr (std::is_same_v<D, float>)
    return std::bit_cast<float>(static_cast<uint32_t>(cut(8, 23)));
  if constexpr (std::is_same_v<D, Half>) return {static_cast<uint16_t>(cut(5, 10))};
  if constexpr (std::is_same_v<D, BHalf>) return {static_cast<uint16_t>(cut(8, 7))};
}

template <class D, class S>
D float_to_float(S source, uint32_t flags) {
  // NaNs that pass unchanged, or with their payload cut off.
  if constexpr (std::is_same_v<D, float> && std::is_same_v<S, BHalf>)
    return bf16_to_f32(source.bits);
  if constexpr (std::is_same_v<D, S>) {
    if (flags == 0) return source;
  }
  double x = widen(source);
  if constexpr (std::is_same_v<S, double> && !std::is_same_v<D, double>) {
    if (x != x) return cut_nan<D>(x);
  }
  if (std::is_same_v<S, float> && (flags & kFtz) != 0) x = flush(static_cast<float>(x));
  if ((flags & kIntegral) != 0) x = to_integral(x, static_cast<Round>(flags >> kRoundShift));
  if ((flags & kSat) != 0) x = x > 0.0 ? (x < 1.0 ? x : 1.0) : 0.0;
  if ((flags & kRelu) != 0 && x <= 0.0) x = 0.0;
  return narrow<D>(x, flags);
}

template <class D, class S>
D int_to_float(S source, uint32_t flags) {
  double x = static_cast<double>(source);
  if constexpr (sizeof(S) == 8) {
    const auto rest = static_cast<__int128>(source) - static_cast<__int128>(x);
    if constexpr (std::is_same_v<D, double>) {
      const auto mode = static_cast<Round>(flags >> kRoundShift);
      const bool down = mode == Round::kDown || (mode == Round::kZero && x > 0);
      const bool up = mode == Round::kUp || (mode == Round::kZero && x < 0);
      if (down && rest < 0) return std::nextafter(x, -HUGE_VAL);
      return up && rest > 0 ? std::nextafter(x, HUGE_VAL) : x;
    }
    x = to_odd(x, static_cast<double>(rest));
  }
  if ((flags & kSat) != 0) x = x > 0.0 ? (x < 1.0 ? x : 1.0) : 0.0;
  return narrow<D>(x, flags);
}

template <class D, class S>
D int_to_int(S source, uint32_t flags) {
  if ((flags & kSat) != 0) {
    if (std::cmp_less(source, std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
    if (std::cmp_greater(source, std::numeric_limits<D>::max()))
      return std::numeric_limits<D>::max();
  }
  return static_cast<D>(source);
}

template <class D, class S>
D convert(S source, uint32_t flags) {
  if constexpr (kIsFloat<S> && kIsFloat<D>) {
    return float_to_float<D>(source, flags);
  } else if constexpr (kIsFloat<S>) {
    return float_to_int<D>(source, flags);
  } else if constexpr (kIsFloat<D>) {
    return int_to_float<D>(source, flags);
  } else {
    return int_to_int<D>(source, flags);
  }
}

// Integers only move bits, so an undefined source makes an undefined result; floats are computed
// with.
template <class D, class S>
void exec_cvt(Warp& w, const Instr& in) {
  const uint32_t defined = w.defined_lanes(in.op[1]);
  if (kIsFloat<D> || kIsFloat<S>) w.require_sources(in);
  S source[kWarpLanes] = {};
  D result[kWarpLanes];
  read_lanes(w, in.op[1], source);
  for_lanes(w.mask, [&](unsigned l) { result[l] = convert<D>(source[l], in.aux); });
  write_lanes(w, in.op[0], result);
  w.set_defined(in.op[0], defined);
}

// The exact and the common: s32 to f32 in one vector instruction.
void exec_cvt_f32_s32(Warp& w, const Instr& in) {
  w.require_sources(in);
  const int32_t* s = w.src<int32_t>(in.op[1]);
  float* d = w.dst<float>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = static_cast<float>(s[l]); });
  w.defined[in.op[0].defined] |= w.mask;
}

template <uint16_t (*kRound)(float)>
struct Nearest {
  uint16_t operator()(float x) const { return kRound(x); }
};

uint32_t convert_flags(const Match& m) {
  const bool integral = m.has("rni") || m.has("rzi") || m.has("rmi") || m.has("rpi");
  return (m.has("ftz") ? kFtz : 0u) | (m.has("sat") ? kSat : 0u) | (m.has("relu") ? kRelu : 0u) |
         (integral ? kIntegral : 0u) | static_cast<uint32_t>(rounding(m)) << kRoundShift;
}

bool is_real(Type t) {
  return info(t).is_float;
}

// Which modifiers PTX demands or forbids for a pair of types.
bool valid_modifiers(const Match& m, Type d, Type s) {
  const bool integral = m.has("rni") || m.has("rzi") || m.has("rmi") || m.has("rpi");
  const bool real_rounding = m.has("rn") || m.has("rz") || m.has("rm") || m.has("rp");
  if (is_real(d) && is_real(s)) {
    const bool narrows = info(d).bytes < info(s).bytes || (info(d).bytes == 2 && d != s);
    return d == s || narrows ? !(narrows && !real_rounding) && !(d == s && real_rounding)
                             : !integral && !real_rounding;
  }
  if (is_real(s)) return integral && !real_rounding;
  if (is_real(d)) return real_rounding && !integral;
  return !integral && !real_rounding && !m.has("ftz");
}

void bind_cvt(const Match& m, Instr& in) {
  const Type d = m.type(0);
  const Type s = m.type(1);
  if (!valid_modifiers(m, d, s)) return;
  in.aux = convert_flags(m);
  const bool plain = in.aux == 0 && m.operands[0].bytes == 4 && m.operands[1].bytes == 4;
  const bool single = in.aux == 0 && s == Type::kF32;
  if (single && d == Type::kF16 && m.operands[0].bytes == 2) {
    in.exec = map_lanes<uint16_t, Nearest<f32_to_f16>, float>;
    return;
  }
  if (d == Type::kF32 && s == Type::kS32 && plain) {
    in.exec = exec_cvt_f32_s32;
    return;
  }
  with_scalar(d, [&]<class D>(Tag<D>) {
    with_scalar(s, [&]<class S>(Tag<S>) { in.exec = exec_cvt<D, S>; });
  });
}

// cvt.rn.f16x2.f32 d, a, b: a becomes the high half.
template <class D>
void exec_cvt_x2(Warp& w, const Instr& in) {
  w.require_sources(in);
  const float* a = w.src<float>(in.op[1]);
  const float* b = w.src<float>(in.op[2]);
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) {
    d[l] = float_to_float<D>(b[l], in.aux).bits |
           static_cast<uint32_t>(float_to_float<D>(a[l], in.aux).bits) << 16;
  });
  w.defined[in.op[0].defined] |= w.mask;
}
template <uint16_t (*kRound)(float)>
void exec_cvt_x2_nearest(Warp& w, const Instr& in) {
  w.require_sources(in);
  const float* a = w.src<float>(in.op[1]);
  const float* b = w.src<float>(in.op[2]);
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  for_lanes(w.mask,
            [&](unsigned l) { d[l] = kRound(b[l]) | static_cast<uint32_t>(kRound(a[l])) << 16; });
  w.defined[in.op[0].defined] |= w.mask;
}
void bind_cvt_x2(const Match& m, Instr& in) {
  in.aux = convert_flags(m);
  if (in.aux == 0) {
    in.exec = m.type(0) == Type::kF16x2 ? exec_cvt_x2_nearest<f32_to_f16>
                                        : exec_cvt_x2_nearest<f32_to_bf16>;
    return;
  }
  in.exec = m.type(0) == Type::kF16x2 ? exec_cvt_x2<Half> : exec_cvt_x2<BHalf>;
}

// tf32: 10 mantissa bits, ties away from zero.
struct ToTf32 {
  uint32_t operator()(uint32_t a) const {
    if ((a & 0x7f800000u) == 0x7f800000u) return a & ~0x1fffu;
    return (a + 0x1000u) & ~0x1fffu;
  }
};

int64_t clamp_to(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : (x > high ? high : x);
}

// cvt.pack.sat: a and b saturated to `aux & 0xff` bits, a above b; with c, that shifted up behind
// them.
void exec_pack(Warp& w, const Instr& in) {
  w.require_sources(in);
  const uint32_t bits = in.aux & 0xff;
  const bool to_signed = (in.aux & 0x100) != 0;
  const bool from_signed = (in.aux & 0x200) != 0;
  const int64_t low = to_signed ? -(int64_t{1} << (bits - 1)) : 0;
  const int64_t high = (int64_t{1} << (to_signed ? bits - 1 : bits)) - 1;
  const uint32_t field = bits == 32 ? ~0u : (1u << bits) - 1;
  const uint32_t* a = w.src<uint32_t>(in.op[1]);
  const uint32_t* b = w.src<uint32_t>(in.op[2]);
  const uint32_t* c = in.num_ops == 4 ? w.src<uint32_t>(in.op[3]) : nullptr;
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  const auto clamp = [&](uint32_t x) {
    const int64_t value = from_signed ? int64_t{static_cast<int32_t>(x)} : int64_t{x};
    return static_cast<uint32_t>(clamp_to(value, low, high)) & field;
  };
  for_lanes(w.mask, [&](unsigned l) {
    const uint32_t above = c == nullptr || bits == 16 ? 0 : c[l] << 2 * bits;
    d[l] = above | clamp(a[l]) << bits | clamp(b[l]);
  });
  w.defined[in.op[0].defined] |= w.mask;
}
void bind_pack(const Match& m, Instr& in) {
  const std::string_view to = m.segments[2];
  const uint32_t bits =
      to.ends_with("16") ? 16 : (to.ends_with("8") ? 8 : (to.ends_with("4") ? 4 : 2));
  const bool from_signed = m.segments[3] == "s32";
  in.aux = bits | (to[0] == 's' ? 0x100u : 0u) | (from_signed ? 0x200u : 0u);
  in.exec = exec_pack;
}

// cvt.rn.satfinite.e4m3x2.f32 d, a, b: a becomes the high byte. aux: relu.
template <class F>
uint16_t pair_of(float high, float low, uint32_t relu) {
  if (relu != 0) {
    high = high <= 0.0f ? 0.0f : high;
    low = low <= 0.0f ? 0.0f : low;
  }
  return static_cast<uint16_t>(f32_to_float8<F>(high) << 8 | f32_to_float8<F>(low));
}
template <class F>
void exec_float8_f32(Warp& w, const Instr& in) {
  w.require_sources(in);
  const float* a = w.src<float>(in.op[1]);
  const float* b = w.src<float>(in.op[2]);
  uint16_t* d = w.dst<uint16_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = pair_of<F>(a[l], b[l], in.aux); });
  w.defined[in.op[0].defined] |= w.mask;
}
template <class F>
void exec_float8_f16x2(Warp& w, const Instr& in) {
  w.require_sources(in);
  const uint32_t* a = w.src<uint32_t>(in.op[1]);
  uint16_t* d = w.dst<uint16_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) {
    d[l] = pair_of<F>(f16_to_f32(static_cast<uint16_t>(a[l] >> 16)),
                      f16_to_f32(static_cast<uint16_t>(a[l])), in.aux);
  });
  w.defined[in.op[0].defined] |= w.mask;
}
template <class F>
void exec_f16x2_float8(Warp& w, const Instr& in) {
  w.require_sources(in);
  const uint16_t* a = w.src<uint16_t>(in.op[1]);
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  const auto widened = [&](uint32_t byte) {
    const float x = float8_to_f32<F>(static_cast<uint8_t>(byte));
    return uint32_t{f32_to_f16(in.aux != 0 && x < 0.0f ? 0.0f : x)};
  };
  for_lanes(w.mask, [&](unsigned l) { d[l] = widened(a[l]) | widened(a[l] >> 8) << 16; });
  w.defined[in.op[0].defined] |= w.mask;
}
template <template <class> class Exec>
void bind_float8(const Match& m, Instr& in) {
  in.aux = m.has("relu") ? 1 : 0;
  in.exec = m.has("e4m3x2") ? Exec<E4M3>::kExec : Exec<E5M2>::kExec;
}
template <class F>
struct FromF32 {
  static constexpr ExecFn kExec = exec_float8_f32<F>;
};
template <class F>
struct FromF16x2 {
  static constexpr ExecFn kExec = exec_float8_f16x2<F>;
};
template <class F>
struct ToF16x2 {
  static constexpr ExecFn kExec = exec_f16x2_float8<F>;
};

// cvt.rn.satfinite.e2m1x2.f32 d, a, b: a becomes the high nibble. aux: relu.
void exec_e2m1_f32(Warp& w, const Instr& in) {
  w.require_sources(in);
  const float* a = w.src<float>(in.op[1]);
  const float* b = w.src<float>(in.op[2]);
  uint8_t* d = w.dst<uint8_t>(in.op[0]);
  const auto code = [&](float x) {
    return uint32_t{f32_to_e2m1(in.aux != 0 && x <= 0.0f ? 0.0f : x)};
  };
  for_lanes(w.mask, [&](unsigned l) { d[l] = static_cast<uint8_t>(code(a[l]) << 4 | code(b[l])); });
  w.defined[in.op[0].defined] |= w.mask;
}
void bind_e2m1(const Match& m, Instr& in) {
  constexpr std::string_view kTargets[] = {"sm_100a", "sm_103a", "sm_120a", "sm_121a"};
  if (std::find(std::begin(kTargets), std::end(kTargets), m.target) == std::end(kTargets)) return;
  in.aux = m.has("relu") ? 1 : 0;
  in.exec = exec_e2m1_f32;
}

constexpr Row kRows[] = {
    {"cvt.rn|rz|rm|rp|rni|rzi|rmi|rpi?.ftz?.relu?.sat?.$scalar.$scalar", "d:0~ s:1~", bind_cvt},
    {"cvt.rn|rz.relu?.f16x2|bf16x2.f32", "d:b32 s:f32 s:f32", bind_cvt_x2},
    {"cvt.rn.satfinite.relu?.e4m3x2|e5m2x2.f32", "d:b16 s:f32 s:f32", bind_float8<FromF32>},
    {"cvt.rn.satfinite.relu?.e4m3x2|e5m2x2.f16x2", "d:b16 s:b32", bind_float8<FromF16x2>},
    {"cvt.rn.satfinite.relu?.e2m1x2.f32", "d:b8 s:f32 s:f32", bind_e2m1},
    {"cvt.rn.relu?.f16x2.e4m3x2|e5m2x2", "d:b32 s:b16", bind_float8<ToF16x2>},
    {"cvt.rna.tf32.f32", "d:b32 s:f32", bind_fixed<uint32_t, ToTf32, uint32_t>},
    {"cvt.pack.sat.s16|u16.s32|u32", "d:b32 s:b32 s:b32", bind_pack},
    {"cvt.pack.sat.s8|u8|s4|u4|s2|u2.s32|u32.b32", "d:b32 s:b32 s:b32 s:b32", bind_pack},
};

}  // namespace

std::span<const Row> convert_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
