#include "runtime/device/emulator/decode/decode.h"

#include <fmt/format.h>

#include <bit>
#include <map>
#include <unordered_map>

#include "runtime/device/emulator/decode/special.h"
#include "runtime/device/emulator/semantics/control.h"

namespace sagejit::emulator {
namespace {

// One operand token of a Row, taken apart.
struct Slot {
  char role = 's';
  bool typed = false;
  Type type = Type::kB32;
  uint8_t bytes = 0;      // of one element
  unsigned elements = 1;  // registers
  bool vector = false;    // written as {...}
  bool packs = false;     // '%': {...} may stand for one value of `bytes`
  bool relaxed = false;
  bool optional = false;
  bool piped = false;
};

// "": as .v2/.v4 says; a digit; H, Q: half or a quarter of the N of m64nNkK.
unsigned element_count(std::string_view count, const Match& match) {
  if (count.empty()) return match.vector;
  if (count[0] == 'H') return match.mma_n / 2;
  if (count[0] == 'Q') return match.mma_n / 4;
  return static_cast<unsigned>(count[0] - '0');
}

Slot parse_slot(std::string_view token, const Match& match) {
  Slot slot;
  if (token.front() == '|') {
    slot.piped = true;
    token.remove_prefix(1);
  }
  slot.role = token.front();
  if (token.ends_with('?')) {
    slot.optional = true;
    token.remove_suffix(1);
  }
  if (token.size() < 3 || token[1] != ':') return slot;
  token.remove_prefix(2);
  if (token.ends_with('~') || token.ends_with('%')) {
    (token.back() == '~' ? slot.relaxed : slot.packs) = true;
    token.remove_suffix(1);
  }
  if (const size_t star = token.find('*'); star != std::string_view::npos) {
    const std::string_view count = token.substr(star + 1);
    slot.elements = element_count(count, match);
    slot.vector = !count.empty() || slot.elements > 1;
    token = token.substr(0, star);
  }
  slot.typed = true;
  const bool wide = token.front() == 'w';
  if (wide) token.remove_prefix(1);
  const bool by_index = token.front() >= '0' && token.front() <= '9';
  slot.type = by_index ? match.type(static_cast<size_t>(token[0] - '0')) : find_type(token).value();
  slot.bytes = static_cast<uint8_t>(info(slot.type).bytes * (wide ? 2 : 1));
  return slot;
}

class Decoder {
 public:
  Decoder(const Source& source, const AstModule& module, const AstKernel& ast)
      : source_(source), module_(module), ast_(ast), kernel_(std::make_unique<Kernel>()) {}

  std::unique_ptr<Kernel> run() {
    describe();
    place_variables();
    for (const RegisterInfo& r : ast_.registers)
      registers_.push_back({info(r.type).bytes, false, false});
    for (const AstInstr& in : ast_.instrs) decode(in);
    append_return();
    link_operands();
    find_mma_registers();
    assign_registers(*kernel_, registers_, order_blocks(*kernel_));
    number_mma_registers();
    for (const auto& [value, reg] : specials_) {
      kernel_->specials.push_back({value, special_offset(reg)});
    }
    return std::move(kernel_);
  }

 private:
  [[noreturn]] void fail(std::string_view message) const { source_.fail(line_, message); }

  void describe() {
    KernelInfo& info = kernel_->info;
    info.name = ast_.name;
    info.target = module_.target;
    info.version = module_.version;
    for (const Variable& p : ast_.params) {
      info.params.push_back({p.name, std::string(emulator::info(p.type).name),
                             static_cast<uint32_t>(p.offset), static_cast<uint32_t>(p.bytes)});
      info.param_bytes = static_cast<uint32_t>(p.offset + p.bytes);
    }
    kernel_->max_thread_registers = ast_.max_registers;
    kernel_->min_blocks = ast_.min_blocks;
    for (size_t i = 0; i < 3; ++i) {
      info.max_ntid[i] = ast_.max_ntid[i];
      info.req_ntid[i] = ast_.req_ntid[i];
    }
  }

  void place(const Variable& v, uint64_t& end, uint64_t& address) {
    end = (end + v.align - 1) / v.align * v.align;
    address = end;
    end += v.bytes;
  }

  // Module-level shared variables are placed for every kernel: those of other kernels in the module
  // only move the others up, as on the device.
  void place_variables() {
    uint64_t shared = kSharedBase;
    uint64_t local = 0;
    uint32_t dynamic_align = 16;
    module_address_.resize(module_.variables.size());
    address_.resize(ast_.variables.size());
    for (size_t i = 0; i < module_.variables.size(); ++i) {
      const Variable& v = module_.variables[i];
      if (v.space == Space::kShared && !v.unsized) place(v, shared, module_address_[i]);
      if (v.unsized) dynamic_align = std::max(dynamic_align, v.align);
    }
    for (size_t i = 0; i < ast_.variables.size(); ++i) {
      const Variable& v = ast_.variables[i];
      if (v.space == Space::kShared) place(v, shared, address_[i]);
      if (v.space == Space::kLocal) place(v, local, address_[i]);
      if (v.space == Space::kParam) address_[i] = v.offset;
    }
    kernel_->static_shared_bytes = static_cast<uint32_t>(shared - kSharedBase);
    kernel_->info.static_shared_bytes = kernel_->static_shared_bytes;
    kernel_->dynamic_shared_align = dynamic_align;
    kernel_->local_bytes = static_cast<uint32_t>(local);
    dynamic_ = (shared + dynamic_align - 1) / dynamic_align * dynamic_align;
  }

  Operand constant(uint8_t bytes, uint64_t bits, int32_t variable = -1) {
    if (bytes != 0 && bytes < 8) bits &= (uint64_t{1} << (8 * bytes)) - 1;
    if (bytes == 0) bits = bits != 0 ? kAllLanes : 0;
    const auto [it, inserted] =
        constants_.try_emplace({bytes, bits, variable}, kernel_->constant_bytes);
    if (inserted) {
      kernel_->constants.push_back({it->second, bytes, bits, variable});
      kernel_->constant_bytes += std::max<uint32_t>(bytes * kWarpLanes, 32);
    }
    return {it->second, 0, Operand::kConstants, bytes};
  }

  Operand register_operand(uint32_t index) const {
    return {0, index + 1, Operand::kRegisters, registers_[index].bytes};
  }

  // Address of a variable as a value of `bytes`.
  Operand address_operand(const AstOperand& op, uint8_t bytes) {
    if (op.ref == RefKind::kKernelVariable) {
      return constant(bytes, address_[op.index] + static_cast<uint64_t>(op.offset));
    }
    const Variable& v = module_.variables[op.index];
    if (v.space == Space::kShared) {
      const uint64_t base = v.unsized ? dynamic_ : module_address_[op.index];
      return constant(bytes, base + static_cast<uint64_t>(op.offset));
    }
    if (bytes != 8) fail(fmt::format("the address of '{}' needs a 64-bit operand", v.name));
    return constant(bytes, static_cast<uint64_t>(op.offset), static_cast<int32_t>(op.index));
  }

  Operand special_operand(const AstOperand& op) {
    const SpecialValue* value = find_special(op.name);
    if (value == nullptr)
      fail(fmt::format("'{}' is neither declared nor a known special register", op.name));
    const auto [it, inserted] =
        specials_.try_emplace(value, static_cast<uint32_t>(registers_.size()));
    if (inserted) registers_.push_back({value->bytes, true, false});
    if (value->changes) clock_ = value;
    return register_operand(it->second);
  }

  uint64_t constant_bits(const AstOperand& op, const Slot& slot) const {
    const bool real = info(slot.type).is_float;
    if (op.kind == AstOperand::Kind::kInteger) {
      if (real && slot.bytes >= 4 && slot.type != Type::kF16x2 && slot.type != Type::kBF16x2) {
        fail("an integer constant where a float is expected");
      }
      return op.bits;
    }
    const bool single = op.kind == AstOperand::Kind::kFloat32;
    const double value = single ? std::bit_cast<float>(static_cast<uint32_t>(op.bits))
                                : std::bit_cast<double>(op.bits);
    if (slot.type == Type::kF32)
      return single ? op.bits : std::bit_cast<uint32_t>(static_cast<float>(value));
    if (slot.type == Type::kF64) return single ? std::bit_cast<uint64_t>(value) : op.bits;
    if (slot.type == Type::kB32 && single) return op.bits;
    if (slot.type == Type::kB64 && !single) return op.bits;
    fail(fmt::format("a float constant where {} is expected", info(slot.type).name));
  }

  Operand value_operand(const AstOperand& op, const Slot& slot) {
    Operand out;
    switch (op.kind) {
      case AstOperand::Kind::kInteger:
      case AstOperand::Kind::kFloat32:
      case AstOperand::Kind::kFloat64:
        return constant(slot.bytes, constant_bits(op, slot));
      case AstOperand::Kind::kSink:
        if (slot.role != 'd') fail("'_' is not a value");
        registers_.push_back({slot.bytes, false, false});
        out = register_operand(static_cast<uint32_t>(registers_.size() - 1));
        out.sink = true;
        return out;
      case AstOperand::Kind::kName:
        break;
      default:
        fail("an operand of this form does not fit here");
    }
    if (op.ref == RefKind::kModuleVariable || op.ref == RefKind::kKernelVariable) {
      if (slot.role == 'd') fail(fmt::format("'{}' cannot be written like a register", op.name));
      return address_operand(op, slot.bytes);
    }
    if (op.ref == RefKind::kUnresolved) fail(fmt::format("'{}' is not declared", op.name));
    out = op.ref == RefKind::kSpecial ? special_operand(op) : register_operand(op.index);
    if (op.offset != 0) fail("a register with an offset is only an address");
    check_width(op, slot, out);
    out.negated = op.negated;
    if (op.negated && out.bytes != 0) fail("'!' needs a predicate");
    return out;
  }

  void check_width(const AstOperand& op, const Slot& slot, const Operand& out) const {
    const bool predicate_ok = (out.bytes == 0) == (slot.bytes == 0);
    const bool special = op.ref == RefKind::kSpecial && slot.role == 's' && slot.bytes <= out.bytes;
    if (predicate_ok &&
        (out.bytes == slot.bytes || special || (slot.relaxed && out.bytes > slot.bytes))) {
      return;
    }
    fail(fmt::format("'{}' has {} bits, the instruction wants {}", op.name, out.bytes * 8,
                     slot.bytes == 0
                         ? "a predicate"
                         : fmt::format("{} ({})", slot.bytes * 8, info(slot.type).name)));
  }

  void push(Match& match, Instr& in, const Operand& op, bool destination) {
    match.operands.push_back(op);
    ++in.num_ops;
    if (destination) ++in.num_dst;
  }

  void decode_value(const AstOperand& op, const Slot& slot, Match& match, Instr& in) {
    const bool destination = slot.role == 'd';
    if (op.kind != AstOperand::Kind::kVector) {
      if (slot.vector && slot.elements != 1)
        fail(fmt::format("expected a vector of {}", slot.elements));
      return push(match, in, value_operand(op, slot), destination);
    }
    Slot element = slot;
    if (slot.packs && (op.elements.size() == 2 || op.elements.size() == 4)) {
      element.bytes = static_cast<uint8_t>(slot.bytes / op.elements.size());
      element.type = element.bytes == 1 ? Type::kB8 : element.bytes == 2 ? Type::kB16 : Type::kB32;
    } else if (!slot.vector || op.elements.size() != slot.elements) {
      fail(fmt::format("a vector of {} does not fit here", op.elements.size()));
    }
    for (const AstOperand& e : op.elements) push(match, in, value_operand(e, element), destination);
  }

  // Matrix A of wgmma: a descriptor, or four registers.
  void decode_matrix(const AstOperand& op, Match& match, Instr& in) {
    const bool registers = op.kind == AstOperand::Kind::kVector;
    const Slot slot = registers
                          ? Slot{.type = Type::kB32, .bytes = 4, .elements = 4, .vector = true}
                          : Slot{.type = Type::kB64, .bytes = 8};
    decode_value(op, slot, match, in);
    match.a_in_registers = registers;
  }

  void decode_address(const AstOperand& op, Match& match, Instr& in, unsigned& count) {
    if (op.kind != AstOperand::Kind::kMemory) fail("expected an address in brackets");
    Operand base;
    int64_t offset = 0;
    if (op.name.empty()) {
      base = constant(8, static_cast<uint64_t>(op.offset));
    } else if (op.ref == RefKind::kRegister) {
      base = register_operand(op.index);
      if (base.bytes != 4 && base.bytes != 8) fail("an address needs a 32-bit or 64-bit register");
      offset = op.offset;
    } else if (op.ref == RefKind::kModuleVariable || op.ref == RefKind::kKernelVariable) {
      base = address_operand(op, 8);
    } else {
      fail(fmt::format("'{}' is not declared", op.name));
    }
    push(match, in, base, false);
    (count == 0 ? in.offset : count == 1 ? in.offset2 : in.offset3) = offset;
    ++count;
  }

  void decode_tensor(const AstOperand& op, Match& match, Instr& in, unsigned& count) {
    decode_address(op, match, in, count);
    const Slot coordinate{.typed = true, .type = Type::kS32, .bytes = 4};
    for (const AstOperand& e : op.elements) push(match, in, value_operand(e, coordinate), false);
    match.coordinates = static_cast<unsigned>(op.elements.size());
  }

  uint32_t label(std::string_view name, uint32_t scope) const {
    for (uint32_t s = scope;; s = ast_.scope_parent[s]) {
      for (const Label& l : ast_.labels) {
        if (l.scope == s && l.name == name) return l.instr;
      }
      if (s == 0) break;
    }
    fail(fmt::format("label '{}' is not defined", name));
  }

  int branch_table(const AstOperand& op) {
    for (const BranchTargets& t : ast_.branch_targets) {
      if (t.name != op.name) continue;
      std::vector<uint32_t> targets;
      for (std::string_view l : t.labels) targets.push_back(label(l, t.scope));
      kernel_->branch_tables.push_back(std::move(targets));
      return static_cast<int>(kernel_->branch_tables.size()) - 1;
    }
    fail(fmt::format("no .branchtargets named '{}'", op.name));
  }

  void decode_operands(const AstInstr& ast, const Row& row, Match& match, Instr& in) {
    size_t next = 0;
    unsigned addresses = 0;
    for (std::string_view rest = row.operands; !rest.empty();) {
      const size_t space = std::min(rest.find(' '), rest.size());
      const Slot slot = parse_slot(rest.substr(0, space), match);
      rest.remove_prefix(std::min(space + 1, rest.size()));
      const bool present = next < ast.operands.size() && ast.operands[next].piped == slot.piped;
      if (!present) {
        if (slot.optional) continue;
        fail(fmt::format("'{}' needs more operands", ast.opcode));
      }
      const AstOperand& op = ast.operands[next++];
      if (slot.role != 'm' && op.kind == AstOperand::Kind::kMemory && !op.elements.empty()) {
        fail("coordinates where no tensor map is expected");
      }
      if (slot.role == 'm') {
        decode_tensor(op, match, in, addresses);
      } else if (slot.role == 'a') {
        decode_address(op, match, in, addresses);
      } else if (slot.role == 'A') {
        decode_matrix(op, match, in);
      } else if (slot.role == 'i') {
        if (op.kind != AstOperand::Kind::kInteger) fail("expected an integer constant");
        match.constants.push_back(static_cast<int64_t>(op.bits));
      } else if (slot.role == 'l') {
        in.target = label(op.name, op.scope);
      } else if (slot.role == 't') {
        match.branch_table = branch_table(op);
      } else {
        decode_value(op, slot, match, in);
      }
    }
    if (next != ast.operands.size()) fail(fmt::format("'{}' has too many operands", ast.opcode));
  }

  [[noreturn]] void fail_unsupported(const AstInstr& ast) const {
    const std::string_view name = ast.opcode.substr(0, ast.opcode.find('.'));
    std::string known;
    for (std::string_view p : patterns_of(name))
      known += fmt::format("{}{}", known.empty() ? "" : ", ", p);
    const std::string hint = known.empty() ? fmt::format("no form of '{}' is known", name)
                                           : fmt::format("the forms known are: {}", known);
    source_.unsupported(
        line_, fmt::format("unsupported instruction '{}' at line {}; {}", ast.opcode, line_, hint));
  }

  void decode(const AstInstr& ast) {
    line_ = ast.line;
    clock_ = nullptr;
    Match match;
    const Row* row = find_row(ast.opcode, match);
    if (row == nullptr) fail_unsupported(ast);
    Instr in;
    in.line = ast.line;
    in.index = static_cast<uint32_t>(kernel_->code.size());
    if (ast.guarded) {
      in.guarded = true;
      in.guard = value_operand(ast.guard, Slot{.type = Type::kPred, .bytes = 0});
    }
    decode_operands(ast, *row, match, in);
    match.target = module_.target;
    row->bind(match, in);
    if (clock_ != nullptr) bind_clock_read(*clock_, in);
    if (in.exec == nullptr) fail_unsupported(ast);
    first_operand_.push_back(kernel_->operands.size());
    kernel_->operands.insert(kernel_->operands.end(), match.operands.begin(), match.operands.end());
    if (match.branch_table >= 0) in.target = static_cast<uint32_t>(match.branch_table);
    kernel_->code.push_back(in);
  }

  void append_return() {
    AstInstr ret;
    ret.line = ast_.instrs.empty() ? ast_.line : ast_.instrs.back().line;
    ret.opcode = "ret";
    decode(ret);
  }

  void link_operands() {
    for (size_t i = 0; i < kernel_->code.size(); ++i) {
      kernel_->code[i].op = kernel_->operands.data() + first_operand_[i];
    }
  }

  // Registers that wgmma uses behind its own instruction keep a place of their own.
  void find_mma_registers() {
    for (const Instr& in : kernel_->code) {
      for (unsigned i = 0; i < in.num_mma; ++i) {
        if (in.op[i].bank == Operand::kRegisters) registers_[in.op[i].defined - 1].exclusive = true;
      }
    }
  }

  void number_mma_registers() {
    auto& slots = kernel_->mma_slots;
    slots.assign(kernel_->num_defined, 0);
    for (const Instr& in : kernel_->code) {
      for (unsigned i = 0; i < in.num_mma; ++i) {
        if (in.op[i].bank != Operand::kRegisters || slots[in.op[i].defined] != 0) continue;
        slots[in.op[i].defined] = static_cast<uint16_t>(++kernel_->num_mma_slots);
      }
    }
    for (Instr& in : kernel_->code) {
      for (unsigned i = 0; i < in.num_ops && in.num_mma == 0; ++i) {
        in.touches_mma |= in.op[i].bank == Operand::kRegisters && slots[in.op[i].defined] != 0;
      }
    }
  }

  uint32_t special_offset(uint32_t reg) const {
    // Pinned registers sit at the front of the bank in their own order; see assign_registers.
    uint32_t offset = 0;
    for (uint32_t r = 0; r < reg; ++r) {
      if (registers_[r].pinned) offset += registers_[r].bytes * kWarpLanes;
    }
    return offset;
  }

  const Source& source_;
  const AstModule& module_;
  const AstKernel& ast_;
  std::unique_ptr<Kernel> kernel_;
  std::vector<VirtualRegister> registers_;
  std::vector<size_t> first_operand_;  // per instruction, in Kernel::operands
  std::map<std::tuple<uint8_t, uint64_t, int32_t>, uint32_t> constants_;
  std::map<const SpecialValue*, uint32_t> specials_;
  std::vector<uint64_t> module_address_, address_;  // of variables in shared, local, param space
  uint64_t dynamic_ = 0;                            // address of dynamic shared memory
  const SpecialValue* clock_ = nullptr;             // set when the instruction reads a clock
  uint32_t line_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> decode_kernel(const Source& source, const AstModule& module,
                                      const AstKernel& ast) {
  return Decoder(source, module, ast).run();
}

}  // namespace sagejit::emulator
