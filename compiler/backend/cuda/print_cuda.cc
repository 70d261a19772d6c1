#include "compiler/backend/cuda/print_cuda.h"

#include <iterator>

#include "compiler/backend/common/instruction.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

using ir::Inst;
using ir::Op;
using ir::Type;
using ir::Value;
using Out = std::back_insert_iterator<std::string>;

std::string_view cuda_type(Type type) {
  switch (type) {
    case Type::kPred:
      return "bool";
    case Type::kB16:
      return "unsigned short";
    case Type::kI32:
      return "unsigned";
    case Type::kI64:
      return "unsigned long long";
    case Type::kF32:
      return "float";
  }
  return "";
}

// The inline-assembly constraint of a register of that type.
char constraint(Type type) {
  return type == Type::kB16 ? 'h' : letter_of(type);
}

class Printer {
 public:
  explicit Printer(const ir::Function& function) : function_(function), out_(text_) {}

  std::string run() {
    fmt::format_to(out_, "extern \"C\" __global__ void __launch_bounds__({}, {}) {}(",
                   function_.block_threads, function_.min_blocks_per_sm, function_.name);
    for (size_t i = 0; i < function_.params.size(); ++i) {
      fmt::format_to(out_, "{}{} p_{}", i ? ", " : "", cuda_type(function_.params[i].type),
                     function_.params[i].name);
    }
    fmt::format_to(out_, ") {{\n");
    block(function_.body, 2);
    fmt::format_to(out_, "}}\n");
    return std::move(text_);
  }

 private:
  std::string operand(Value value) const {
    switch (value.kind) {
      case Value::Kind::kConst:
        if (value.type == Type::kF32) return fmt::format("__uint_as_float(0x{:08x}u)", value.bits);
        if (value.type == Type::kI64) return fmt::format("{}ull", value.bits);
        return fmt::format("{}u", static_cast<uint32_t>(value.bits));
      case Value::Kind::kRegister:
        return fmt::format("r{}", value.bits);
      case Value::Kind::kVariable:
        return fmt::format("x{}", value.bits);
      case Value::Kind::kNone:
        break;
    }
    fail(ErrorKind::kInternal, "CUDA back end: an operand is undefined");
  }

  void block(const ir::Block& block, int indent) {
    for (const Inst& inst : block) {
      fmt::format_to(out_, "{:{}}", "", indent);
      if (inst.op >= Op::kParam) {
        structural(inst, indent);
      } else if (ir::info(inst.op).cuda.empty()) {
        assembly(inst);
      } else {
        native(inst);
      }
    }
  }

  void define(Value result, std::string_view expression) {
    fmt::format_to(out_, "const {} r{} = {};\n", cuda_type(result.type), result.bits, expression);
  }

  void structural(const Inst& inst, int indent) {
    switch (inst.op) {
      case Op::kParam:
        return define(inst.results[0], "p_" + function_.params[inst.operands[0].bits].name);
      case Op::kSmem:
        return define(inst.results[0],
                      fmt::format("(unsigned)__cvta_generic_to_shared(smem) + {}u",
                                  function_.smem[inst.operands[0].bits].offset_bytes));
      case Op::kVar:
        fmt::format_to(out_, "{} x{} = {};\n", cuda_type(inst.results[0].type),
                       inst.results[0].bits, operand(inst.operands[0]));
        return;
      case Op::kGet:
        return define(inst.results[0], operand(inst.operands[0]));
      case Op::kSet:
        fmt::format_to(out_, "{} = {};\n", operand(inst.operands[0]), operand(inst.operands[1]));
        return;
      case Op::kComment:
        fmt::format_to(out_, "// {}\n", inst.text);
        return;
      case Op::kFor: {
        const std::string index = operand(inst.results[0]);
        fmt::format_to(out_, "#pragma unroll 1\n{:{}}", "", indent);
        fmt::format_to(out_, "for (unsigned {0} = {1}; (int){0} < (int){2}; {0} += {3}) {{\n",
                       index, operand(inst.operands[0]), operand(inst.operands[1]),
                       operand(inst.operands[2]));
        block(inst.body, indent + 2);
        break;
      }
      case Op::kWhile:
        fmt::format_to(out_, "#pragma unroll 1\n{:{}}while ({}) {{\n", "", indent,
                       operand(inst.operands[0]));
        block(inst.body, indent + 2);
        break;
      case Op::kIf:
      case Op::kIfUniform:
        fmt::format_to(out_, "if ({}) {{\n", operand(inst.operands[0]));
        block(inst.body, indent + 2);
        if (!inst.orelse.empty()) {
          fmt::format_to(out_, "{:{}}}} else {{\n", "", indent);
          block(inst.orelse, indent + 2);
        }
        break;
      case Op::kTie:
        fmt::format_to(out_, "asm volatile(\"\" : {});\n", tied(inst.operands));
        return;
      case Op::kWgmmaWait:
        return wgmma_wait(inst);
      default:
        if (ir::find_wgmma(inst.op)) return wgmma(inst);
        fail(ErrorKind::kInternal, "CUDA back end: unknown structural operation");
    }
    fmt::format_to(out_, "{:{}}}}\n", "", indent);
  }

  // Variables as operands of an assembly statement that reads and writes them.
  std::string tied(std::span<const Value> variables) const {
    std::string text;
    for (const Value& variable : variables) {
      text += fmt::format("{}\"+{}\"({})", text.empty() ? "" : ", ", constraint(variable.type),
                          operand(variable));
    }
    return text;
  }

  void wgmma_wait(const Inst& inst) {
    fmt::format_to(out_,
                   "asm volatile(\"wgmma.wait_group.sync.aligned {};\" : {} : : \"memory\");\n",
                   inst.operands[0].bits, tied(std::span(inst.operands).subspan(1)));
  }

  void wgmma(const Inst& inst) {
    const auto accumulators = static_cast<size_t>(ir::num_accumulators(inst));
    fmt::format_to(
        out_, "asm volatile(\"{}\" : {} : ",
        wgmma_instruction(inst, [](size_t number) { return fmt::format("%{}", number); }),
        tied(std::span(inst.operands).first(accumulators)));
    for (size_t i = accumulators; i + 2 < inst.operands.size(); ++i) {
      const Value value = inst.operands[i];
      fmt::format_to(out_, "{}\"{}\"({})", i > accumulators ? ", " : "", constraint(value.type),
                     operand(value));
    }
    fmt::format_to(out_, " : \"memory\");\n");
  }

  void native(const Inst& inst) {
    const std::vector<Value> values = placeholders(inst);
    define(inst.results[0], substitute(ir::info(inst.op).cuda,
                                       [&](size_t number) { return operand(values[number]); }));
  }

  void assembly(const Inst& inst) {
    const ir::OpInfo& row = ir::info(inst.op);
    for (const Value& result : inst.results) {
      fmt::format_to(out_, "{} r{}; ", cuda_type(result.type), result.bits);
    }
    const bool pure = row.effect == ir::Effect::kPure;
    const bool clobbers = row.effect == ir::Effect::kWrite || row.effect == ir::Effect::kSync;
    std::string escaped;
    for (const char c : row.ptx) escaped += c == '%' ? std::string("%%") : std::string(1, c);
    const std::vector<Value> values = placeholders(inst);
    fmt::format_to(out_, "asm{}(\"{}\"", pure ? "" : " volatile",
                   substitute(escaped, [&](size_t number) { return fmt::format("%{}", number); }));
    std::string_view separator = " : ";
    for (size_t i = 0; i < values.size(); ++i) {
      if (i == inst.results.size()) separator = inst.results.empty() ? " : : " : " : ";
      const bool is_result = i < inst.results.size();
      const bool immediate = !is_result && row.operands[i - inst.results.size()] == 'i';
      if (immediate) {
        fmt::format_to(out_, "{}\"n\"({})", separator, static_cast<int32_t>(values[i].bits));
      } else {
        fmt::format_to(out_, "{}\"{}{}\"({})", separator, is_result ? "=" : "",
                       constraint(values[i].type), operand(values[i]));
      }
      separator = ", ";
    }
    if (clobbers) {
      const bool has_operands = !inst.operands.empty(), has_results = !inst.results.empty();
      fmt::format_to(out_, "{}\"memory\"",
                     has_operands  ? " : "
                     : has_results ? " : : "
                                   : " : : : ");
    }
    fmt::format_to(out_, ");\n");
  }

  const ir::Function& function_;
  std::string text_;
  Out out_;
};

}  // namespace

std::string print_cuda(const ir::Function& kernel) {
  return "// Every fused multiply-add is written out: compile with --fmad=false.\n"
         "extern __shared__ __align__(128) unsigned char smem[];\n\n" +
         Printer(kernel).run();
}

}  // namespace sagejit
