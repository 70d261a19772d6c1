// wgmma: layouts in shared memory and in registers, and the arithmetic.
//
// A descriptor (PTX ISA, "Matrix Descriptor Format") holds, in units of 16 bytes, the start address
// in bits 0-13, the leading byte offset LBO in 16-29 and the stride byte offset SBO in 32-45; bits
// 62-63 are the swizzle: 0 none, 1 128 B, 2 64 B, 3 32 B. With chunks of 16 bytes, W the width of
// the swizzle in chunks (1 without one), the chunk at
//   K-major, row r, chunk h along K:  start + r / 8 * SBO + r % 8 * 16 W + h * (W == 1 ? LBO : 16)
//   MN-major, k, chunk c of rows:     start + k / 8 * (W == 1 ? LBO : SBO) + k % 8 * 16 W
//                                     + c / W * (W == 1 ? SBO : LBO) + c % W * 16
// is found with address bits 4.. exclusive-ored with bits 7.. as far as W says.
//
// D, 32-bit: register r of a lane: row 16 * warp + lane / 4 + 8 * (r / 2 % 2), column 8 * (r / 4) +
// 2 * (lane % 4) + r % 2. 16-bit: the pair of columns is in one register. A in registers: as for
// mma.m16n8k32 and .m16n8k16, 16 rows per warp.
#include "runtime/device/emulator/semantics/float8_sum.h"
#include "runtime/device/emulator/semantics/numerics.h"
#include "runtime/device/emulator/semantics/wgmma.h"

namespace sagejit::emulator {
namespace {

constexpr unsigned kWarpRows = kMmaM / kWarpgroupWarps;
using RawA = std::array<std::array<std::byte, kMmaRowBytes>, kMmaM>;
using RawB = std::array<std::array<std::byte, kMmaRowBytes>, kMmaMaxN>;

// Rows with K contiguous, from shared memory.
void load_rows(const Block& b, uint64_t descriptor, unsigned rows, bool mn_major,
               std::array<std::byte, kMmaRowBytes>* out) {
  Chunks chunks;
  find_chunks(descriptor, 0, rows, mn_major, chunks);
  const std::byte* shared = b.shared.data();
  if (!mn_major) {
    for (unsigned i = 0; i < 2 * rows; ++i) {
      std::memcpy(out[i / 2].data() + i % 2 * kChunkBytes, shared + (chunks[i] - kSharedBase),
                  kChunkBytes);
    }
    return;
  }
  constexpr unsigned kHalf = 2;
  for (unsigned i = 0; i < 2 * rows; ++i) {
    const unsigned k = i / (rows / 8);
    const unsigned row = i % (rows / 8) * 8;
    for (unsigned j = 0; j < 8; ++j) {
      std::memcpy(out[row + j].data() + k * kHalf, shared + (chunks[i] - kSharedBase) + j * kHalf,
                  kHalf);
    }
  }
}

void load_fragments(const Block& b, uint32_t warpgroup, const Instr& in, unsigned first_op,
                    RawA& out) {
  for (unsigned i = 0; i < kWarpgroupWarps; ++i) {
    const Warp& w = b.warps[warpgroup * kWarpgroupWarps + i];
    for (unsigned r = 0; r < 4; ++r) {
      const uint32_t* reg = w.src<uint32_t>(in.op[first_op + r]);
      for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
        const unsigned row = i * kWarpRows + lane / 4 + 8 * (r % 2);
        std::memcpy(out[row].data() + lane % 4 * 4 + r / 2 * 16, reg + lane, 4);
      }
    }
  }
}

template <class Value>
void convert_row(const std::array<std::byte, kMmaRowBytes>& raw, MmaElement type, Value* out) {
  for (unsigned k = 0; k < kMmaRowBytes; ++k) {
    const auto byte = static_cast<uint8_t>(raw[k]);
    switch (type) {
      case MmaElement::kS8:
        out[k] = static_cast<Value>(static_cast<int8_t>(byte));
        break;
      case MmaElement::kU8:
        out[k] = static_cast<Value>(byte);
        break;
      case MmaElement::kE4M3:
        out[k] = static_cast<Value>(float8_to_f32<E4M3>(byte));
        break;
      default:
        out[k] = static_cast<Value>(float8_to_f32<E5M2>(byte));
        break;
    }
  }
}
template <class Value>
void convert_halves(const std::array<std::byte, kMmaRowBytes>& raw, MmaElement type, Value* out) {
  for (unsigned k = 0; k < kMmaRowBytes / 2; ++k) {
    uint16_t half = 0;
    std::memcpy(&half, raw.data() + 2 * k, 2);
    out[k] = static_cast<Value>(type == MmaElement::kF16 ? f16_to_f32(half) : bf16_to_f32(half));
  }
}
bool is_half(MmaElement type) {
  return type == MmaElement::kF16 || type == MmaElement::kBF16;
}

// Sums of products, in float where that is exact (8-bit integers: |sum| < 2^24), else in double in
// the order of k.
template <class Value>
struct Scratch {
  alignas(64) Value a[kMmaM][kMmaRowBytes];
  alignas(64) Value b[kMmaRowBytes][kMmaMaxN];
  alignas(64) Value sum[kMmaM][kMmaMaxN];
  RawA raw_a;
  RawB raw_b;
};

// Panels of 8 columns as vectors of the host's smallest SIMD width, 4 rows together.
template <class Value>
void multiply(Scratch<Value>& s, unsigned n, unsigned num_k) {
  typedef Value Vector __attribute__((vector_size(16)));
  constexpr unsigned kWidth = 16 / sizeof(Value);
  constexpr unsigned kParts = 8 / kWidth;
  constexpr unsigned kTogether = 8 / kParts;
  for (unsigned column = 0; column < n; column += 8) {
    Vector panel[kMmaRowBytes][kParts];
    for (unsigned k = 0; k < num_k; ++k) std::memcpy(panel[k], &s.b[k][column], sizeof(panel[k]));
    for (unsigned i = 0; i < kMmaM; i += kTogether) {
      Vector sum[kTogether][kParts] = {};
      for (unsigned k = 0; k < num_k; ++k) {
        for (unsigned j = 0; j < kTogether; ++j) {
          for (unsigned p = 0; p < kParts; ++p) sum[j][p] += s.a[i + j][k] * panel[k][p];
        }
      }
      for (unsigned j = 0; j < kTogether; ++j) {
        std::memcpy(&s.sum[i + j][column], sum[j], sizeof(sum[j]));
      }
    }
  }
}

template <class Value>
void fill_operands(Scratch<Value>& s, const MmaForm& form) {
  Value row[kMmaRowBytes];
  const bool halves = is_half(form.a);
  for (unsigned i = 0; i < kMmaM; ++i) {
    halves ? convert_halves(s.raw_a[i], form.a, s.a[i]) : convert_row(s.raw_a[i], form.a, s.a[i]);
  }
  const unsigned num_k = halves ? kMmaRowBytes / 2 : kMmaRowBytes;
  for (unsigned j = 0; j < form.n; ++j) {
    halves ? convert_halves(s.raw_b[j], form.b, row) : convert_row(s.raw_b[j], form.b, row);
    for (unsigned k = 0; k < num_k; ++k) s.b[k][j] = row[k];
  }
}

struct AddS32 {
  bool saturate;
  uint32_t operator()(uint32_t c, float sum) const {
    const int64_t wide = int64_t{static_cast<int32_t>(c)} + static_cast<int32_t>(sum);
    if (!saturate) return static_cast<uint32_t>(wide);
    const int64_t low = wide > INT32_MAX ? INT32_MAX : wide;
    return static_cast<uint32_t>(low < INT32_MIN ? INT32_MIN : low);
  }
};
struct AddF32 {
  uint32_t operator()(uint32_t c, double sum) const {
    return std::bit_cast<uint32_t>(
        canonical(static_cast<float>(sum_odd(std::bit_cast<float>(c), sum))));
  }
};
uint16_t add_f16(uint16_t c, double sum) {
  return f32_to_f16(odd_f32(sum_odd(f16_to_f32(c), sum)));
}

// A fragment's row of sums starts at sum[lane / 4]: columns 2 * (lane % 4) and the next.
template <class Value, class Add>
void accumulate32(Warp& w, const MmaOp& op, const MmaForm& form, const Scratch<Value>& s, Add add) {
  const unsigned first = w.index % kWarpgroupWarps * kWarpRows;
  for (unsigned r = 0; r < form.num_d(); ++r) {
    uint32_t* d = w.dst<uint32_t>(op.instr->op[r]);
    Value values[kWarpLanes];
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      values[l] = s.sum[first + l / 4 + 8 * (r / 2 % 2)][8 * (r / 4) + 2 * (l % 4) + r % 2];
    }
    if (form.negate) {
      for (Value& v : values) v = -v;
    }
    for (unsigned l = 0; l < kWarpLanes; ++l) d[l] = add(op.scale_d ? d[l] : 0, values[l]);
  }
}

void accumulate16(Warp& w, const MmaOp& op, const MmaForm& form, const Scratch<double>& s) {
  const unsigned first = w.index % kWarpgroupWarps * kWarpRows;
  for (unsigned r = 0; r < form.num_d(); ++r) {
    uint32_t* d = w.dst<uint32_t>(op.instr->op[r]);
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      const double* sum = &s.sum[first + l / 4 + 8 * (r % 2)][8 * (r / 2) + 2 * (l % 4)];
      const uint32_t c = op.scale_d ? d[l] : 0;
      const double sign = form.negate ? -1.0 : 1.0;
      d[l] = add_f16(static_cast<uint16_t>(c), sign * sum[0]) |
             static_cast<uint32_t>(add_f16(static_cast<uint16_t>(c >> 16), sign * sum[1])) << 16;
    }
  }
}

void load_operands(const Block& b, uint32_t warpgroup, const MmaOp& op, const MmaForm& form,
                   RawA& raw_a, RawB& raw_b) {
  if (form.a_in_registers) {
    load_fragments(b, warpgroup, *op.instr, form.num_d(), raw_a);
  } else {
    load_rows(b, op.descriptor_a, kMmaM, form.trans_a, raw_a.data());
  }
  load_rows(b, op.descriptor_b, form.n, form.trans_b, raw_b.data());
}

template <class Value>
void execute(Block& b, uint32_t warpgroup, const MmaOp& op, const MmaForm& form) {
  static thread_local std::unique_ptr<Scratch<Value>> scratch = std::make_unique<Scratch<Value>>();
  Scratch<Value>& s = *scratch;
  load_operands(b, warpgroup, op, form, s.raw_a, s.raw_b);
  fill_operands(s, form);
  multiply(s, form.n, is_half(form.a) ? kMmaRowBytes / 2 : kMmaRowBytes);
  for (unsigned i = 0; i < kWarpgroupWarps; ++i) {
    Warp& w = b.warps[warpgroup * kWarpgroupWarps + i];
    if constexpr (std::is_same_v<Value, float>) {
      accumulate32(w, op, form, s, AddS32{form.saturate});
    } else if (form.d == MmaAccumulator::kF32) {
      accumulate32(w, op, form, s, AddF32{});
    } else {
      accumulate16(w, op, form, s);
    }
  }
}

// D of one warp, 32-bit: to a matrix or from it.
template <class Move>
void each_d32(Warp& w, const MmaOp& op, const MmaForm& form, Move move) {
  const unsigned first = w.index % kWarpgroupWarps * kWarpRows;
  for (unsigned r = 0; r < form.num_d(); ++r) {
    uint32_t* d = w.dst<uint32_t>(op.instr->op[r]);
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      move(d[l], first + l / 4 + 8 * (r / 2 % 2), 8 * (r / 4) + 2 * (l % 4) + r % 2);
    }
  }
}

void execute_float8(Block& b, uint32_t warpgroup, const MmaOp& op, const MmaForm& form) {
  struct Memory {
    WgmmaFloat8Sum sum;
    RawA raw_a;
    RawB raw_b;
  };
  static thread_local std::unique_ptr<Memory> memory = std::make_unique<Memory>();
  WgmmaFloat8Sum& s = memory->sum;
  load_operands(b, warpgroup, op, form, memory->raw_a, memory->raw_b);
  for (unsigned i = 0; i < kMmaM; ++i) {
    s.set_row(i, form.a, form.negate, memory->raw_a[i].data());
  }
  for (unsigned j = 0; j < form.n; ++j) s.set_column(j, form.b, memory->raw_b[j].data());
  const std::span<Warp> warps(&b.warps[warpgroup * kWarpgroupWarps], kWarpgroupWarps);
  for (Warp& w : warps) {
    each_d32(w, op, form, [&](uint32_t d, unsigned row, unsigned column) {
      s.c[row][column] = op.scale_d ? d : 0;
    });
  }
  s.add_up(form.n);
  for (Warp& w : warps) {
    each_d32(w, op, form,
             [&](uint32_t& d, unsigned row, unsigned column) { d = s.out[row][column]; });
  }
}

constexpr uint32_t kFieldMask = 0x3fff;

}  // namespace

void find_chunks(uint64_t descriptor, unsigned first, unsigned rows, bool mn_major, Chunks& out) {
  const auto field = [&](unsigned bit) {
    return static_cast<uint32_t>(descriptor >> bit & kFieldMask) * kChunkBytes;
  };
  static constexpr unsigned kWidths[] = {1, 8, 4, 2};
  const uint32_t start = field(0), lbo = field(16), sbo = field(32);
  const unsigned width = kWidths[descriptor >> 62];
  const auto swizzle = [&](uint32_t address) {
    return address ^ (address >> 7 & (width - 1)) << 4;
  };
  unsigned count = 0;
  if (!mn_major) {
    const uint32_t along_k = width == 1 ? lbo : kChunkBytes;
    for (unsigned r = first; r < first + rows; ++r) {
      const uint32_t row = start + r / 8 * sbo + r % 8 * kChunkBytes * width;
      for (unsigned h = 0; h < 2; ++h) out[count++] = swizzle(row + h * along_k);
    }
    return;
  }
  constexpr unsigned kK = kMmaRowBytes / 2;
  const uint32_t along_k = width == 1 ? lbo : sbo;
  const uint32_t along_rows = width == 1 ? sbo : lbo;
  for (unsigned k = 0; k < kK; ++k) {
    const uint32_t row = start + k / 8 * along_k + k % 8 * kChunkBytes * width;
    for (unsigned c = first / 8; c < (first + rows) / 8; ++c) {
      out[count++] = swizzle(row + c / width * along_rows + c % width * kChunkBytes);
    }
  }
}

void execute_mma(Block& block, uint32_t warpgroup, const MmaOp& op) {
  const MmaForm form = MmaForm::unpack(op.instr->aux);
  if (form.d == MmaAccumulator::kS32) {
    execute<float>(block, warpgroup, op, form);
  } else if (form.d == MmaAccumulator::kF32 && !is_half(form.a)) {
    execute_float8(block, warpgroup, op, form);
  } else {
    execute<double>(block, warpgroup, op, form);
  }
}

}  // namespace sagejit::emulator
