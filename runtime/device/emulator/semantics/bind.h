// Helpers with which table rows choose typed bodies.
#pragma once

#include "runtime/device/emulator/decode/table.h"
#include "runtime/device/emulator/machine/warp.h"
#include "runtime/device/emulator/semantics/numerics.h"

namespace sagejit::emulator {

template <class T>
struct Tag {
  using type = T;
};

struct Half {
  uint16_t bits;
  static constexpr bool kBrain = false;
};
struct BHalf {
  uint16_t bits;
  static constexpr bool kBrain = true;
};

// Calls f(Tag<T>{}) for an integer or bit type; others leave the instruction unbound, that is
// unsupported.
template <class F>
void with_int(Type t, F&& f) {
  switch (t) {
    case Type::kB16:
    case Type::kU16:
      return f(Tag<uint16_t>{});
    case Type::kB32:
    case Type::kU32:
      return f(Tag<uint32_t>{});
    case Type::kB64:
    case Type::kU64:
      return f(Tag<uint64_t>{});
    case Type::kS16:
      return f(Tag<int16_t>{});
    case Type::kS32:
      return f(Tag<int32_t>{});
    case Type::kS64:
      return f(Tag<int64_t>{});
    default:
      return;
  }
}

// Bits of a type as unsigned integer.
template <class F>
void with_bits(Type t, F&& f) {
  switch (info(t).bytes) {
    case 1:
      return f(Tag<uint8_t>{});
    case 2:
      return f(Tag<uint16_t>{});
    case 4:
      return f(Tag<uint32_t>{});
    case 8:
      return f(Tag<uint64_t>{});
    default:
      return;
  }
}

// Every scalar type that cvt knows.
template <class F>
void with_scalar(Type t, F&& f) {
  switch (t) {
    case Type::kU8:
      return f(Tag<uint8_t>{});
    case Type::kS8:
      return f(Tag<int8_t>{});
    case Type::kF16:
      return f(Tag<Half>{});
    case Type::kBF16:
      return f(Tag<BHalf>{});
    case Type::kF32:
      return f(Tag<float>{});
    case Type::kF64:
      return f(Tag<double>{});
    default:
      return with_int(t, f);
  }
}

// Unsigned type in which T's arithmetic cannot overflow into undefined behaviour.
template <class T>
using Wrap = std::conditional_t<(sizeof(T) < 4), uint32_t, std::make_unsigned_t<T>>;

inline Round rounding(const Match& m) {
  if (m.has("rz") || m.has("rzi")) return Round::kZero;
  if (m.has("rm") || m.has("rmi")) return Round::kDown;
  if (m.has("rp") || m.has("rpi")) return Round::kUp;
  return Round::kNearest;
}

template <class Fn>
void bind_int1(const Match& m, Instr& in) {
  with_int(m.type(0), [&](auto t) {
    using T = typename decltype(t)::type;
    in.exec = map_lanes<T, Fn, T>;
  });
}
template <class Fn>
void bind_int2(const Match& m, Instr& in) {
  with_int(m.type(0), [&](auto t) {
    using T = typename decltype(t)::type;
    in.exec = map_lanes<T, Fn, T, T>;
  });
}
template <class Fn>
void bind_int3(const Match& m, Instr& in) {
  with_int(m.type(0), [&](auto t) {
    using T = typename decltype(t)::type;
    in.exec = map_lanes<T, Fn, T, T, T>;
  });
}
template <class D, class Fn, class... S>
void bind_fixed(const Match&, Instr& in) {
  in.exec = map_lanes<D, Fn, S...>;
}

// Values of T held in registers of op.bytes >= sizeof(T): the low bits of each lane.
template <class T>
void read_lanes(const Warp& w, const Operand& op, T* out) {
  const std::byte* base = w.banks[op.bank] + op.offset;
  if (op.bytes == sizeof(T)) {
    std::memcpy(out, base, sizeof(T) * kWarpLanes);
    return;
  }
  for (unsigned l = 0; l < kWarpLanes; ++l) std::memcpy(out + l, base + l * op.bytes, sizeof(T));
}

// Stores active lanes of T into a register of op.bytes >= sizeof(T), sign- or zero-extended by T.
template <class T>
void write_lanes(Warp& w, const Operand& op, const T* values) {
  const auto store = [&]<class R>(Tag<R>) {
    R* d = w.dst<R>(op);
    for_lanes(w.mask, [&](unsigned l) {
      if constexpr (std::is_integral_v<T>) {
        d[l] = static_cast<R>(values[l]);
      } else {
        R bits = 0;
        std::memcpy(&bits, values + l, std::min(sizeof(T), sizeof(R)));
        d[l] = bits;
      }
    });
  };
  if (op.bytes == 1) store(Tag<uint8_t>{});
  if (op.bytes == 2) store(Tag<uint16_t>{});
  if (op.bytes == 4) store(Tag<uint32_t>{});
  if (op.bytes == 8) store(Tag<uint64_t>{});
  w.defined[op.defined] |= w.mask;
}

}  // namespace sagejit::emulator
