// How long the units of a multiprocessor are busy with an operation of the IR: its PTX instructions
// (ops.def, mma.def, wgmma.def), what each becomes (instruction_units.def), and how fast the target
// is (throughput.h). Pure and thread-safe.
#pragma once

#include <array>
#include <string_view>

#include "compiler/cost/loop_counts.h"
#include "compiler/target/throughput.h"

namespace sagejit::cost {

enum class Unit {
  kTensor,   // tensor cores
  kSpecial,  // exponentials and logarithms (MUFU), conversions to integers
  kFp32,     // f32 additions and products
  kAlu,      // integers, comparisons, packing conversions
  kShared,   // shared memory: loads, stores, matrices, operands of warpgroups' products, shuffles
  kIssue,    // the four schedulers
};
inline constexpr int kNumUnits = 6;

std::string_view name_of(Unit unit);

// Clocks that each unit of one multiprocessor is busy; indexed by Unit.
using UnitClocks = std::array<double, kNumUnits>;

enum class InstructionKind { kNone, kSpecial, kFp32, kAlu, kIntegerMax, kIntToFloat, kShared };

// Of `count.count` such operations of one warp; of a warpgroup's product, of each of its warps.
// Infinite where the target has no such product in hardware. Throws Error{kInternal} for an
// instruction that instruction_units.def does not know.
UnitClocks clocks_of(const OpCount& count, const Throughput& throughput);

}  // namespace sagejit::cost
