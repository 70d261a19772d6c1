// wgmma.mma_async: the decoded form of an instruction, and its operands in shared memory.
#pragma once

#include "runtime/device/emulator/machine/block.h"

namespace sagejit::emulator {

inline constexpr unsigned kMmaM = 64;
inline constexpr unsigned kMmaMaxN = 256;
inline constexpr unsigned kMmaRowBytes = 32;  // of A and B along K, for every type
inline constexpr unsigned kChunkBytes = 16;

enum class MmaElement : uint8_t { kS8, kU8, kE4M3, kE5M2, kF16, kBF16 };
enum class MmaAccumulator : uint8_t { kS32, kF32, kF16 };

// Packed in Instr::aux.
struct MmaForm {
  MmaElement a = MmaElement::kS8, b = MmaElement::kS8;
  MmaAccumulator d = MmaAccumulator::kS32;
  bool a_in_registers = false;
  bool trans_a = false, trans_b = false;  // M- or N-major in shared memory
  bool negate = false;                    // the product of imm-scale-a and imm-scale-b is -1
  bool saturate = false;
  unsigned n = 8;

  uint32_t pack() const;
  static MmaForm unpack(uint32_t aux);
  // Registers of D per thread.
  unsigned num_d() const { return d == MmaAccumulator::kF16 ? n / 4 : n / 2; }
  // What "the same shape" means for accumulators in flight.
  uint32_t shape() const { return n << 8 | static_cast<uint32_t>(d); }
};

// Shared-memory addresses of the 16-byte chunks of rows [first, first + rows) of a K-major operand,
// chunk 2 * row + half; or of an MN-major one of 16-bit elements, chunk (rows / 8) * k + row / 8
// (eight rows at one k). `rows` is a multiple of 8.
using Chunks = std::array<uint32_t, 2 * kMmaMaxN>;
void find_chunks(uint64_t descriptor, unsigned first, unsigned rows, bool mn_major, Chunks& out);

}  // namespace sagejit::emulator
