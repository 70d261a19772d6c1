// The arguments of one forward call, as the launch path sees them.
//
// Axes are logical: q [b, hq, m, d], k [b, hkv, n, d], v [b, hkv, n, dv], o [b, hq, m, dv],
// lse [b, hq, m]. The layout in memory is whatever the strides say.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "compiler/artifact.h"
#include "compiler/support/dtype.h"
#include "runtime/device/device.h"

namespace sagejit {

inline constexpr int kMaxRank = 4;

struct Tensor {
  bool given = false;  // false: the caller passed none; the rest is unset
  uint64_t address = 0;
  DType dtype = DType::kF16;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape = {};
  std::array<int64_t, kMaxRank> strides = {};  // in elements
};

// In the order of Symbol.
enum class Operand : uint8_t { kQ, kK, kV, kO, kLse, kCount };
inline constexpr int kNumOperands = static_cast<int>(Operand::kCount);
inline constexpr std::array<const char*, kNumOperands> kOperandNames = {"q", "k", "v", "o", "lse"};

struct AttentionArgs {
  std::array<Tensor, kNumOperands> tensors;  // by Operand
  uint64_t workspace = 0;
  uint64_t workspace_bytes = 0;
};

// Which phases a launch runs; bits may be combined.
enum PhaseSet : uint8_t { kQuantizePhase = 1, kAttendPhase = 2, kBothPhases = 3 };

constexpr bool contains(PhaseSet set, Phase phase) {
  return (set & (phase == Phase::kQuantize ? kQuantizePhase : kAttendPhase)) != 0;
}

// One bit per Operand.
using OperandSet = uint8_t;
constexpr OperandSet bit(Operand operand) {
  return static_cast<OperandSet>(1u << static_cast<int>(operand));
}

// Checked arguments: the value of every symbol of the plan's expressions (but num_sms, which is the
// device's), and the memory of each operand.
struct BoundArgs {
  std::array<int64_t, kNumSymbols> symbols = {};
  std::array<MemoryRange, kNumOperands> ranges;  // of the operands in use
  int num_ranges = 0;
  bool empty = false;  // no query row: there is nothing to do
};

// Checks shapes, dtypes, strides and, for the operands in `in_use`, addresses; allocates nothing.
// Outputs (o, lse) that are not in use need not be given.
// Throws Error{kArgument} naming the operand and the mend, Error{kUnsupported} for sizes beyond a
// limit.
//   shapes   b, m, n >= 0; hq, hkv >= 1; hq % hkv == 0; head dims are the contract's
//   layout   the last axis has stride 1; rows of q, k, v, o start on 16-byte boundaries (vector
//   access);
//            strides are not negative; an output has no stride 0
//   address  not null unless the tensor is empty; aligned to 16 bytes (lse: 4)
BoundArgs bind_args(const TensorContract& contract, const AttentionArgs& args, OperandSet in_use);

}  // namespace sagejit
