// atom and red. Lanes take effect in order; global atomics are atomic between host threads too.
#include <atomic>

#include "runtime/device/emulator/semantics/access.h"
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

struct AtomAdd {
  template <class T>
  T operator()(T old, T x, T) const {
    return static_cast<T>(static_cast<Wrap<T>>(old) + static_cast<Wrap<T>>(x));
  }
};
struct AtomMin {
  template <class T>
  T operator()(T old, T x, T) const {
    return x < old ? x : old;
  }
};
struct AtomMax {
  template <class T>
  T operator()(T old, T x, T) const {
    return x > old ? x : old;
  }
};
struct AtomAnd {
  template <class T>
  T operator()(T old, T x, T) const {
    return old & x;
  }
};
struct AtomOr {
  template <class T>
  T operator()(T old, T x, T) const {
    return old | x;
  }
};
struct AtomXor {
  template <class T>
  T operator()(T old, T x, T) const {
    return old ^ x;
  }
};
struct AtomExch {
  template <class T>
  T operator()(T, T x, T) const {
    return x;
  }
};
struct AtomCas {
  template <class T>
  T operator()(T old, T expected, T x) const {
    return old == expected ? x : old;
  }
};
struct AtomInc {
  template <class T>
  T operator()(T old, T limit, T) const {
    return old >= limit ? T{0} : old + 1;
  }
};
struct AtomDec {
  template <class T>
  T operator()(T old, T limit, T) const {
    return old == 0 || old > limit ? limit : old - 1;
  }
};
// Global f32 additions flush subnormals, shared ones do not.
template <bool kFlush>
struct AtomAddF32 {
  uint32_t operator()(uint32_t old, uint32_t x, uint32_t) const {
    const auto get = [](uint32_t b) {
      return kFlush ? flush(std::bit_cast<float>(b)) : std::bit_cast<float>(b);
    };
    const float r = canonical(get(old) + get(x));
    return std::bit_cast<uint32_t>(kFlush ? flush(r) : r);
  }
};
struct AtomAddF64 {
  uint64_t operator()(uint64_t old, uint64_t x, uint64_t) const {
    return std::bit_cast<uint64_t>(
        canonical(std::bit_cast<double>(old) + std::bit_cast<double>(x)));
  }
};
template <class F>
uint16_t add_half(uint16_t a, uint16_t b) {
  if constexpr (std::is_same_v<F, FormatF16>) {
    return F::round(double{f16_to_f32(a)} + f16_to_f32(b), Round::kNearest, kNanHalf);
  } else {
    return F::round(sum_odd(bf16_to_f32(a), bf16_to_f32(b)), Round::kNearest, kNanHalf);
  }
}
template <class F>
struct AtomAddHalf {
  template <class T>
  T operator()(T old, T x, T) const {
    T out = 0;
    for (unsigned s = 0; s < 8 * sizeof(T); s += 16) {
      out = static_cast<T>(out | static_cast<T>(add_half<F>(static_cast<uint16_t>(old >> s),
                                                            static_cast<uint16_t>(x >> s)))
                                     << s);
    }
    return out;
  }
};

Space space_of(const Match& m) {
  if (m.has("global")) return Space::kGlobal;
  return m.has("shared") || m.has("shared::cta") ? Space::kShared : Space::kReg;
}

template <class T, class Op>
void exec_atom(Warp& w, const Instr& in) {
  w.require_sources(in);
  const unsigned first = in.num_dst;
  Addresses address;
  Pointers pointer;
  compute_addresses(w, in.op[first], in.offset, address);
  const Request q{static_cast<Space>(in.aux), AccessKind::kReadWrite, sizeof(T), true};
  resolve(w, in, q, address, pointer);
  const T* x = w.src<T>(in.op[first + 1]);
  const T* y = in.num_ops > first + 2 ? w.src<T>(in.op[first + 2]) : x;
  T* d = in.num_dst != 0 ? w.dst<T>(in.op[0]) : nullptr;
  for (uint32_t m = w.mask; m != 0; m &= m - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(m));
    std::atomic_ref<T> cell(*reinterpret_cast<T*>(pointer[l]));
    T old = cell.load();
    const T a = x[l];
    const T b = y[l];
    while (!cell.compare_exchange_weak(old, Op{}(old, a, b))) {
    }
    if (d != nullptr) d[l] = old;
  }
  if (d != nullptr) w.defined[in.op[0].defined] |= w.mask;
  wrote(w, q.space);
}

template <class Op>
void bind_atom(const Match& m, Instr& in) {
  in.aux = static_cast<uint32_t>(space_of(m));
  with_int(m.type(0), [&]<class T>(Tag<T>) {
    if constexpr (sizeof(T) >= 4 || std::is_same_v<Op, AtomCas> || std::is_same_v<Op, AtomExch>) {
      in.exec = exec_atom<T, Op>;
    }
  });
}

void bind_add(const Match& m, Instr& in) {
  in.aux = static_cast<uint32_t>(space_of(m));
  switch (m.type(0)) {
    case Type::kF32:
      in.exec = space_of(m) == Space::kShared ? exec_atom<uint32_t, AtomAddF32<false>>
                                              : exec_atom<uint32_t, AtomAddF32<true>>;
      return;
    case Type::kF64:
      in.exec = exec_atom<uint64_t, AtomAddF64>;
      return;
    case Type::kF16:
      in.exec = exec_atom<uint16_t, AtomAddHalf<FormatF16>>;
      return;
    case Type::kF16x2:
      in.exec = exec_atom<uint32_t, AtomAddHalf<FormatF16>>;
      return;
    case Type::kBF16:
      in.exec = exec_atom<uint16_t, AtomAddHalf<FormatBF16>>;
      return;
    case Type::kBF16x2:
      in.exec = exec_atom<uint32_t, AtomAddHalf<FormatBF16>>;
      return;
    default:
      return bind_atom<AtomAdd>(m, in);
  }
}

constexpr std::string_view kAtom = "d:0 a s:0";
constexpr std::string_view kRed = "a s:0";

// atom and red with the usual prefix (NVVM still prints the scope behind the space); OP is the
// operation with its types.
#define SAGEJIT_ATOMIC(OP, BIND)                                                                \
  {"atom.relaxed|acquire|release|acq_rel?.$scope?.global|$shared?.$scope?." OP, kAtom, BIND}, { \
    "red.relaxed|release?.$scope?.global|$shared?.$scope?." OP, kRed, BIND                      \
  }

constexpr Row kRows[] = {
    SAGEJIT_ATOMIC("add.u32|s32|u64|f32|f64", bind_add),
    SAGEJIT_ATOMIC("add.noftz.f16|f16x2|bf16|bf16x2", bind_add),
    SAGEJIT_ATOMIC("min.$int3264", bind_atom<AtomMin>),
    SAGEJIT_ATOMIC("max.$int3264", bind_atom<AtomMax>),
    SAGEJIT_ATOMIC("and.b32|b64", bind_atom<AtomAnd>),
    SAGEJIT_ATOMIC("or.b32|b64", bind_atom<AtomOr>),
    SAGEJIT_ATOMIC("xor.b32|b64", bind_atom<AtomXor>),
    SAGEJIT_ATOMIC("inc.u32", bind_atom<AtomInc>),
    SAGEJIT_ATOMIC("dec.u32", bind_atom<AtomDec>),
    {"atom.relaxed|acquire|release|acq_rel?.$scope?.global|$shared?.$scope?.exch.b32|b64", kAtom,
     bind_atom<AtomExch>},
    {"atom.relaxed|acquire|release|acq_rel?.$scope?.global|$shared?.$scope?.cas.b16|b32|b64",
     "d:0 a s:0 s:0", bind_atom<AtomCas>},
};

}  // namespace

std::span<const Row> atomic_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
