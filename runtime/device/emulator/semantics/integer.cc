// Integer arithmetic.
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

template <class T>
T widen_high(T a, T b) {
  if constexpr (sizeof(T) == 8) {
    using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
    return static_cast<T>(static_cast<Wide>(a) * b >> 64);
  } else {
    using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
    return static_cast<T>(static_cast<Wide>(a) * b >> (8 * sizeof(T)));
  }
}

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrap<T>>(a) + static_cast<Wrap<T>>(b));
  }
};
struct Sub {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrap<T>>(a) - static_cast<Wrap<T>>(b));
  }
};
struct MulLo {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrap<T>>(a) * static_cast<Wrap<T>>(b));
  }
};
struct MulHi {
  template <class T>
  T operator()(T a, T b) const {
    return widen_high(a, b);
  }
};
struct MadLo {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(MulLo{}(a, b), c);
  }
};
struct MadHi {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(widen_high(a, b), c);
  }
};
struct MulWide {
  template <class T>
  auto operator()(T a, T b) const {
    using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
    return static_cast<Wide>(a) * static_cast<Wide>(b);
  }
};
struct MadWide {
  template <class T, class D>
  D operator()(T a, T b, D c) const {
    return Add{}(static_cast<D>(MulWide{}(a, b)), c);
  }
};
// The device returns all ones for x / 0 and x % 0; min / -1 wraps.
struct Div {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Sub{}(T{0}, a);
    return static_cast<T>(a / b);
  }
};
struct Rem {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
template <class Fn>
struct Relu {
  int32_t operator()(int32_t a, int32_t b) const { return Max{}(Fn{}(a, b), 0); }
};
struct Neg {
  template <class T>
  T operator()(T a) const {
    return Sub{}(T{0}, a);
  }
};
struct Abs {
  template <class T>
  T operator()(T a) const {
    return a < T{0} ? Sub{}(T{0}, a) : a;
  }
};
struct Sad {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(c, a < b ? Sub{}(b, a) : Sub{}(a, b));
  }
};

int32_t clamp32(int64_t x) {
  if (x > INT32_MAX) return INT32_MAX;
  return x < INT32_MIN ? INT32_MIN : static_cast<int32_t>(x);
}
struct AddSat {
  int32_t operator()(int32_t a, int32_t b) const { return clamp32(int64_t{a} + b); }
};
struct SubSat {
  int32_t operator()(int32_t a, int32_t b) const { return clamp32(int64_t{a} - b); }
};

template <class T>
struct Mul24 {
  T operator()(T a, T b) const { return MulLo{}(low24(a), low24(b)); }
  static T low24(T x) { return static_cast<T>(static_cast<T>(static_cast<uint32_t>(x) << 8) >> 8); }
};
template <class T>
struct Mad24 {
  T operator()(T a, T b, T c) const { return Add{}(Mul24<T>{}(a, b), c); }
};

// Fn on each 16-bit half.
template <class Fn, class T>
struct Halves {
  uint32_t operator()(uint32_t a, uint32_t b) const {
    const auto low = static_cast<uint16_t>(Fn{}(static_cast<T>(a), static_cast<T>(b)));
    const auto high = static_cast<uint16_t>(Fn{}(static_cast<T>(a >> 16), static_cast<T>(b >> 16)));
    return low | static_cast<uint32_t>(high) << 16;
  }
};
template <class Fn>
void bind_x2(const Match& m, Instr& in) {
  in.exec = m.type(0) == Type::kS16x2
                ? map_lanes<uint32_t, Halves<Fn, int16_t>, uint32_t, uint32_t>
                : map_lanes<uint32_t, Halves<Fn, uint16_t>, uint32_t, uint32_t>;
}

// Sum of products of A's four bytes with B's, or of A's two halves with the low or high bytes of B.
template <class A, class B>
struct Dp4a {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    for (int i = 0; i < 4; ++i) {
      c += static_cast<uint32_t>(static_cast<A>(a >> 8 * i) * static_cast<B>(b >> 8 * i));
    }
    return c;
  }
};
template <class A, class B, int kShift>
struct Dp2a {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    for (int i = 0; i < 2; ++i) {
      c += static_cast<uint32_t>(static_cast<A>(a >> 16 * i) *
                                 static_cast<B>(b >> (8 * i + kShift)));
    }
    return c;
  }
};

template <template <class, class> class Fn, class SA, class UA>
void bind_dot(const Match& m, Instr& in) {
  constexpr ExecFn kBodies[2][2] = {
      {map_lanes<uint32_t, Fn<UA, uint8_t>, uint32_t, uint32_t, uint32_t>,
       map_lanes<uint32_t, Fn<UA, int8_t>, uint32_t, uint32_t, uint32_t>},
      {map_lanes<uint32_t, Fn<SA, uint8_t>, uint32_t, uint32_t, uint32_t>,
       map_lanes<uint32_t, Fn<SA, int8_t>, uint32_t, uint32_t, uint32_t>}};
  in.exec = kBodies[m.type(0) == Type::kS32][m.type(1) == Type::kS32];
}
template <class A, class B>
using Dp2aLo = Dp2a<A, B, 0>;
template <class A, class B>
using Dp2aHi = Dp2a<A, B, 16>;

template <class F>
void with_narrow(Type t, F&& f) {
  if (t == Type::kU16) f(Tag<uint16_t>{}, Tag<uint32_t>{});
  if (t == Type::kS16) f(Tag<int16_t>{}, Tag<int32_t>{});
  if (t == Type::kU32) f(Tag<uint32_t>{}, Tag<uint64_t>{});
  if (t == Type::kS32) f(Tag<int32_t>{}, Tag<int64_t>{});
}
void bind_mul_wide(const Match& m, Instr& in) {
  with_narrow(m.type(0),
              [&]<class T, class D>(Tag<T>, Tag<D>) { in.exec = map_lanes<D, MulWide, T, T>; });
}
void bind_mad_wide(const Match& m, Instr& in) {
  with_narrow(m.type(0),
              [&]<class T, class D>(Tag<T>, Tag<D>) { in.exec = map_lanes<D, MadWide, T, T, D>; });
}

constexpr Row kRows[] = {
    {"add.$int", "d:0 s:0 s:0", bind_int2<Add>},
    {"sub.$int", "d:0 s:0 s:0", bind_int2<Sub>},
    {"add.sat.s32", "d:0 s:0 s:0", bind_fixed<int32_t, AddSat, int32_t, int32_t>},
    {"sub.sat.s32", "d:0 s:0 s:0", bind_fixed<int32_t, SubSat, int32_t, int32_t>},
    {"mul.lo.$int", "d:0 s:0 s:0", bind_int2<MulLo>},
    {"mul.hi.$int", "d:0 s:0 s:0", bind_int2<MulHi>},
    {"mul.wide.u16|s16|u32|s32", "d:w0 s:0 s:0", bind_mul_wide},
    {"mad.lo.$int", "d:0 s:0 s:0 s:0", bind_int3<MadLo>},
    {"mad.hi.$int", "d:0 s:0 s:0 s:0", bind_int3<MadHi>},
    {"mad.wide.u16|s16|u32|s32", "d:w0 s:0 s:0 s:w0", bind_mad_wide},
    {"mul24.lo.u32", "d:0 s:0 s:0", bind_fixed<uint32_t, Mul24<uint32_t>, uint32_t, uint32_t>},
    {"mul24.lo.s32", "d:0 s:0 s:0", bind_fixed<int32_t, Mul24<int32_t>, int32_t, int32_t>},
    {"mad24.lo.u32", "d:0 s:0 s:0 s:0",
     bind_fixed<uint32_t, Mad24<uint32_t>, uint32_t, uint32_t, uint32_t>},
    {"mad24.lo.s32", "d:0 s:0 s:0 s:0",
     bind_fixed<int32_t, Mad24<int32_t>, int32_t, int32_t, int32_t>},
    {"div.$int", "d:0 s:0 s:0", bind_int2<Div>},
    {"rem.$int", "d:0 s:0 s:0", bind_int2<Rem>},
    {"min.$int", "d:0 s:0 s:0", bind_int2<Min>},
    {"max.$int", "d:0 s:0 s:0", bind_int2<Max>},
    {"min.s32.relu", "d:0 s:0 s:0", bind_fixed<int32_t, Relu<Min>, int32_t, int32_t>},
    {"max.s32.relu", "d:0 s:0 s:0", bind_fixed<int32_t, Relu<Max>, int32_t, int32_t>},
    {"neg.s16|s32|s64", "d:0 s:0", bind_int1<Neg>},
    {"abs.s16|s32|s64", "d:0 s:0", bind_int1<Abs>},
    {"sad.$int", "d:0 s:0 s:0 s:0", bind_int3<Sad>},
    {"add.u16x2|s16x2", "d:0 s:0 s:0", bind_x2<Add>},
    {"min.u16x2|s16x2", "d:0 s:0 s:0", bind_x2<Min>},
    {"max.u16x2|s16x2", "d:0 s:0 s:0", bind_x2<Max>},
    {"dp4a.$int32.$int32", "d:b32 s:b32 s:b32 s:b32", bind_dot<Dp4a, int8_t, uint8_t>},
    {"dp2a.lo.$int32.$int32", "d:b32 s:b32 s:b32 s:b32", bind_dot<Dp2aLo, int16_t, uint16_t>},
    {"dp2a.hi.$int32.$int32", "d:b32 s:b32 s:b32 s:b32", bind_dot<Dp2aHi, int16_t, uint16_t>},
};

}  // namespace

std::span<const Row> integer_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
