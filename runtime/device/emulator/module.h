// The decoded program: what the machine executes. Immutable after Program::parse.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/emulator/emulator.h"
#include "runtime/device/emulator/parse/ast.h"

namespace sagejit::emulator {

inline constexpr unsigned kWarpLanes = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

struct Warp;
struct Instr;
struct SpecialValue;  // a row of the special-register table
using ExecFn = void (*)(Warp&, const Instr&);

// A value per lane: a register of the warp or a constant of the kernel. Values of N bytes are N*32
// bytes of consecutive lanes; a predicate is one word with a bit per lane.
struct Operand {
  enum Bank : uint8_t { kRegisters, kConstants };
  uint32_t offset = 0;  // byte offset in the bank
  uint32_t defined =
      0;  // index of the word with a bit per lane that was written; 0: always defined
  Bank bank = kRegisters;
  uint8_t bytes = 0;     // 1, 2, 4, 8; 0 for a predicate
  bool negated = false;  // predicates: !p
  bool sink = false;     // destination `_`
};

// Why an instruction concerns the scheduler.
enum class Control : uint8_t {
  kNone,
  kSync,      // may block or release lanes; execution goes on behind it
  kBranch,    // to Instr::target, where the guard holds
  kIndirect,  // to one of a branch table
  kExit,      // lanes end
};

struct Instr {
  ExecFn exec = nullptr;
  const Operand* op = nullptr;  // destinations, then sources, in the order of the row's signature
  uint8_t num_ops = 0;
  uint8_t num_dst = 0;
  Control control = Control::kNone;
  bool guarded = false;
  bool block_start = false;            // first of a basic block: diverged lanes may rejoin here
  bool touches_mma = false;            // names a register of Kernel::mma_slots
  bool completes_on_mbarrier = false;  // a copy that reports its bytes to an mbarrier
  uint8_t num_mma = 0;                 // wgmma: operands [0, num_mma) are in flight until its wait
  uint32_t line = 0;
  uint32_t index = 0;  // in Kernel::code
  Operand guard;
  uint32_t target = 0;    // branch: index of the instruction
  uint32_t position = 0;  // place in the order in which diverged lanes are run; see cfg.cc
  int64_t offset = 0;     // of the (first) memory operand
  int64_t offset2 = 0;    // of the second
  int64_t offset3 = 0;    // of the third
  uint32_t aux = 0;       // meaning is the row's
  const SpecialValue* special = nullptr;  // of a mov from a register that changes
};

// A special register that a kernel reads; filled when a warp starts.
struct SpecialUse {
  const SpecialValue* value;
  uint32_t offset;  // in the register bank
};

// A constant operand: the scalar that all lanes hold.
struct Constant {
  uint32_t offset;
  uint8_t bytes;  // 0: predicate
  uint64_t bits;
  int32_t variable = -1;  // module variable whose address is added
};

struct Kernel {
  KernelInfo info;
  std::vector<Instr> code;  // ends with an implicit `ret`
  std::vector<Operand> operands;
  std::vector<std::vector<uint32_t>> branch_tables;  // of brx.idx
  std::vector<Constant> constants;
  std::vector<SpecialUse> specials;
  uint32_t register_bytes = 0;  // per warp
  uint32_t num_defined = 1;     // words of written-lane bits
  uint32_t constant_bytes = 0;
  uint32_t local_bytes = 0;          // per thread
  uint32_t static_shared_bytes = 0;  // from kSharedBase
  uint32_t dynamic_shared_align = 16;
  // Registers that wgmma uses asynchronously: slot + 1 by Operand::defined; 0: other registers.
  std::vector<uint16_t> mma_slots;
  uint32_t num_mma_slots = 0;
  uint32_t max_thread_registers = 0;  // .maxnreg; 0 = not given
  uint32_t min_blocks = 1;            // .minnctapersm
};

struct Module {
  std::string source;
  AstModule ast;  // variables and their initialisers
  std::vector<KernelInfo> infos;
  std::vector<std::unique_ptr<Kernel>> kernels;

  std::string_view line_text(uint32_t line) const;
};

// Address windows of generic addressing, far from host addresses.
inline constexpr uint64_t kWindowMask = 0xffff'ffff'0000'0000;
inline constexpr uint64_t kSharedWindow = 0x7a00'0001'0000'0000;
inline constexpr uint64_t kLocalWindow = 0x7a00'0002'0000'0000;
inline constexpr uint64_t kParamWindow = 0x7a00'0003'0000'0000;
// Shared memory begins here, not at 0: a null shared address is an error, as 1024-byte alignment is
// not.
inline constexpr uint32_t kSharedBase = 1024;

}  // namespace sagejit::emulator
