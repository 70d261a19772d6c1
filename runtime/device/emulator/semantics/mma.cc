// mma.sync: one row of kShapes per shape and type.
//
// Fragment layouts (PTX ISA, "Matrix Fragments for mma"): with g = lane / 4, t = lane % 4 and e
// elements per 32-bit register,
//   A (16 x k): register r, element i: row g + 8 * (r % 2), column t * e + i + 4 * e * (r / 2)
//   B (k x 8):  register r, element i: row t * e + i + 4 * e * r, column g
//   C, D (16 x 8), 32-bit: register r: row g + 8 * (r / 2), column 2 * t + r % 2
//   C, D (16 x 8), 16-bit: register r, element i: row g + 8 * r, column 2 * t + i
// and of the scale factors of .block_scale.scale_vec::4X, ue4m3 (PTX ISA, "Block Scaling for
// mma.sync"), of which byte i belongs to the elements 16 i .. 16 i + 15 along k:
//   A: row g + 8 * (t % 2), in the threads with t / 2 == thread-id-a
//   B: column g, in the thread with t == thread-id-b
#include <fmt/format.h>

#include "runtime/device/emulator/machine/block.h"
#include "runtime/device/emulator/semantics/bind.h"
#include "runtime/device/emulator/semantics/collective.h"
#include "runtime/device/emulator/semantics/float8_sum.h"

namespace sagejit::emulator {
namespace {

struct Place {
  unsigned row, column;
};
constexpr Place place_a(unsigned lane, unsigned r, unsigned i, unsigned e) {
  return {lane / 4 + 8 * (r % 2), lane % 4 * e + i + 4 * e * (r / 2)};
}
constexpr Place place_b(unsigned lane, unsigned r, unsigned i, unsigned e) {
  return {lane % 4 * e + i + 4 * e * r, lane / 4};
}
constexpr Place place_c32(unsigned lane, unsigned r) {
  return {lane / 4 + 8 * (r / 2), 2 * (lane % 4) + r % 2};
}
constexpr Place place_c16(unsigned lane, unsigned r, unsigned i) {
  return {lane / 4 + 8 * r, 2 * (lane % 4) + i};
}

constexpr unsigned kM = 16;
constexpr unsigned kN = 8;

// Each element of A and B is held exactly once.
consteval bool layouts_cover(unsigned k, unsigned e) {
  bool a[kM * 64] = {};
  bool b[64 * kN] = {};
  const unsigned ra = kM * k / (kWarpLanes * e);
  const unsigned rb = k * kN / (kWarpLanes * e);
  unsigned count = 0;
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    for (unsigned i = 0; i < e; ++i) {
      for (unsigned r = 0; r < ra; ++r) {
        const Place p = place_a(lane, r, i, e);
        count += a[p.row * k + p.column] ? 0 : 1;
        a[p.row * k + p.column] = true;
      }
      for (unsigned r = 0; r < rb; ++r) {
        const Place p = place_b(lane, r, i, e);
        count += b[p.row * kN + p.column] ? 0 : 1;
        b[p.row * kN + p.column] = true;
      }
    }
  }
  return count == (kM + kN) * k;
}

// Element types of A and B: as held in registers, and the type in which products are formed and
// summed. float is exact for integers of up to 8 bits (|sum| < 2^24), double for the products of
// halves and for sums of 8-bit floats.
struct S8 {
  using Raw = int8_t;
  using Value = float;
  static Value value(Raw x) { return x; }
};
struct U8 {
  using Raw = uint8_t;
  using Value = float;
  static Value value(Raw x) { return x; }
};
struct S4 {
  using Raw = uint8_t;  // two, the first in the lower bits
  using Value = float;
  static Value value(Raw x, unsigned i) {
    const int bits = x >> 4 * i & 15;
    return static_cast<Value>(bits < 8 ? bits : bits - 16);
  }
};
struct Float4 {
  using Raw = uint8_t;  // two, the first in the lower bits
  using Value = double;
  static Value value(Raw x, unsigned i) { return e2m1_to_f32(x >> 4 * i & 15); }
};
struct F16 {
  using Raw = uint16_t;
  using Value = double;
  static Value value(Raw x) { return f16_to_f32(x); }
};
template <class F>
struct Float8 {
  using Raw = uint8_t;
  using Value = double;
  static Value value(Raw x) { return float8_to_f32<F>(x); }
};
struct BF16 {
  using Raw = uint16_t;
  using Value = double;
  static Value value(Raw x) { return bf16_to_f32(x); }
};

template <class T>
constexpr unsigned kElementsOfRaw = 1;
template <>
constexpr unsigned kElementsOfRaw<S4> = 2;
template <>
constexpr unsigned kElementsOfRaw<Float4> = 2;

template <class T>
typename T::Value element(const typename T::Raw* row, unsigned k) {
  constexpr unsigned n = kElementsOfRaw<T>;
  if constexpr (n == 1) {
    return T::value(row[k]);
  } else {
    return T::value(row[k / n], k % n);
  }
}

// Registers to rows with k contiguous, kElements of them in a Raw: a register holds neighbours
// along k, so it is copied whole.
template <unsigned kRegisters, unsigned kElements, class Raw, unsigned kRows, unsigned kRaws,
          class PlaceOf>
void gather(const Warp& w, const Operand* s, Raw (&rows)[kRows][kRaws], PlaceOf place) {
  for (unsigned r = 0; r < kRegisters; ++r) {
    const uint32_t* reg = w.src<uint32_t>(s[r]);
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      const auto [row, k] = place(lane, r);
      std::memcpy(&rows[row][k / kElements], reg + lane, 4);
    }
  }
}

template <class Value>
struct Product {
  alignas(64) Value sum[kM][kN] = {};
};

// A and B as numbers. Rows of N as vectors of the host's smallest SIMD width: left to itself, GCC
// vectorises along k and shuffles, and it spills wider vector types.
template <class Value, unsigned kK>
struct Operands {
  typedef Value Vector __attribute__((vector_size(16)));
  static constexpr unsigned kWidth = 16 / sizeof(Value);
  static constexpr unsigned kParts = kN / kWidth;
  alignas(64) Value a[kM][kK];
  alignas(64) Vector b[kK][kParts];

  void multiply(Product<Value>& out) const {
    constexpr unsigned kTogether = 8 / kParts;  // rows: 8 independent sums in flight
    for (unsigned i = 0; i < kM; i += kTogether) {
      Vector sum[kTogether][kParts] = {};
      for (unsigned k = 0; k < kK; ++k) {
        for (unsigned j = 0; j < kTogether; ++j) {
          for (unsigned p = 0; p < kParts; ++p) sum[j][p] += a[i + j][k] * b[k][p];
        }
      }
      std::memcpy(out.sum[i], sum, sizeof(sum));
    }
  }
};

template <class A, class B, unsigned kK>
void load(const Warp& w, const Operand* s, Operands<typename A::Value, kK>& out) {
  constexpr unsigned e = 4 / sizeof(typename A::Raw) * kElementsOfRaw<A>;
  static_assert(layouts_cover(kK, e));
  constexpr unsigned ra = kM * kK / (kWarpLanes * e);
  constexpr unsigned rb = kK * kN / (kWarpLanes * e);
  alignas(64) typename A::Raw raw_a[kM][kK / kElementsOfRaw<A>];
  alignas(64) typename B::Raw raw_b[kN][kK / kElementsOfRaw<B>];
  gather<ra, kElementsOfRaw<A>>(w, s, raw_a,
                                [](unsigned lane, unsigned r) { return place_a(lane, r, 0, e); });
  gather<rb, kElementsOfRaw<B>>(w, s + ra, raw_b, [](unsigned lane, unsigned r) {
    const Place p = place_b(lane, r, 0, e);
    return Place{p.column, p.row};
  });
  constexpr unsigned kWidth = Operands<typename A::Value, kK>::kWidth;
  for (unsigned i = 0; i < kM; ++i) {
    for (unsigned k = 0; k < kK; ++k) out.a[i][k] = element<A>(raw_a[i], k);
  }
  for (unsigned n = 0; n < kN; ++n) {
    for (unsigned k = 0; k < kK; ++k) out.b[k][n / kWidth][n % kWidth] = element<B>(raw_b[n], k);
  }
}

enum MmaFlags : uint32_t { kSatfinite = 1, kE5M2A = 2, kE5M2B = 4 };

// Accumulator kinds.
struct AccS32 {
  static constexpr unsigned kRegisters = 4;
  static uint32_t add(uint32_t c, float sum, uint32_t flags) {
    const int64_t wide = int64_t{static_cast<int32_t>(c)} + static_cast<int32_t>(sum);
    if ((flags & kSatfinite) == 0) return static_cast<uint32_t>(wide);
    const int64_t low = wide > INT32_MAX ? INT32_MAX : wide;
    return static_cast<uint32_t>(low < INT32_MIN ? INT32_MIN : low);
  }
};
struct AccF32 {
  static constexpr unsigned kRegisters = 4;
  static uint32_t add(uint32_t c, double sum, uint32_t) {
    return std::bit_cast<uint32_t>(
        canonical(static_cast<float>(sum_odd(std::bit_cast<float>(c), sum))));
  }
};
struct AccF16 {
  static constexpr unsigned kRegisters = 2;
  static uint16_t add(uint16_t c, double sum, uint32_t) {
    return FormatF16::round(sum_odd(f16_to_f32(c), sum), Round::kNearest, kNanHalf);
  }
};

template <class Acc, class Value>
void accumulate(Warp& w, const Instr& in, const Operand* c, const Product<Value>& product) {
  uint32_t result[Acc::kRegisters][kWarpLanes];  // D may permute C's registers
  for (unsigned r = 0; r < Acc::kRegisters; ++r) {
    const uint32_t* source = w.src<uint32_t>(c[r]);
    uint32_t* d = result[r];
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      if constexpr (Acc::kRegisters == 4) {
        const Place p = place_c32(lane, r);
        d[lane] = Acc::add(source[lane], product.sum[p.row][p.column], in.aux);
      } else {
        uint32_t both = 0;
        for (unsigned i = 0; i < 2; ++i) {
          const Place p = place_c16(lane, r, i);
          const auto old = static_cast<uint16_t>(source[lane] >> 16 * i);
          both |= static_cast<uint32_t>(Acc::add(old, product.sum[p.row][p.column], in.aux))
                  << 16 * i;
        }
        d[lane] = both;
      }
    }
  }
  for (unsigned r = 0; r < Acc::kRegisters; ++r) {
    std::memcpy(w.dst<uint32_t>(in.op[r]), result[r], sizeof(result[r]));
    w.defined[in.op[r].defined] = kAllLanes;
  }
}

template <class A, class B, class Acc, unsigned kK>
void exec_mma(Warp& w, const Instr& in) {
  require_whole_warp(w);
  w.require_sources(in);
  ++w.block->report.mma;
  Operands<typename A::Value, kK> operands;
  load<A, B, kK>(w, in.op + in.num_dst, operands);
  Product<typename A::Value> product;
  operands.multiply(product);
  accumulate<Acc>(w, in, in.op + in.num_ops - Acc::kRegisters, product);
}

// 8-bit floats into f32 by the tensor cores of sm_89.
void exec_float8_sm_89(Warp& w, const Instr& in) {
  require_whole_warp(w);
  w.require_sources(in);
  ++w.block->report.mma;
  constexpr unsigned kElements = 4, ra = 4, rb = 2, rc = 4;
  const Operand* s = in.op + in.num_dst;
  std::byte a[kM][kMmaRowBytes], b[kN][kMmaRowBytes];
  gather<ra, 1>(w, s, a, [](unsigned lane, unsigned r) { return place_a(lane, r, 0, kElements); });
  gather<rb, 1>(w, s + ra, b, [](unsigned lane, unsigned r) {
    const Place p = place_b(lane, r, 0, kElements);
    return Place{p.column, p.row};
  });
  const auto type_of = [&](uint32_t is_e5m2) {
    return (in.aux & is_e5m2) != 0 ? MmaElement::kE5M2 : MmaElement::kE4M3;
  };
  WarpFloat8Sum sum;
  for (unsigned i = 0; i < kM; ++i) sum.set_row(i, type_of(kE5M2A), false, a[i]);
  for (unsigned j = 0; j < kN; ++j) sum.set_column(j, type_of(kE5M2B), b[j]);
  const auto each = [&](auto visit) {
    for (unsigned r = 0; r < rc; ++r) {
      for (unsigned lane = 0; lane < kWarpLanes; ++lane) visit(r, lane, place_c32(lane, r));
    }
  };
  each([&](unsigned r, unsigned lane, Place p) {
    sum.c[p.row][p.column] = w.src<uint32_t>(s[ra + rb + r])[lane];
  });
  sum.add_up(kN);
  each([&](unsigned r, unsigned lane, Place p) {
    w.dst<uint32_t>(in.op[r])[lane] = sum.out[p.row][p.column];
  });
  for (unsigned r = 0; r < rc; ++r) w.defined[in.op[r].defined] = kAllLanes;
}

// Segments of a row's pattern: ..., D type, A type, B type, C type.
template <class Acc>
void bind_float8(const Match& m, Instr& in) {
  constexpr size_t kTypesAt = 5;
  const bool wide_a = m.segments[kTypesAt + 1] == "e5m2",
             wide_b = m.segments[kTypesAt + 2] == "e5m2";
  if (std::is_same_v<Acc, AccF32> && m.target == "sm_89") {
    in.aux = (wide_a ? kE5M2A : 0u) | (wide_b ? kE5M2B : 0u);
    in.exec = exec_float8_sm_89;
    return;
  }
  using Narrow = Float8<E4M3>;
  using Wide = Float8<E5M2>;
  in.exec = wide_a ? (wide_b ? exec_mma<Wide, Wide, Acc, 32> : exec_mma<Wide, Narrow, Acc, 32>)
                   : (wide_b ? exec_mma<Narrow, Wide, Acc, 32> : exec_mma<Narrow, Narrow, Acc, 32>);
}

template <class A, class B, class Acc, unsigned kK>
void bind_mma(const Match& m, Instr& in) {
  in.aux = m.has("satfinite") ? kSatfinite : 0u;
  in.exec = exec_mma<A, B, Acc, kK>;
}

// mma of e2m1 with a ue4m3 scale factor for every 16 elements along k. Products of codes and scale
// factors are multiples of 2^-20 below 2^28, so that double holds every sum of them exactly: one
// rounding, of the sum with the accumulator. How the hardware rounds is not documented, and was not
// measured.
namespace block_scaled {

constexpr unsigned kK = 64, kGroup = 16, kA = 4, kB = 2, kC = 4;
// Behind A, B and C.
struct ScaleOperand {
  const Operand& data;
  const Operand& byte_id;
  const Operand& thread_id;
};

// One of the selector, which all lanes must agree on; anything above `most` is undefined.
unsigned selector(const Warp& w, const Operand& operand, unsigned most) {
  const uint16_t* ids = w.src<uint16_t>(operand);
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    if (ids[lane] <= most && ids[lane] == ids[0]) continue;
    w.fail(ErrorKind::kUnsupported, lane,
           fmt::format("a selector of scale factors is {}, beyond {} or not the same in all lanes",
                       ids[lane], most));
  }
  return ids[0];
}

double factor(const Warp& w, const ScaleOperand& scale, unsigned lane, unsigned group) {
  const auto code = static_cast<uint8_t>(w.src<uint32_t>(scale.data)[lane] >> 8 * group);
  if (code & 0x80) {
    w.fail(ErrorKind::kUnsupported, lane,
           fmt::format("scale factor {:#x} has bit 7 set: ue4m3 has no sign", code));
  }
  return float8_to_f32<E4M3>(code);
}

void exec(Warp& w, const Instr& in) {
  require_whole_warp(w);
  w.require_sources(in);
  ++w.block->report.mma;
  const Operand* s = in.op + in.num_dst;
  const Operand* last = s + kA + kB + kC;
  const ScaleOperand a{last[0], last[1], last[2]}, b{last[3], last[4], last[5]};
  for (const ScaleOperand& scale : {a, b}) selector(w, scale.byte_id, 0);
  const unsigned thread_a = selector(w, a.thread_id, 1), thread_b = selector(w, b.thread_id, 3);
  Operands<double, kK> operands;
  load<Float4, Float4, kK>(w, s, operands);
  constexpr unsigned kWidth = Operands<double, kK>::kWidth;
  for (unsigned k = 0; k < kK; ++k) {
    for (unsigned row = 0; row < kM; ++row) {
      operands.a[row][k] *= factor(w, a, row % 8 * 4 + 2 * thread_a + row / 8, k / kGroup);
    }
    for (unsigned n = 0; n < kN; ++n) {
      operands.b[k][n / kWidth][n % kWidth] *= factor(w, b, 4 * n + thread_b, k / kGroup);
    }
  }
  Product<double> product;
  operands.multiply(product);
  accumulate<AccF32>(w, in, s + kA + kB, product);
}

void bind(const Match& m, Instr& in) {
  if (m.target == "sm_120a" || m.target == "sm_121a") in.exec = exec;
}

}  // namespace block_scaled

constexpr Row kShapes[] = {
    {"mma.sync.aligned.m16n8k16.row.col.satfinite?.s32.s8.s8.s32",
     "d:b32*4 s:b32*2 s:b32*1 s:b32*4", bind_mma<S8, S8, AccS32, 16>},
    {"mma.sync.aligned.m16n8k32.row.col.satfinite?.s32.s8.s8.s32",
     "d:b32*4 s:b32*4 s:b32*2 s:b32*4", bind_mma<S8, S8, AccS32, 32>},
    {"mma.sync.aligned.m16n8k32.row.col.satfinite?.s32.u8.s8.s32",
     "d:b32*4 s:b32*4 s:b32*2 s:b32*4", bind_mma<U8, S8, AccS32, 32>},
    {"mma.sync.aligned.m16n8k32.row.col.satfinite?.s32.u8.u8.s32",
     "d:b32*4 s:b32*4 s:b32*2 s:b32*4", bind_mma<U8, U8, AccS32, 32>},
    {"mma.sync.aligned.m16n8k64.row.col.satfinite?.s32.s4.s4.s32",
     "d:b32*4 s:b32*4 s:b32*2 s:b32*4", bind_mma<S4, S4, AccS32, 64>},
    {"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", "d:b32*4 s:b32*2 s:b32*1 s:b32*4",
     bind_mma<F16, F16, AccF32, 8>},
    {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "d:b32*4 s:b32*4 s:b32*2 s:b32*4",
     bind_mma<F16, F16, AccF32, 16>},
    {"mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", "d:b32*2 s:b32*4 s:b32*2 s:b32*2",
     bind_mma<F16, F16, AccF16, 16>},
    {"mma.sync.aligned.m16n8k32.row.col.f32.e4m3|e5m2.e4m3|e5m2.f32",
     "d:b32*4 s:b32*4 s:b32*2 s:b32*4", bind_float8<AccF32>},
    {"mma.sync.aligned.m16n8k32.row.col.f16.e4m3|e5m2.e4m3|e5m2.f16",
     "d:b32*2 s:b32*4 s:b32*2 s:b32*2", bind_float8<AccF16>},
    {"mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", "d:b32*4 s:b32*2 s:b32*1 s:b32*4",
     bind_mma<BF16, BF16, AccF32, 8>},
    {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "d:b32*4 s:b32*4 s:b32*2 s:b32*4",
     bind_mma<BF16, BF16, AccF32, 16>},
    {"mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1.f32."
     "ue4m3",
     "d:b32*4 s:b32*4 s:b32*2 s:b32*4 s:b32 s:b16*2 s:b32 s:b16*2", block_scaled::bind},
};

}  // namespace

std::span<const Row> mma_rows() {
  return kShapes;
}

}  // namespace sagejit::emulator
