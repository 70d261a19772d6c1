// Logic, shifts, bit fields and byte permutation.
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

struct And {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};
struct Not {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(~a);
  }
};
struct Cnot {
  template <class T>
  T operator()(T a) const {
    return a == 0 ? T{1} : T{0};
  }
};
// Shift amounts at or beyond the width give 0, or the sign.
struct Shl {
  template <class T>
  T operator()(T a, uint32_t b) const {
    return b >= 8 * sizeof(T)
               ? T{0}
               : static_cast<T>(static_cast<Wrap<T>>(a) << (b & (8 * sizeof(T) - 1)));
  }
};
struct Shr {
  template <class T>
  T operator()(T a, uint32_t b) const {
    constexpr uint32_t kTop = 8 * sizeof(T) - 1;
    if constexpr (std::is_signed_v<T>) return static_cast<T>(a >> (b > kTop ? kTop : b));
    return b > kTop ? T{0} : static_cast<T>(a >> (b & kTop));
  }
};

template <bool kLeft, bool kClamp>
struct Funnel {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    const uint32_t n = kClamp ? (c < 32 ? c : 32) : c & 31;
    const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    return kLeft ? static_cast<uint32_t>(both << n >> 32) : static_cast<uint32_t>(both >> n);
  }
};

struct Popc {
  template <class T>
  uint32_t operator()(T a) const {
    return static_cast<uint32_t>(std::popcount(a));
  }
};
struct Clz {
  template <class T>
  uint32_t operator()(T a) const {
    return static_cast<uint32_t>(std::countl_zero(a));
  }
};
struct Brev {
  template <class T>
  T operator()(T a) const {
    T out = 0;
    for (unsigned i = 0; i < 8 * sizeof(T); ++i) out |= (a >> i & 1) << (8 * sizeof(T) - 1 - i);
    return out;
  }
};
template <bool kShiftAmount>
struct Bfind {
  template <class T>
  uint32_t operator()(T a) const {
    using U = std::make_unsigned_t<T>;
    const U u = a < 0 ? static_cast<U>(~static_cast<U>(a)) : static_cast<U>(a);
    if (u == 0) return ~0u;
    const auto leading = static_cast<uint32_t>(std::countl_zero(u));
    return kShiftAmount ? leading : 8 * sizeof(T) - 1 - leading;
  }
};
// Positions and lengths count modulo 256 in the 32-bit forms; the 64-bit ones, which are
// instruction sequences on the device, take all their bits.
template <class T>
uint32_t field_operand(uint32_t x) {
  return sizeof(T) == 4 ? x & 0xff : (x < 255 ? x : 255);
}
struct Bfe {
  template <class T>
  T operator()(T a, uint32_t start, uint32_t length) const {
    constexpr uint32_t kTop = 8 * sizeof(T) - 1;
    const uint32_t pos = field_operand<T>(start);
    const uint32_t len = field_operand<T>(length);
    const uint64_t wide = static_cast<uint64_t>(static_cast<std::make_unsigned_t<T>>(a));
    const uint32_t last = pos + len - 1 < kTop ? pos + len - 1 : kTop;
    const bool sign = std::is_signed_v<T> && len != 0 && (wide >> last & 1) != 0;
    uint64_t out = pos > kTop ? 0 : wide >> pos;
    const uint32_t valid = pos > kTop ? 0 : (len < kTop + 1 - pos ? len : kTop + 1 - pos);
    const uint64_t field = valid >= 64 ? ~uint64_t{0} : (uint64_t{1} << valid) - 1;
    out = sign ? out | ~field : out & field;
    return static_cast<T>(out);
  }
};
struct Bfi {
  template <class T>
  T operator()(T a, T b, uint32_t start, uint32_t length) const {
    const uint32_t pos = field_operand<T>(start);
    const uint32_t len = field_operand<T>(length);
    if (pos >= 8 * sizeof(T) || len == 0) return b;
    const T ones = len >= 8 * sizeof(T) ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << len) - 1);
    const T field = static_cast<T>(ones << pos);
    return static_cast<T>((b & ~field) | (static_cast<T>(a << pos) & field));
  }
};
struct Lop3 {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c, uint32_t table) const {
    uint32_t out = 0;
    for (uint32_t i = 0; i < 8; ++i) {
      const uint32_t term =
          ((i & 4) != 0 ? a : ~a) & ((i & 2) != 0 ? b : ~b) & ((i & 1) != 0 ? c : ~c);
      out |= (table >> i & 1) != 0 ? term : 0;
    }
    return out;
  }
};

// prmt: the selector of a mode, as one nibble per byte (bit 3: replicate the sign).
uint32_t expand_selector(uint32_t mode, uint32_t c) {
  const uint32_t n = c & 3;
  switch (mode) {
    case 1:
      return (n) | (n + 1) << 4 | (n + 2) << 8 | (n + 3) << 12;  // f4e
    case 2:
      return n | ((n - 1) & 7) << 4 | ((n - 2) & 7) << 8 | ((n - 3) & 7) << 12;  // b4e
    case 3:
      return n * 0x1111;  // rc8
    case 4:
      return n | std::max(n, 1u) << 4 | std::max(n, 2u) << 8 | 3u << 12;  // ecl
    case 5:
      return 0 | std::min(n, 1u) << 4 | std::min(n, 2u) << 8 | n << 12;  // ecr
    case 6:
      return (n & 1) == 0 ? 0x1010 : 0x3232;  // rc16
    default:
      return c;
  }
}

uint32_t permute(uint64_t both, uint32_t selector) {
  uint32_t out = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t nibble = selector >> 4 * i & 0xf;
    const auto byte = static_cast<uint8_t>(both >> 8 * (nibble & 7));
    const uint8_t value = (nibble & 8) == 0 ? byte : ((byte & 0x80) != 0 ? 0xff : 0);
    out |= static_cast<uint32_t>(value) << 8 * i;
  }
  return out;
}

// An operand none of whose bytes is selected may be undefined: compilers pack half-built vectors
// so.
void exec_prmt(Warp& w, const Instr& in) {
  w.require(in, 3, 4);
  const uint32_t* a = w.src<uint32_t>(in.op[1]);
  const uint32_t* b = w.src<uint32_t>(in.op[2]);
  const uint32_t* c = w.src<uint32_t>(in.op[3]);
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  const uint32_t defined_a = w.defined_lanes(in.op[1]);
  const uint32_t defined_b = w.defined_lanes(in.op[2]);
  const bool all = (defined_a & defined_b & w.mask) == w.mask;
  uint32_t defined = kAllLanes;
  for_lanes(w.mask, [&](unsigned l) {
    const uint32_t selector = expand_selector(in.aux, c[l]);
    if (!all) {
      const uint32_t high = selector & 0x4444;
      const bool lost =
          (high != 0x4444 && (defined_a >> l & 1) == 0) || (high != 0 && (defined_b >> l & 1) == 0);
      if (lost) defined &= ~(1u << l);
    }
    d[l] = permute(static_cast<uint64_t>(b[l]) << 32 | a[l], selector);
  });
  w.set_defined(in.op[0], defined);
}

void bind_prmt(const Match& m, Instr& in) {
  static constexpr std::string_view kModes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
  for (uint32_t i = 0; i < std::size(kModes); ++i) {
    if (m.has(kModes[i])) in.aux = i + 1;
  }
  in.exec = exec_prmt;
}

template <class Fn>
void bind_logic2(const Match& m, Instr& in) {
  if (m.type(0) != Type::kPred) return bind_int2<Fn>(m, in);
  in.exec = [](Warp& w, const Instr& i) {
    w.require_sources(i);
    w.set_predicate(i.op[0], Fn{}(w.predicate(i.op[1]), w.predicate(i.op[2])));
  };
}
void bind_not(const Match& m, Instr& in) {
  if (m.type(0) != Type::kPred) return bind_int1<Not>(m, in);
  in.exec = [](Warp& w, const Instr& i) {
    w.require_sources(i);
    w.set_predicate(i.op[0], ~w.predicate(i.op[1]));
  };
}
template <class Fn>
void bind_shift(const Match& m, Instr& in) {
  with_int(m.type(0), [&]<class T>(Tag<T>) { in.exec = map_lanes<T, Fn, T, uint32_t>; });
}
template <class Fn>
void bind_count(const Match& m, Instr& in) {
  with_int(m.type(0), [&]<class T>(Tag<T>) {
    if constexpr (std::is_unsigned_v<T>) in.exec = map_lanes<uint32_t, Fn, T>;
  });
}
template <bool kShiftAmount>
void bind_bfind(const Match& m, Instr& in) {
  with_int(m.type(0),
           [&]<class T>(Tag<T>) { in.exec = map_lanes<uint32_t, Bfind<kShiftAmount>, T>; });
}
void bind_bfe(const Match& m, Instr& in) {
  with_int(m.type(0), [&]<class T>(Tag<T>) { in.exec = map_lanes<T, Bfe, T, uint32_t, uint32_t>; });
}
void bind_bfi(const Match& m, Instr& in) {
  with_int(m.type(0), [&]<class T>(Tag<T>) {
    if constexpr (sizeof(T) >= 4 && std::is_unsigned_v<T>)
      in.exec = map_lanes<T, Bfi, T, T, uint32_t, uint32_t>;
  });
}
template <bool kLeft>
void bind_shf(const Match& m, Instr& in) {
  in.exec = m.has("clamp")
                ? map_lanes<uint32_t, Funnel<kLeft, true>, uint32_t, uint32_t, uint32_t>
                : map_lanes<uint32_t, Funnel<kLeft, false>, uint32_t, uint32_t, uint32_t>;
}

constexpr Row kRows[] = {
    {"and.pred|b16|b32|b64", "d:0 s:0 s:0", bind_logic2<And>},
    {"or.pred|b16|b32|b64", "d:0 s:0 s:0", bind_logic2<Or>},
    {"xor.pred|b16|b32|b64", "d:0 s:0 s:0", bind_logic2<Xor>},
    {"not.pred|b16|b32|b64", "d:0 s:0", bind_not},
    {"cnot.b16|b32|b64", "d:0 s:0", bind_int1<Cnot>},
    {"shl.b16|b32|b64", "d:0 s:0 s:u32", bind_shift<Shl>},
    {"shr.b16|b32|b64|$int", "d:0 s:0 s:u32", bind_shift<Shr>},
    {"shf.l.wrap|clamp.b32", "d:b32 s:b32 s:b32 s:u32", bind_shf<true>},
    {"shf.r.wrap|clamp.b32", "d:b32 s:b32 s:b32 s:u32", bind_shf<false>},
    {"popc.b32|b64", "d:u32 s:0", bind_count<Popc>},
    {"clz.b32|b64", "d:u32 s:0", bind_count<Clz>},
    {"brev.b32|b64", "d:0 s:0",
     [](const Match& m, Instr& in) {
       in.exec = m.type(0) == Type::kB32 ? map_lanes<uint32_t, Brev, uint32_t>
                                         : map_lanes<uint64_t, Brev, uint64_t>;
     }},
    {"bfind.$int3264", "d:u32 s:0", bind_bfind<false>},
    {"bfind.shiftamt.$int3264", "d:u32 s:0", bind_bfind<true>},
    {"bfe.$int3264", "d:0 s:0 s:u32 s:u32", bind_bfe},
    {"bfi.b32|b64", "d:0 s:0 s:0 s:u32 s:u32", bind_bfi},
    {"lop3.b32", "d:b32 s:b32 s:b32 s:b32 s:b32",
     bind_fixed<uint32_t, Lop3, uint32_t, uint32_t, uint32_t, uint32_t>},
    {"prmt.b32.f4e|b4e|rc8|ecl|ecr|rc16?", "d:b32 s:b32 s:b32 s:b32", bind_prmt},
};

}  // namespace

std::span<const Row> bit_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
