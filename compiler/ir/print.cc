// The text form of the kernel IR.
//
//   kernel @name(q: i64, ...) threads 128 min_blocks 2 {
//     smem @k_tile offset 0 bytes 16384
//     %0:i64 = param @q
//     %1:i32 = smem @k_tile
//     # a comment up to the end of the line
//     %5:i32 = add.i32 %3, 16
//     %7:f32, %8:f32 = unpack.f16x2 %6
//     $9:f32 = var 0f00000000
//     for %10:i32 = 0 to %4 step 1 {
//       set $9, %12
//     }
//     while $9 {
//     }
//     if %13 {
//     } else {
//     }
//     if.uniform %14 {
//     }
//   }
// A line each; indentation does not matter. %N is a register, $N a variable. Constants: i32 in
// decimal, i64 in decimal with an L behind, f32 0f and eight hex digits; there are none of other
// types. An else without instructions is left out.
#include <iterator>

#include "compiler/ir/ir.h"
#include "compiler/support/error.h"

namespace sagejit::ir {
namespace {

using Out = std::back_insert_iterator<std::string>;

void print_operand(Out out, Value value) {
  switch (value.kind) {
    case Value::Kind::kConst:
      if (value.type == Type::kF32) {
        fmt::format_to(out, "0f{:08x}", value.bits);
      } else if (value.type == Type::kI64) {
        fmt::format_to(out, "{}L", static_cast<int64_t>(value.bits));
      } else {
        fmt::format_to(out, "{}", static_cast<int32_t>(value.bits));
      }
      return;
    case Value::Kind::kRegister:
      fmt::format_to(out, "%{}", value.bits);
      return;
    case Value::Kind::kVariable:
      fmt::format_to(out, "${}", value.bits);
      return;
    case Value::Kind::kNone:
      fmt::format_to(out, "<none>");
      return;
  }
}

void print_list(Out out, const std::vector<Value>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (i) fmt::format_to(out, ", ");
    print_operand(out, values[i]);
  }
}

void print_results(Out out, const std::vector<Value>& results) {
  for (size_t i = 0; i < results.size(); ++i) {
    if (i) fmt::format_to(out, ", ");
    print_operand(out, results[i]);
    fmt::format_to(out, ":{}", name_of(results[i].type));
  }
  if (!results.empty()) fmt::format_to(out, " = ");
}

// The name of the object that a param or smem refers to.
template <typename Named>
void print_reference(Out out, const Inst& inst, const std::vector<Named>& list) {
  const bool exists = inst.operands.size() == 1 && inst.operands[0].bits < list.size();
  fmt::format_to(out, "{} @{}\n", info(inst.op).name,
                 exists ? std::string_view(list[inst.operands[0].bits].name) : "<none>");
}

void print_block(Out out, const Function& function, const Block& block, int indent);

void print_inst(Out out, const Function& function, const Inst& inst, int indent) {
  fmt::format_to(out, "{:{}}", "", indent);
  switch (inst.op) {
    case Op::kComment:
      fmt::format_to(out, "# {}\n", inst.text);
      return;
    case Op::kFor:
      fmt::format_to(out, "for ");
      print_results(out, inst.results);
      print_operand(out, inst.operands[0]);
      fmt::format_to(out, " to ");
      print_operand(out, inst.operands[1]);
      fmt::format_to(out, " step ");
      print_operand(out, inst.operands[2]);
      fmt::format_to(out, " {{\n");
      print_block(out, function, inst.body, indent + 2);
      fmt::format_to(out, "{:{}}}}\n", "", indent);
      return;
    case Op::kWhile:
      fmt::format_to(out, "while ");
      print_operand(out, inst.operands[0]);
      fmt::format_to(out, " {{\n");
      print_block(out, function, inst.body, indent + 2);
      fmt::format_to(out, "{:{}}}}\n", "", indent);
      return;
    case Op::kIf:
    case Op::kIfUniform:
      fmt::format_to(out, "{} ", info(inst.op).name);
      print_operand(out, inst.operands[0]);
      fmt::format_to(out, " {{\n");
      print_block(out, function, inst.body, indent + 2);
      if (!inst.orelse.empty()) {
        fmt::format_to(out, "{:{}}}} else {{\n", "", indent);
        print_block(out, function, inst.orelse, indent + 2);
      }
      fmt::format_to(out, "{:{}}}}\n", "", indent);
      return;
    case Op::kParam:
      print_results(out, inst.results);
      print_reference(out, inst, function.params);
      return;
    case Op::kSmem:
      print_results(out, inst.results);
      print_reference(out, inst, function.smem);
      return;
    default:
      print_results(out, inst.results);
      fmt::format_to(out, "{}{}", info(inst.op).name, inst.operands.empty() ? "" : " ");
      print_list(out, inst.operands);
      fmt::format_to(out, "\n");
  }
}

void print_block(Out out, const Function& function, const Block& block, int indent) {
  for (const Inst& inst : block) print_inst(out, function, inst, indent);
}

}  // namespace

std::string print_line(const Function& function, const Inst& inst) {
  std::string text;
  const bool has_condition =
      inst.op == Op::kIf || inst.op == Op::kIfUniform || inst.op == Op::kWhile;
  const bool has_form = (inst.op != Op::kFor || inst.operands.size() == 3) &&
                        (!has_condition || inst.operands.size() == 1);
  if (!has_form) return std::string(info(inst.op).name);
  print_inst(Out(text), function, {inst.op, inst.results, inst.operands, {}, {}, inst.text}, 0);
  text.resize(text.find('\n'));
  return text;
}

std::string print(const Function& function) {
  std::string text;
  Out out(text);
  fmt::format_to(out, "kernel @{}(", function.name);
  for (size_t i = 0; i < function.params.size(); ++i) {
    fmt::format_to(out, "{}{}: {}", i ? ", " : "", function.params[i].name,
                   name_of(function.params[i].type));
  }
  fmt::format_to(out, ") threads {} min_blocks {} {{\n", function.block_threads,
                 function.min_blocks_per_sm);
  for (const SmemObject& object : function.smem) {
    fmt::format_to(out, "  smem @{} offset {} bytes {}\n", object.name, object.offset_bytes,
                   object.bytes);
  }
  print_block(out, function, function.body, 2);
  fmt::format_to(out, "}}\n");
  return text;
}

}  // namespace sagejit::ir
