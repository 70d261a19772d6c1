// The numeric models of the emulator, in one place.
//
// Exact (bit-equal to an H100, NaNs included but for cvt to tf32): IEEE arithmetic in all
// roundings, conversions, f16/bf16 arithmetic, integer mma. A NaN result is the canonical NaN of
// its format; f64 keeps the operand's. Models (within the documented error of the device, not
// bit-equal): ex2, lg2, rcp, rsqrt, sqrt .approx, sin, cos, tanh, div.full and div.approx are
// computed in double and rounded once; floating-point mma and wgmma multiply exactly, add the
// products of one instruction and the accumulator in double, and round once to the accumulator's
// type (tensor cores truncate while aligning, with an unspecified order). Only 8-bit floats into
// f32 by wgmma, and by mma.sync of sm_89, are modelled bit by bit, as they lose much there:
// float8_sum.h. Products of e2m1 with scale factors round once, too: no device was measured.
// Measured against an H100: ex2, rcp, rsqrt, sqrt, div.full within 2 ulp; f32 mma of |x| < 4 within
// 8e-6; sin and cos only in [-pi, pi], where the device promises accuracy too.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace sagejit::emulator {

enum class Round : uint8_t { kNearest, kZero, kDown, kUp };

inline constexpr uint32_t kNanF32 = 0x7fffffffu;
inline constexpr uint64_t kNanF64 = 0x7ff8000000000000ull;
inline constexpr uint16_t kNanHalf = 0x7fffu;  // of f16 and of bf16

inline float canonical(float x) {
  return x == x ? x : std::bit_cast<float>(kNanF32);
}
inline double canonical(double x) {
  return x == x ? x : std::bit_cast<double>(kNanF64);
}

// Subnormals to zero of the same sign.
inline float flush(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits);
}

// [0, 1]; NaN becomes +0.
inline float saturate(float x) {
  const float low = x > 0.0f ? x : 0.0f;
  return low < 1.0f ? low : 1.0f;
}

// s + e, with s the nearest double and e the exact rest, as the double that rounds like s + e to
// any format of at most 51 bits: the odd one of the two doubles around the true value (Boldo and
// Melquiond). No branches, so that loops over lanes vectorise; e that is not finite (s overflowed)
// counts as 0.
inline double to_odd(double s, double e) {
  const auto bits = std::bit_cast<uint64_t>(s);
  const auto rest = std::bit_cast<uint64_t>(e - e == 0.0 ? e : 0.0);
  const uint64_t magnitude = rest << 1;
  const uint64_t inexact = (magnitude | (0 - magnitude)) >> 63;
  const uint64_t towards_zero = (rest ^ bits) >> 63;
  const uint64_t move = inexact & ~bits & 1;
  return std::bit_cast<double>(bits + move - ((move & towards_zero) << 1));
}

inline double sum_odd(double a, double b) {
  const double s = a + b;
  const double v = s - a;
  return to_odd(s, (a - (s - v)) + (b - v));
}

// a * b + c for operands of at most 26 bits each, where a * b is exact in double.
inline double fma_odd(double a, double b, double c) {
  return sum_odd(a * b, c);
}

inline double div_odd(double a, double b) {
  const double q = a / b;
  if (!(std::abs(q) <= std::numeric_limits<double>::max()) || q == 0.0) return q;
  const double rest = std::fma(-q, b, a);
  return to_odd(q, (rest > 0.0) == (b > 0.0) ? std::abs(rest) : -std::abs(rest));
}

inline double sqrt_odd(double a) {
  const double r = std::sqrt(a);
  if (!(r <= std::numeric_limits<double>::max()) || r == 0.0) return r;
  return to_odd(r, std::fma(-r, r, a));
}

// A binary floating-point format of at most 32 bits with IEEE infinities.
template <class Bits, int kExponentBits, int kMantissaBits>
struct Format {
  static constexpr int kBias = (1 << (kExponentBits - 1)) - 1;
  static constexpr int kMinExponent = 1 - kBias;  // of normal numbers
  static constexpr Bits kInfinity =
      static_cast<Bits>(((Bits{1} << kExponentBits) - 1) << kMantissaBits);
  static constexpr Bits kSign = static_cast<Bits>(Bits{1} << (kExponentBits + kMantissaBits));

  // x is rounded once; give a value made by *_odd to round an inexact one correctly.
  static Bits round(double x, Round mode, Bits nan) {
    const auto raw = std::bit_cast<uint64_t>(x);
    const bool negative = (raw >> 63) != 0;
    const Bits sign = negative ? kSign : Bits{0};
    if (x != x) return nan;
    const int exponent = static_cast<int>(raw >> 52 & 0x7ff) - 1023;
    if (exponent == 1024) return static_cast<Bits>(sign | kInfinity);
    if (exponent == -1023 && (raw << 12) == 0) return sign;
    // Bits of the double's 53-bit significand below the last one kept.
    const int least = exponent < kMinExponent ? kMinExponent : exponent;
    const int drop = 52 - kMantissaBits + (least - exponent);
    const uint64_t significand = (raw & ((uint64_t{1} << 52) - 1)) | uint64_t{exponent != -1023}
                                                                         << 52;
    const uint64_t kept = drop > 63 ? 0 : significand >> drop;
    const uint64_t rest = drop > 63 ? significand : significand & ((uint64_t{1} << drop) - 1);
    const uint64_t half = drop > 63 ? ~uint64_t{0} : uint64_t{1} << (drop - 1);
    bool up = false;
    switch (mode) {
      case Round::kNearest:
        up = rest > half || (rest == half && (kept & 1) != 0);
        break;
      case Round::kZero:
        break;
      case Round::kDown:
        up = negative && rest != 0;
        break;
      case Round::kUp:
        up = !negative && rest != 0;
        break;
    }
    // Adding the significand to the exponent field carries as needed, also from subnormal to
    // normal.
    const uint64_t field =
        exponent < kMinExponent ? 0 : static_cast<uint64_t>(exponent + kBias - 1);
    const uint64_t magnitude = (field << kMantissaBits) + kept + (up ? 1 : 0);
    if (magnitude < kInfinity) return static_cast<Bits>(sign | magnitude);
    const bool to_infinity = mode == Round::kNearest || (mode == Round::kUp && !negative) ||
                             (mode == Round::kDown && negative);
    return static_cast<Bits>(sign | (to_infinity ? kInfinity : kInfinity - 1));
  }
};

using FormatF32 = Format<uint32_t, 8, 23>;
using FormatF16 = Format<uint16_t, 5, 10>;
using FormatBF16 = Format<uint16_t, 8, 7>;

inline float round_f32(double x, Round mode) {
  if (mode == Round::kNearest) return canonical(static_cast<float>(x));
  return std::bit_cast<float>(FormatF32::round(x, mode, kNanF32));
}

// Branch-free, so that loops over lanes vectorise.
inline float f16_to_f32(uint16_t h) {
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7fffu) << 13;
  float value =
      std::bit_cast<float>(magnitude) * 0x1p112f;  // exact for normal and subnormal inputs
  const bool special = (h & 0x7c00u) == 0x7c00u;
  const uint32_t bits = special ? magnitude | 0x7f800000u : std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>(bits | static_cast<uint32_t>(h & 0x8000u) << 16);
}

// Nearest-even conversions from f32, branch-free likewise.
inline uint16_t f32_to_f16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
  // Adding 0.5, whose last bit weighs as much as the smallest subnormal, rounds in hardware.
  const float shifted = std::bit_cast<float>(magnitude < 0x38800000u ? magnitude : 0u) + 0.5f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - 0x3f000000u;
  uint32_t out = magnitude < 0x38800000u ? subnormal : normal;
  out = magnitude >= 0x47800000u ? 0x7c00u : out;
  out |= sign;
  return static_cast<uint16_t>(magnitude > 0x7f800000u ? uint32_t{kNanHalf} : out);
}
inline uint16_t f32_to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? uint32_t{kNanHalf} : rounded);
}

// 8-bit floats: e4m3 has no infinity and one NaN per sign, e5m2 is like f16.
struct E4M3 {
  static constexpr int kExponentBits = 4;
  static constexpr bool kHasInfinity = false;
  static constexpr uint32_t kLargest = 0x43e00000u;  // 448, as f32
};
struct E5M2 {
  static constexpr int kExponentBits = 5;
  static constexpr bool kHasInfinity = true;
  static constexpr uint32_t kLargest = 0x47600000u;  // 57344
};
inline constexpr uint8_t kNanFloat8 = 0x7f;

// Nearest-even, finite overflow to the largest value; branch-free.
template <class F>
inline uint8_t f32_to_float8(float x) {
  constexpr int kMantissa = 7 - F::kExponentBits;
  constexpr int kBias = (1 << (F::kExponentBits - 1)) - 1;
  constexpr int kDrop = 23 - kMantissa;
  constexpr uint32_t kSmallestNormal = static_cast<uint32_t>(128 - kBias) << 23;
  // Its last bit weighs as much as the smallest subnormal, so adding it rounds in hardware.
  constexpr uint32_t kShift = static_cast<uint32_t>(127 + 1 - kBias - kMantissa + 23) << 23;
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 24 & 0x80u;
  const uint32_t wide = bits & 0x7fffffffu;
  const uint32_t magnitude = wide < F::kLargest ? wide : F::kLargest;
  const uint32_t normal = (magnitude - (static_cast<uint32_t>(127 - kBias) << 23) +
                           ((1u << (kDrop - 1)) - 1) + (magnitude >> kDrop & 1)) >>
                          kDrop;
  const float small = std::bit_cast<float>(magnitude < kSmallestNormal ? magnitude : 0u);
  const uint32_t subnormal = std::bit_cast<uint32_t>(small + std::bit_cast<float>(kShift)) - kShift;
  const uint32_t out = sign | (magnitude < kSmallestNormal ? subnormal : normal);
  return static_cast<uint8_t>(wide > 0x7f800000u ? uint32_t{kNanFloat8} : out);
}

struct Float8Table {
  float value[256] = {};
};
template <class F>
constexpr Float8Table make_float8_table() {
  Float8Table table;
  constexpr int kMantissa = 7 - F::kExponentBits;
  constexpr int kBias = (1 << (F::kExponentBits - 1)) - 1;
  for (int i = 0; i < 128; ++i) {
    const int e = i >> kMantissa;
    const int m = i & ((1 << kMantissa) - 1);
    double v = e == 0 ? m : m + (1 << kMantissa);
    int power = (e == 0 ? 1 : e) - kBias - kMantissa;
    for (; power > 0; --power) v *= 2;
    for (; power < 0; ++power) v /= 2;
    auto x = static_cast<float>(v);
    if (F::kHasInfinity && e == (1 << F::kExponentBits) - 1) {
      x = m == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    }
    if (!F::kHasInfinity && i == 127) x = std::numeric_limits<float>::quiet_NaN();
    table.value[i] = x;
    table.value[i + 128] = -x;
  }
  return table;
}
template <class F>
inline constexpr Float8Table kFloat8 = make_float8_table<F>();

template <class F>
inline float float8_to_f32(uint8_t x) {
  return kFloat8<F>.value[x];
}

// e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 behind a sign; no infinity, no NaN.
inline constexpr float kE2M1[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
inline float e2m1_to_f32(uint32_t code) {
  return code & 8 ? -kE2M1[code & 7] : kE2M1[code & 7];
}

// Nearest, ties to the even code; beyond 6 it stays 6, and a NaN is +6 (PTX ISA, "cvt",
// .satfinite).
inline uint8_t f32_to_e2m1(float x) {
  if (x != x) return 7;
  const float magnitude = std::abs(x);
  uint32_t code = 0;
  while (code < 7) {
    const float middle = (kE2M1[code] + kE2M1[code + 1]) / 2;
    if (magnitude < middle || (magnitude == middle && code % 2 == 0)) break;
    ++code;
  }
  return static_cast<uint8_t>(code | (std::signbit(x) ? 8 : 0));
}

// A double, exact or rounded to odd, to an f32 that rounds to f16 or bf16 like it.
inline float odd_f32(double x) {
  const auto nearest = static_cast<float>(x);
  const auto bits = std::bit_cast<uint32_t>(nearest);
  const auto rest = static_cast<float>(x - static_cast<double>(nearest));
  const uint32_t inexact = rest != 0.0f ? 1u : 0u;
  const uint32_t finite = (bits & 0x7f800000u) != 0x7f800000u ? 1u : 0u;
  const uint32_t towards_zero = (std::bit_cast<uint32_t>(rest) ^ bits) >> 31;
  const uint32_t move = inexact & finite & ~bits;
  return std::bit_cast<float>(bits + move - ((move & towards_zero) << 1));
}

inline float bf16_to_f32(uint16_t h) {
  return std::bit_cast<float>(static_cast<uint32_t>(h) << 16);
}

// 2^x, relative error below 1e-12; infinity or 0 after rounding to f32 where |x| is large.
// Vectorises.
inline double exp2_model(float x) {
  float clamped = x > 200.0f ? 200.0f : x;
  clamped = clamped < -200.0f ? -200.0f : clamped;
  const float shifted = clamped + 0x1.8p23f;  // the integer part of x in the low bits
  const double t = static_cast<double>(clamped - (shifted - 0x1.8p23f)) * 0.693147180559945309417;
  double p = 1.0 / 39916800;  // Taylor series of e^t, |t| < 0.35
  p = p * t + 1.0 / 3628800;
  p = p * t + 1.0 / 362880;
  p = p * t + 1.0 / 40320;
  p = p * t + 1.0 / 5040;
  p = p * t + 1.0 / 720;
  p = p * t + 1.0 / 120;
  p = p * t + 1.0 / 24;
  p = p * t + 1.0 / 6;
  p = p * t + 0.5;
  p = p * t + 1.0;
  p = p * t + 1.0;
  // The power of two in two factors, each a normal f32.
  const auto n = static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - 0x4b400000u);
  const int32_t half = n >> 1;
  const auto power = [](int32_t e) {
    return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(e + 127) << 23));
  };
  return p * power(half) * power(n - half);
}

}  // namespace sagejit::emulator
