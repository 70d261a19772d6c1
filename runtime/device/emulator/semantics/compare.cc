// setp, set, selp, slct, testp.
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

// Bits of outcomes: a comparison is the set of outcomes for which it holds.
enum Outcome : uint32_t { kLess = 1, kEqual = 2, kGreater = 4, kUnordered = 8 };

struct CompareRow {
  std::string_view name;
  uint32_t holds;
};
constexpr CompareRow kCompares[] = {
    {"eq", kEqual},
    {"ne", kLess | kGreater},
    {"lt", kLess},
    {"le", kLess | kEqual},
    {"gt", kGreater},
    {"ge", kGreater | kEqual},
    {"lo", kLess},
    {"ls", kLess | kEqual},
    {"hi", kGreater},
    {"hs", kGreater | kEqual},
    {"equ", kEqual | kUnordered},
    {"neu", kLess | kGreater | kUnordered},
    {"ltu", kLess | kUnordered},
    {"leu", kLess | kEqual | kUnordered},
    {"gtu", kGreater | kUnordered},
    {"geu", kGreater | kEqual | kUnordered},
    {"num", kLess | kEqual | kGreater},
    {"nan", kUnordered},
};

enum CompareFlags : uint32_t { kHoldsMask = 15, kFtz = 16, kAnd = 32, kOr = 64, kXor = 128 };

template <class T>
auto comparable(T x, bool ftz) {
  if constexpr (std::is_same_v<T, float>) {
    return ftz ? flush(x) : x;
  } else if constexpr (std::is_same_v<T, Half>) {
    return f16_to_f32(x.bits);
  } else if constexpr (std::is_same_v<T, BHalf>) {
    return bf16_to_f32(x.bits);
  } else {
    return x;
  }
}

// Bit per lane; all lanes are compared, active or not.
template <class T>
uint32_t compare(const T* a, const T* b, uint32_t flags) {
  const bool ftz = (flags & kFtz) != 0;
  alignas(32) uint32_t out[kWarpLanes];
  const uint32_t less = flags & 1, equal = flags >> 1 & 1, greater = flags >> 2 & 1,
                 unordered = flags >> 3 & 1;
  SAGEJIT_LANES_INDEPENDENT
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const auto x = comparable(a[l], ftz);
    const auto y = comparable(b[l], ftz);
    const uint32_t lt = x<y, eq = x == y, gt = x> y;
    out[l] = (lt & less) | (eq & equal) | (gt & greater) | ((1u ^ (lt | eq | gt)) & unordered);
  }
  uint32_t bits = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) bits |= out[l] << l;
  return bits;
}

uint32_t combine(uint32_t bits, uint32_t third, uint32_t flags) {
  if ((flags & kAnd) != 0) return bits & third;
  if ((flags & kOr) != 0) return bits | third;
  return (flags & kXor) != 0 ? bits ^ third : bits;
}

template <class T>
void exec_setp(Warp& w, const Instr& in) {
  w.require_sources(in);
  const Operand* s = in.op + in.num_dst;
  const uint32_t bits = compare(w.src<T>(s[0]), w.src<T>(s[1]), in.aux);
  const bool combined = (in.aux & (kAnd | kOr | kXor)) != 0;
  const uint32_t third = combined ? w.predicate(s[2]) : 0;
  w.set_predicate(in.op[0], combine(bits, third, in.aux));
  if (in.num_dst == 2) w.set_predicate(in.op[1], combine(~bits, third, in.aux));
}

// Packed halves: the first predicate is of the low half, the second of the high.
template <class T>
void exec_setp_x2(Warp& w, const Instr& in) {
  w.require_sources(in);
  const Operand* s = in.op + in.num_dst;
  const uint32_t* a = w.src<uint32_t>(s[0]);
  const uint32_t* b = w.src<uint32_t>(s[1]);
  const bool combined = (in.aux & (kAnd | kOr | kXor)) != 0;
  const uint32_t third = combined ? w.predicate(s[2]) : 0;
  for (unsigned half = 0; half < 2; ++half) {
    T x[kWarpLanes], y[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      x[l].bits = static_cast<uint16_t>(a[l] >> 16 * half);
      y[l].bits = static_cast<uint16_t>(b[l] >> 16 * half);
    }
    w.set_predicate(in.op[half], combine(compare(x, y, in.aux), third, in.aux));
  }
}

uint32_t compare_flags(const Match& m) {
  uint32_t flags = m.has("ftz") ? kFtz : 0u;
  for (const CompareRow& row : kCompares) {
    if (row.name == m.segments[0]) flags |= row.holds;
  }
  return flags | (m.has("and") ? kAnd : 0u) | (m.has("or") ? kOr : 0u) | (m.has("xor") ? kXor : 0u);
}

void bind_setp(const Match& m, Instr& in) {
  in.aux = compare_flags(m);
  const Type t = m.types.back();
  if (t == Type::kF16x2 || t == Type::kBF16x2) {
    if (in.num_dst == 2) in.exec = t == Type::kF16x2 ? exec_setp_x2<Half> : exec_setp_x2<BHalf>;
    return;
  }
  with_scalar(t, [&]<class T>(Tag<T>) { in.exec = exec_setp<T>; });
}

// set.CmpOp.dtype.stype: all ones or 1.0.
template <class T>
void exec_set(Warp& w, const Instr& in) {
  w.require_sources(in);
  uint32_t bits = compare(w.src<T>(in.op[1]), w.src<T>(in.op[2]), in.aux);
  if ((in.aux & (kAnd | kOr | kXor)) != 0) bits = combine(bits, w.predicate(in.op[3]), in.aux);
  const uint32_t yes = in.aux >> 8 != 0 ? std::bit_cast<uint32_t>(1.0f) : ~0u;
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = (bits >> l & 1) != 0 ? yes : 0; });
  w.defined[in.op[0].defined] |= w.mask;
}
void bind_set(const Match& m, Instr& in) {
  in.aux = compare_flags(m) | (m.type(0) == Type::kF32 ? 1u << 8 : 0u);
  with_scalar(m.type(1), [&]<class T>(Tag<T>) { in.exec = exec_set<T>; });
}

// set on halves: each half of the result is 1.0 of a half type, or all ones.
template <class T, class Word>
void exec_set_half(Warp& w, const Instr& in) {
  w.require_sources(in);
  const Word* a = w.src<Word>(in.op[1]);
  const Word* b = w.src<Word>(in.op[2]);
  uint32_t bits[2];
  for (unsigned half = 0; half < sizeof(Word) / 2; ++half) {
    T x[kWarpLanes], y[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      x[l].bits = static_cast<uint16_t>(a[l] >> 16 * half);
      y[l].bits = static_cast<uint16_t>(b[l] >> 16 * half);
    }
    bits[half] = compare(x, y, in.aux);
    if ((in.aux & (kAnd | kOr | kXor)) != 0)
      bits[half] = combine(bits[half], w.predicate(in.op[3]), in.aux);
  }
  const uint32_t yes = in.aux >> 16;
  Word* d = w.dst<Word>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) {
    uint32_t out = 0;
    for (unsigned half = 0; half < sizeof(Word) / 2; ++half)
      out |= ((bits[half] >> l & 1) != 0 ? yes : 0) << 16 * half;
    d[l] = static_cast<Word>(out);
  });
  w.defined[in.op[0].defined] |= w.mask;
}
void bind_set_half(const Match& m, Instr& in) {
  const Type to = m.type(0);
  const Type from = m.type(1);
  const bool packed = info(from).bytes == 4;
  const bool brain = from == Type::kBF16 || from == Type::kBF16x2;
  if (info(to).bytes != info(from).bytes) return;
  const uint32_t yes = !info(to).is_float ? 0xffffu : (brain ? 0x3f80u : 0x3c00u);
  if (info(to).is_float && to != from) return;
  in.aux = compare_flags(m) | yes << 16;
  if (packed) {
    in.exec = brain ? exec_set_half<BHalf, uint32_t> : exec_set_half<Half, uint32_t>;
  } else {
    in.exec = brain ? exec_set_half<BHalf, uint16_t> : exec_set_half<Half, uint16_t>;
  }
}

// Only the selected operand must be defined, and only when the result is used.
template <class T>
void exec_selp(Warp& w, const Instr& in) {
  w.require(in, 3, 4);
  const T* a = w.src<T>(in.op[1]);
  const T* b = w.src<T>(in.op[2]);
  const uint32_t p = w.predicate(in.op[3]);
  const uint32_t defined = (w.defined_lanes(in.op[1]) & p) | (w.defined_lanes(in.op[2]) & ~p);
  T* d = w.dst<T>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = (p >> l & 1) != 0 ? a[l] : b[l]; });
  w.set_defined(in.op[0], defined);
}
void bind_selp(const Match& m, Instr& in) {
  with_bits(m.type(0), [&]<class T>(Tag<T>) { in.exec = exec_selp<T>; });
}

template <class T, class C>
struct Slct {
  T operator()(T a, T b, C c) const { return c >= C{0} ? a : b; }
};
void bind_slct(const Match& m, Instr& in) {
  with_bits(m.type(0), [&]<class T>(Tag<T>) {
    in.exec = m.types.back() == Type::kS32 ? map_lanes<T, Slct<T, int32_t>, T, T, int32_t>
                                           : map_lanes<T, Slct<T, float>, T, T, float>;
  });
}

template <class F>
bool test_property(F x, uint32_t property) {
  switch (property) {
    case 0:
      return std::isfinite(x);
    case 1:
      return std::isinf(x);
    case 2:
      return x == x;
    case 3:
      return x != x;
    case 4:
      return std::isnormal(x) || x == 0;  // as the device has it
    default:
      return std::fpclassify(x) == FP_SUBNORMAL;
  }
}
template <class F>
void exec_testp(Warp& w, const Instr& in) {
  w.require_sources(in);
  const F* a = w.src<F>(in.op[1]);
  uint32_t bits = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l)
    bits |= static_cast<uint32_t>(test_property(a[l], in.aux)) << l;
  w.set_predicate(in.op[0], bits);
}
void bind_testp(const Match& m, Instr& in) {
  static constexpr std::string_view kNames[] = {"finite",     "infinite", "number",
                                                "notanumber", "normal",   "subnormal"};
  for (uint32_t i = 0; i < std::size(kNames); ++i) {
    if (m.has(kNames[i])) in.aux = i;
  }
  in.exec = m.types.back() == Type::kF32 ? exec_testp<float> : exec_testp<double>;
}

constexpr Row kRows[] = {
    {"setp.$cmp.ftz?.b16|b32|b64|$int|f32|f64|$half", "d:pred |d:pred? s:0 s:0", bind_setp},
    {"setp.$cmp.and|or|xor.ftz?.b16|b32|b64|$int|f32|f64|$half", "d:pred |d:pred? s:0 s:0 s:pred",
     bind_setp},
    {"set.$cmp.ftz?.u32|s32|f32.b16|b32|b64|$int|f32|f64", "d:0 s:1 s:1", bind_set},
    {"set.$cmp.and|or|xor.ftz?.u32|s32|f32.b16|b32|b64|$int|f32|f64", "d:0 s:1 s:1 s:pred",
     bind_set},
    {"set.$cmp.u16|s16|u32|s32|$half.$half", "d:0 s:1 s:1", bind_set_half},
    {"set.$cmp.and|or|xor.u16|s16|u32|s32|$half.$half", "d:0 s:1 s:1 s:pred", bind_set_half},
    {"selp.$bits|$int|f32|f64", "d:0 s:0 s:0 s:pred", bind_selp},
    {"slct.$bits|$int|f32|f64.s32", "d:0 s:0 s:0 s:s32", bind_slct},
    {"slct.$bits|$int|f32|f64.f32", "d:0 s:0 s:0 s:f32", bind_slct},
    {"testp.finite|infinite|number|notanumber|normal|subnormal.f32|f64", "d:pred s:0", bind_testp},
};

}  // namespace

std::span<const Row> compare_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
