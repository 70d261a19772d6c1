// The instruction table: one row per instruction.
//
// pattern    opcode segments separated by '.'; a segment is alternatives separated by '|', optional
// with a
//            trailing '?'. $name expands to a named set of alternatives (kSets in match.cc).
// operands   one token per operand, in order:
//              d:T  destination   s:T  source   a  address   i  integer constant (goes to
//              Match::constants) l    label         t  branch-target list
//              m    [tensor map, {coordinates}]
//              A    matrix A of wgmma: a descriptor or {four registers}
//            T is a type name, or the index of a type segment of the opcode (0 = the first), or wN:
//            twice as wide as segment N's. Suffixes: *n  vector of n elements (H, Q: half or a
//            quarter of wgmma's N), * vector as .v2/.v4 says; ~ the register may be wider than the
//            type; ? optional. A leading | is the second half of a pair d|p.
// bind       chooses the body for the types and modifiers, and sets Instr::exec, aux, control.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "runtime/device/emulator/module.h"

namespace sagejit::emulator {

struct Match {
  std::vector<std::string_view> segments;  // per pattern segment after the name; empty: absent
  std::vector<Type> types;                 // of the segments that are types, in order
  std::vector<int64_t> constants;          // of `i` operands
  std::vector<Operand> operands;           // resolved, vectors flattened
  unsigned vector = 1;                     // 2 or 4 for .v2, .v4
  int branch_table = -1;                   // of `t` operands
  unsigned mma_n = 0;                      // N of a segment m64nNkK
  unsigned coordinates = 0;                // of an `m` operand
  std::string_view target;                 // the module's: "sm_90a"
  bool a_in_registers = false;             // of an `A` operand

  bool has(std::string_view modifier) const {
    for (std::string_view s : segments) {
      if (s == modifier) return true;
    }
    return false;
  }
  Type type(size_t i) const { return types.at(i); }
};

struct Row {
  std::string_view pattern;
  std::string_view operands;
  void (*bind)(const Match&, Instr&);
};

std::span<const Row> integer_rows();
std::span<const Row> bit_rows();
std::span<const Row> float_rows();
std::span<const Row> half_rows();
std::span<const Row> compare_rows();
std::span<const Row> convert_rows();
std::span<const Row> move_rows();
std::span<const Row> memory_rows();
std::span<const Row> atomic_rows();
std::span<const Row> async_rows();
std::span<const Row> matrix_rows();
std::span<const Row> mma_rows();
std::span<const Row> wgmma_rows();
std::span<const Row> mbarrier_rows();
std::span<const Row> setmaxnreg_rows();
std::span<const Row> bulk_rows();
std::span<const Row> tensor_rows();
std::span<const Row> collective_rows();
std::span<const Row> control_rows();

// Row whose pattern matches; null when none does. `match` gets segments, types and vector.
const Row* find_row(std::string_view opcode, Match& match);

// Patterns that begin with the same name, for messages; empty when the name is unknown.
std::vector<std::string_view> patterns_of(std::string_view name);

}  // namespace sagejit::emulator
