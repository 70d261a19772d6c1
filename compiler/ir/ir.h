// The kernel IR: one level, structured, imperative, typed, per thread.
//
// A Function is a list of instructions; `for` and `if` hold nested lists. A Value is either a
// constant or a register that exactly one instruction defines; a Var is a register that `set` may
// change, read by `get` and, in place, by the warpgroup's products. There is no implicit
// conversion, no undefined behaviour on integers (they wrap) and no floating-point contraction.
// specs: ops.def (operations), mma.def and wgmma.def (tensor-core products).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/ir/type.h"
#include "compiler/support/dtype.h"

namespace sagejit::ir {

enum class Op : uint16_t {
#define OP(id, name, results, operands, effect, min_sm, cuda, ptx) id,
#include "compiler/ir/ops.def"
#undef OP
#define MMA(id, name, m, n, k, a, b, c, ptx_version, ptx) id,
#include "compiler/ir/mma.def"
#undef MMA
  // Structural operations, which every back end prints in its own way.
  kParam,  // result = parameter number `operands[0]`
  kSmem,   // result: i32 shared-memory address of object number `operands[0]`
  kVar,    // result: a new variable, initialised to operands[0]
  kGet,    // result = value of variable operands[0]
  kSet,    // variable operands[0] = operands[1]
  kFor,    // for (result = operands[0]; result < operands[1] (signed); result += operands[2]) body
  kIf,     // if (operands[0]) body else orelse
  kIfUniform,  // the same where all threads of a block, or team, agree: barriers may stand inside
  kWhile,      // while (variable operands[0], an i32, is not 0) body
  kComment,
  kTie,        // the variables operands[0..] have their values here: none may be computed later
  kWgmmaWait,  // until at most operands[0] groups of products are in flight; the variables behind
               // it, which the finished ones wrote, may be read again
// variables operands[0..] += A B: then A (an i64 descriptor, or four registers), B (an i64
// descriptor), 0 or 1 that the variables are multiplied by first, and 0 or 1: whether other
// instructions wrote the registers since the last product, so that a fence must stand directly
// before
#define WGMMA(id, name, k, a, b, c, ptx_version, types, modifiers_ss, modifiers_rs) id,
#include "compiler/ir/wgmma.def"
#undef WGMMA
  kCount,
};

enum class Effect : uint8_t { kPure, kRead, kWrite, kSync };

// A row of ops.def or mma.def (the latter with `cuda` empty and a complete PTX template), by Op; of
// the others, name and ptx_version alone.
struct OpInfo {
  std::string_view name;
  std::string_view results;  // letters, see ops.def
  std::string_view operands;
  Effect effect;
  int min_sm;
  std::string_view cuda;
  std::string_view ptx;
  int ptx_version;  // of the PTX ISA that brought a product, 84: 8.4; else 0: as old as min_sm
};
const OpInfo& info(Op op);

// A row of mma.def.
struct MmaInfo {
  Op op;
  int m, n, k;
  DType a, b, c;
};
const MmaInfo& mma_info(Op op);
const MmaInfo* find_mma(Op op);        // null if `op` is none
Op mma_of(DType a, DType b, DType c);  // the row with these types

// A row of wgmma.def.
struct WgmmaInfo {
  Op op;
  int k;
  DType a, b, c;
  std::string_view types, modifiers_ss, modifiers_rs;
};
const WgmmaInfo* find_wgmma(Op op);  // null if `op` is none
Op wgmma_of(DType a, DType b, DType c);

// What packs four f32 as 8-bit floats of that type.
constexpr Op fp8_pack(DType type) {
  return type == DType::kE5M2 ? Op::kPackE5M2 : Op::kPackE4M3;
}

// How many of a product's (or wait's) operands are the variables it writes.
int num_accumulators(const struct Inst& inst);

struct Value {
  enum class Kind : uint8_t { kNone, kConst, kRegister, kVariable };
  Kind kind = Kind::kNone;
  Type type = Type::kI32;
  uint64_t bits = 0;  // kConst: the value, zero-extended; otherwise the register's number

  bool is_const() const { return kind == Kind::kConst; }
  explicit operator bool() const { return kind != Kind::kNone; }
  bool operator==(const Value&) const = default;
};

struct Inst;
using Block = std::vector<Inst>;

struct Inst {
  Op op;
  std::vector<Value> results;
  std::vector<Value> operands;
  Block body, orelse;  // kFor, kWhile: body; kIf, kIfUniform: both
  std::string text;    // kComment
};

struct Param {
  std::string name;
  Type type;  // kI32 or kI64; addresses are kI64
};

// A region of dynamic shared memory.
struct SmemObject {
  std::string name;
  int offset_bytes = 0;
  int bytes = 0;
};

struct Function {
  std::string name;
  std::vector<Param> params;
  std::vector<SmemObject> smem;
  int block_threads = 0;
  int min_blocks_per_sm = 1;
  int num_registers = 0;  // registers and variables are numbered from 0
  Block body;

  int smem_bytes() const;  // dynamic shared memory a launch must provide
};

// Text form: print and parse are inverse; see print.cc for the grammar.
std::string print(const Function& function);
// The (first) line that print writes for `inst`, not indented. For messages: `inst` may be wrong in
// any way.
std::string print_line(const Function& function, const Inst& inst);
// Checks form alone: verify() is for the meaning. Registers are numbered as in the text. Throws
// Error{kInternal} with the line and the reason.
Function parse(std::string_view text);

// Checks that every register is defined once and before use, that operands fit their signatures,
// that barriers of a block or team stand outside divergent control flow as far as that is visible
// (of an if.uniform it believes what the name says; named barriers are the generator's own), that
// shared-memory objects do not overlap, that names are unique and that `sm` has every operation.
// Throws Error{kInternal} with the offending line.
void verify(const Function& function, int sm);

}  // namespace sagejit::ir
