#include "compiler/backend/ptx/print_ptx.h"

#include <iterator>
#include <map>

#include "compiler/backend/common/instruction.h"
#include "compiler/backend/common/ptx_version.h"
#include "compiler/backend/ptx/registers.h"
#include "compiler/backend/ptx/simplify.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

using ir::Inst;
using ir::Op;
using ir::Type;
using ir::Value;

// Registers are declared by size alone: a bit-size type fits every instruction's operand of its
// size (PTX ISA, "Operand Size Exceeding Instruction-Type Size"), so an f32 and its bits can share
// one.
enum class RegisterClass : uint8_t { kPred, kB16, kB32, kB64 };
constexpr size_t kNumRegisterClasses = 4;

struct ClassInfo {
  std::string_view type, prefix;
};
constexpr ClassInfo kClasses[kNumRegisterClasses] = {
    {".pred", "%p"}, {".b16", "%h"}, {".b32", "%r"}, {".b64", "%d"}};

constexpr RegisterClass class_of(Type type) {
  switch (type) {
    case Type::kPred:
      return RegisterClass::kPred;
    case Type::kB16:
      return RegisterClass::kB16;
    case Type::kI64:
      return RegisterClass::kB64;
    default:
      return RegisterClass::kB32;
  }
}

constexpr ClassInfo info_of(Type type) {
  return kClasses[static_cast<size_t>(class_of(type))];
}

class Printer {
 public:
  Printer(const ir::Function& function, const Target& target)
      : function_(function),
        target_(target),
        shared_(share_registers(function)),
        names_(function.num_registers),
        out_(body_) {}

  std::string run() {
    block(function_.body);
    std::string text;
    std::back_insert_iterator<std::string> out(text);
    const int version = ptx_version_for(function_, target_);
    fmt::format_to(out, ".version {}.{}\n.target {}\n.address_size 64\n\n", version / 10,
                   version % 10, target_.name);
    if (!function_.smem.empty()) text += ".extern .shared .align 128 .b8 smem[];\n\n";
    fmt::format_to(out, ".visible .entry {}(", function_.name);
    for (size_t i = 0; i < function_.params.size(); ++i) {
      fmt::format_to(out, "{}\n  .param {} p_{}", i ? "," : "",
                     info_of(function_.params[i].type).type, function_.params[i].name);
    }
    fmt::format_to(out, ")\n.maxntid {}\n.minnctapersm {}\n{{\n", function_.block_threads,
                   function_.min_blocks_per_sm);
    for (size_t i = 0; i < kNumRegisterClasses; ++i) {
      if (!num_registers_[i]) continue;
      fmt::format_to(out, "  .reg {} {}<{}>;\n", kClasses[i].type, kClasses[i].prefix,
                     num_registers_[i]);
    }
    for (const auto& [constant, name] : constants_) {
      fmt::format_to(out, "  mov{} {}, {};\n", info_of(constant.first).type, name,
                     immediate({Value::Kind::kConst, constant.first, constant.second}));
    }
    return text + body_ + "  ret;\n}\n";
  }

 private:
  // --- operands
  std::string new_register(Type type) {
    const auto number = num_registers_[static_cast<size_t>(class_of(type))]++;
    return fmt::format("{}{}", info_of(type).prefix, number);
  }

  static std::string immediate(Value value) {
    if (value.type == Type::kF32) return fmt::format("0f{:08X}", value.bits);
    if (value.type == Type::kI64) return fmt::format("{}", static_cast<int64_t>(value.bits));
    return fmt::format("{}", static_cast<int32_t>(value.bits));
  }

  // A register or variable, which gets its name where it occurs first: at its definition.
  const std::string& name_of(Value value) {
    if (value.kind == Value::Kind::kNone) {
      fail(ErrorKind::kInternal, "PTX back end: an operand is undefined");
    }
    std::string& name = names_[shared_[value.bits]];
    if (name.empty()) name = new_register(value.type);
    return name;
  }

  // For instructions that take immediates.
  std::string operand(Value value) { return value.is_const() ? immediate(value) : name_of(value); }

  // For those that do not: constants are kept in registers of their own, set at the start; the
  // assembler knows best where to put them.
  const std::string& register_of(Value value) {
    if (!value.is_const()) return name_of(value);
    std::string& name = constants_[{value.type, value.bits}];
    if (name.empty()) name = new_register(value.type);
    return name;
  }

  // --- instructions
  template <typename... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    body_ += "  ";
    fmt::format_to(out_, format, std::forward<Args>(args)...);
    body_ += '\n';
  }

  void block(const ir::Block& block) {
    for (const Inst& inst : block) {
      inst.op >= Op::kParam ? structural(inst) : instruction(inst);
    }
  }

  // Arithmetic takes immediates everywhere; instructions without a CUDA spelling only where their
  // row says so.
  void instruction(const Inst& inst) {
    if (inst.op == Op::kBitsF32 || inst.op == Op::kF32Bits) {
      return move(inst.results[0], inst.operands[0]);
    }
    const ir::OpInfo& row = ir::info(inst.op);
    const std::vector<Value> values = placeholders(inst);
    line("{}", substitute(row.ptx, [&](size_t number) {
           const bool is_immediate =
               !row.cuda.empty() ||
               (number >= inst.results.size() && row.operands[number - inst.results.size()] == 'i');
           return is_immediate ? operand(values[number]) : register_of(values[number]);
         }));
  }

  // Of nothing, where both have the same register.
  void move(Value to, Value from) {
    if (!from.is_const() && name_of(from) == name_of(to)) return;
    line("mov{} {}, {};", info_of(to.type).type, name_of(to), operand(from));
  }

  void structural(const Inst& inst) {
    const auto argument = [&](size_t i) { return inst.operands[i]; };
    switch (inst.op) {
      case Op::kParam:
        return line("ld.param{} {}, [p_{}];", info_of(inst.results[0].type).type,
                    name_of(inst.results[0]), function_.params[argument(0).bits].name);
      case Op::kSmem:
        return line("mov.b32 {}, smem+{};", name_of(inst.results[0]),
                    function_.smem[argument(0).bits].offset_bytes);
      case Op::kVar:
      case Op::kGet:
        return move(inst.results[0], argument(0));
      case Op::kSet:
        return move(argument(0), argument(1));
      case Op::kComment:
        return line("// {}", inst.text);
      case Op::kTie:
        return;  // nothing that an assembler would heed
      case Op::kFor:
        return loop(inst);
      case Op::kWhile:
        return loop_while(inst);
      case Op::kIf:
      case Op::kIfUniform:
        return branch(inst);
      case Op::kWgmmaWait:
        return line("wgmma.wait_group.sync.aligned {};", argument(0).bits);
      default:
        if (!ir::find_wgmma(inst.op)) {
          fail(ErrorKind::kInternal, "PTX back end: unknown structural operation");
        }
        return line("{}", wgmma_instruction(
                              inst, [&](size_t number) { return register_of(argument(number)); }));
    }
  }

  // --- control flow. Loops test at their end: one branch an iteration.
  void loop(const Inst& inst) {
    const int number = num_labels_++;
    const Value index = inst.results[0];
    const std::string predicate = new_register(Type::kPred);
    move(index, inst.operands[0]);
    line("setp.ge.s32 {}, {}, {};", predicate, name_of(index), operand(inst.operands[1]));
    line("@{} bra END{};", predicate, number);
    fmt::format_to(out_, "LOOP{}:\n", number);
    line(".pragma \"nounroll\";");
    block(inst.body);
    line("add.s32 {0}, {0}, {1};", name_of(index), operand(inst.operands[2]));
    line("setp.lt.s32 {}, {}, {};", predicate, name_of(index), operand(inst.operands[1]));
    line("@{} bra LOOP{};", predicate, number);
    fmt::format_to(out_, "END{}:\n", number);
  }

  void loop_while(const Inst& inst) {
    const int number = num_labels_++;
    const std::string predicate = new_register(Type::kPred);
    const std::string& condition = name_of(inst.operands[0]);
    line("setp.eq.s32 {}, {}, 0;", predicate, condition);
    line("@{} bra END{};", predicate, number);
    fmt::format_to(out_, "LOOP{}:\n", number);
    line(".pragma \"nounroll\";");
    block(inst.body);
    line("setp.ne.s32 {}, {}, 0;", predicate, condition);
    line("@{} bra LOOP{};", predicate, number);
    fmt::format_to(out_, "END{}:\n", number);
  }

  // The else comes first. ptxas judges code by the setmaxnreg that it met last in the text: behind
  // the loader's setmaxnreg.dec it makes no maxima of three operands in the computing warpgroups
  // (seen with ptxas 13.0, sm_90a).
  void branch(const Inst& inst) {
    const int number = num_labels_++;
    const std::string& predicate = name_of(inst.operands[0]);
    if (inst.orelse.empty()) {
      line("@!{} bra END{};", predicate, number);
    } else {
      line("@{} bra THEN{};", predicate, number);
      block(inst.orelse);
      line("bra END{};", number);
      fmt::format_to(out_, "THEN{}:\n", number);
    }
    block(inst.body);
    fmt::format_to(out_, "END{}:\n", number);
  }

  const ir::Function& function_;
  const Target& target_;
  size_t num_registers_[kNumRegisterClasses] = {};
  std::vector<uint64_t> shared_;                                // share_registers()
  std::vector<std::string> names_;                              // by register or variable
  std::map<std::pair<Type, uint64_t>, std::string> constants_;  // those kept in registers
  int num_labels_ = 0;
  std::string body_;
  std::back_insert_iterator<std::string> out_;
};

}  // namespace

std::string print_ptx_verbatim(const ir::Function& kernel, const Target& target) {
  return Printer(kernel, target).run();
}

std::string print_ptx(const ir::Function& kernel, const Target& target) {
  const ir::Function simple = simplify(kernel);
  ir::verify(simple, target.sm);
  return print_ptx_verbatim(simple, target);
}

}  // namespace sagejit
