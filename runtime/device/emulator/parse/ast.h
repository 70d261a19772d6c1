// Parsed PTX: names resolved to registers and variables, opcodes still text. Text views point into
// the Module's copy of the source.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/emulator/parse/types.h"

namespace sagejit::emulator {

struct Variable {
  std::string name;
  Space space = Space::kGlobal;
  Type type = Type::kB8;
  uint32_t align = 1;
  uint64_t bytes = 0;
  bool unsized = false;         // extern shared array: the launch's dynamic shared memory
  std::vector<std::byte> init;  // global and const: `bytes` long
  uint64_t offset = 0;          // shared, local, param: address in its space
};

struct RegisterInfo {
  std::string name;
  Type type = Type::kB32;
};

// Index into which table a name resolved to.
enum class RefKind : uint8_t { kRegister, kSpecial, kModuleVariable, kKernelVariable, kUnresolved };

struct AstOperand {
  enum class Kind : uint8_t { kName, kInteger, kFloat32, kFloat64, kVector, kMemory, kSink };
  Kind kind = Kind::kName;
  RefKind ref = RefKind::kUnresolved;
  uint32_t index = 0;                // in the table `ref` names
  std::string_view name;             // kName, or base of kMemory (empty: absolute address)
  uint32_t scope = 0;                // lexical scope of a label reference
  int64_t offset = 0;                // name+offset, [base+offset]
  uint64_t bits = 0;                 // value of a constant
  bool negated = false;              // !p
  bool piped = false;                // written after '|'
  std::vector<AstOperand> elements;  // of kVector; of kMemory: coordinates
};

struct AstInstr {
  uint32_t line = 0;
  std::string_view opcode;  // with modifiers
  bool guarded = false;
  AstOperand guard;
  std::vector<AstOperand> operands;
};

struct Label {
  std::string_view name;
  uint32_t scope = 0;
  uint32_t instr = 0;  // index of the instruction that follows
};

// name: .branchtargets a, b, ...
struct BranchTargets {
  std::string_view name;
  uint32_t scope = 0;
  std::vector<std::string_view> labels;
};

struct AstKernel {
  std::string name;
  uint32_t line = 0;
  std::vector<Variable> params;  // in order, offsets assigned
  std::vector<Variable> variables;
  std::vector<RegisterInfo> registers;
  std::vector<AstInstr> instrs;
  std::vector<Label> labels;
  std::vector<BranchTargets> branch_targets;
  std::vector<uint32_t> scope_parent;  // scope 0 is the body and its own parent
  uint32_t max_ntid[3] = {0, 0, 0};
  uint32_t req_ntid[3] = {0, 0, 0};
  uint32_t max_registers = 0;  // .maxnreg
  uint32_t min_blocks = 1;     // .minnctapersm
};

struct AstModule {
  std::string version;
  std::string target;
  std::vector<Variable> variables;
  std::vector<AstKernel> kernels;
};

AstModule parse_module(std::string_view text);

}  // namespace sagejit::emulator
