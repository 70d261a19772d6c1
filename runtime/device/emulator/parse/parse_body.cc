// Body level: declarations, scopes, labels, instructions and their operands.
#include <cctype>

#include "runtime/device/emulator/parse/parser.h"

namespace sagejit::emulator {
namespace {

constexpr uint32_t kMaxRegisterRange = 1u << 20;

}  // namespace

BodyParser::BodyParser(TokenStream& ts, const AstModule& module, AstKernel& kernel)
    : ts_(ts), kernel_(kernel) {
  for (size_t i = 0; i < module.variables.size(); ++i) {
    module_names_[module.variables[i].name] = static_cast<uint32_t>(i);
  }
}

void BodyParser::parse() {
  ts_.expect("{");
  scopes_.emplace_back();
  scope_ids_.push_back(0);
  kernel_.scope_parent.push_back(0);
  for (size_t i = 0; i < kernel_.params.size(); ++i) {
    kernel_.variables.push_back(kernel_.params[i]);
    scopes_[0][kernel_.params[i].name] = {RefKind::kKernelVariable, static_cast<uint32_t>(i)};
  }
  while (!scopes_.empty()) statement();
}

void BodyParser::statement() {
  if (ts_.accept("{")) {
    kernel_.scope_parent.push_back(scope_ids_.back());
    scope_ids_.push_back(static_cast<uint32_t>(kernel_.scope_parent.size() - 1));
    scopes_.emplace_back();
  } else if (ts_.accept("}")) {
    scopes_.pop_back();
    scope_ids_.pop_back();
  } else if (ts_.peek().is("@")) {
    instruction();
  } else if (ts_.accept(";")) {
    return;  // inline asm often ends in an empty statement
  } else if (ts_.peek().kind != TokenKind::kWord) {
    ts_.fail(fmt::format("expected an instruction before '{}'", ts_.peek().text));
  } else if (ts_.peek().text.starts_with('.')) {
    directive();
  } else if (ts_.peek(1).is(":")) {
    const std::string_view name = ts_.take().text;
    ts_.take();
    if (ts_.accept(".branchtargets")) return branch_targets(name);
    kernel_.labels.push_back(
        {name, scope_ids_.back(), static_cast<uint32_t>(kernel_.instrs.size())});
  } else {
    instruction();
  }
}

void BodyParser::directive() {
  const uint32_t line = ts_.peek().line;
  const std::string_view word = ts_.take().text;
  if (word == ".reg") return declare_registers();
  if (word == ".local") return declare_variable(Space::kLocal);
  if (word == ".shared") return declare_variable(Space::kShared);
  if (word == ".pragma") {  // "nounroll" and the like: advice to the assembler
    if (ts_.take().kind != TokenKind::kString) ts_.fail("expected a string after .pragma");
    return ts_.expect(";");
  }
  if (word == ".loc") {  // debug data
    while (!ts_.at_end() && ts_.peek().line == line) ts_.take();
    return;
  }
  ts_.source().unsupported(line, fmt::format("directive '{}' in a kernel", word));
}

void BodyParser::add_register(const std::string& name, Type type) {
  const Named entry{RefKind::kRegister, static_cast<uint32_t>(kernel_.registers.size())};
  if (!scopes_.back().emplace(name, entry).second) {
    ts_.fail(fmt::format("'{}' is declared twice in this scope", name));
  }
  kernel_.registers.push_back({name, type});
}

void BodyParser::declare_registers() {
  const uint32_t line = ts_.peek().line;
  const std::string_view word = ts_.expect_word("a register type");
  const auto type = word.starts_with('.') ? find_type(word.substr(1)) : std::nullopt;
  if (!type) ts_.source().unsupported(line, fmt::format("registers of type '{}'", word));
  do {
    const std::string name(ts_.expect_word("a register name"));
    if (!ts_.accept("<")) {
      add_register(name, *type);
      continue;
    }
    const uint64_t count = ts_.expect_integer("a register count");
    if (count > kMaxRegisterRange) ts_.fail("more than 2^20 registers in one range");
    for (uint64_t i = 0; i < count; ++i) add_register(name + std::to_string(i), *type);
    ts_.expect(">");
  } while (ts_.accept(","));
  ts_.expect(";");
}

void BodyParser::declare_variable(Space space) {
  Variable v = parse_variable(ts_, space);
  if (v.unsized) ts_.fail(fmt::format("'{}' has no size", v.name));
  const Named entry{RefKind::kKernelVariable, static_cast<uint32_t>(kernel_.variables.size())};
  scopes_.back()[v.name] = entry;
  kernel_.variables.push_back(std::move(v));
  ts_.expect(";");
}

void BodyParser::branch_targets(std::string_view name) {
  BranchTargets list{name, scope_ids_.back(), {}};
  do {
    list.labels.push_back(ts_.expect_word("a label"));
  } while (ts_.accept(","));
  ts_.expect(";");
  kernel_.branch_targets.push_back(std::move(list));
}

void BodyParser::instruction() {
  AstInstr in;
  in.line = ts_.peek().line;
  if (ts_.accept("@")) {
    in.guarded = true;
    const bool negated = ts_.accept("!");
    in.guard = name_operand();
    in.guard.negated = negated;
  }
  in.opcode = ts_.expect_word("an opcode");
  while (!ts_.accept(";")) {
    in.operands.push_back(operand());
    while (ts_.accept("|")) {
      in.operands.push_back(operand());
      in.operands.back().piped = true;
    }
    if (!ts_.peek().is(";")) ts_.expect(",");
  }
  kernel_.instrs.push_back(std::move(in));
}

AstOperand BodyParser::operand() {
  if (ts_.peek().is("[")) return memory_operand();
  if (ts_.peek().is("{")) return vector_operand();
  if (ts_.accept("!")) {
    AstOperand op = name_operand();
    op.negated = true;
    return op;
  }
  if (ts_.peek().kind == TokenKind::kWord) return name_operand();
  return constant_operand();
}

AstOperand BodyParser::constant_operand() {
  AstOperand op;
  const bool minus = ts_.accept("-");
  const Token& t = ts_.take();
  op.bits = t.value;
  if (t.kind == TokenKind::kInteger) {
    op.kind = AstOperand::Kind::kInteger;
    if (minus) op.bits = 0 - op.bits;
  } else if (t.kind == TokenKind::kFloat32) {
    op.kind = AstOperand::Kind::kFloat32;
    if (minus) op.bits ^= uint64_t{1} << 31;
  } else if (t.kind == TokenKind::kFloat64) {
    op.kind = AstOperand::Kind::kFloat64;
    if (minus) op.bits ^= uint64_t{1} << 63;
  } else {
    ts_.source().fail(t.line, fmt::format("expected an operand before '{}'", t.text));
  }
  return op;
}

AstOperand BodyParser::name_operand() {
  AstOperand op;
  op.name = ts_.expect_word("a name");
  if (op.name == "_") {
    op.kind = AstOperand::Kind::kSink;
    return op;
  }
  op.scope = scope_ids_.back();
  resolve(op);
  op.offset = signed_offset();
  return op;
}

// Any of "+4", "-4", "+-4", or nothing.
int64_t BodyParser::signed_offset() {
  const bool plus = ts_.accept("+");
  const bool minus = ts_.accept("-");
  if (!plus && !minus) return 0;
  const auto value = static_cast<int64_t>(ts_.expect_integer("an offset"));
  return minus ? -value : value;
}

AstOperand BodyParser::memory_operand() {
  AstOperand op;
  ts_.expect("[");
  if (ts_.peek().kind == TokenKind::kWord) {
    op = name_operand();
  } else {
    op.offset = static_cast<int64_t>(constant_operand().bits);
  }
  op.kind = AstOperand::Kind::kMemory;
  if (ts_.accept(",")) op.elements = vector_operand().elements;  // coordinates of a tensor map
  ts_.expect("]");
  return op;
}

AstOperand BodyParser::vector_operand() {
  AstOperand op;
  op.kind = AstOperand::Kind::kVector;
  ts_.expect("{");
  do {
    op.elements.push_back(operand());
  } while (ts_.accept(","));
  ts_.expect("}");
  return op;
}

void BodyParser::resolve(AstOperand& op) {
  const std::string name(op.name);
  for (size_t i = scopes_.size(); i-- > 0;) {
    const auto found = scopes_[i].find(name);
    if (found == scopes_[i].end()) continue;
    op.ref = found->second.kind;
    op.index = found->second.index;
    return;
  }
  if (const auto found = module_names_.find(name); found != module_names_.end()) {
    op.ref = RefKind::kModuleVariable;
    op.index = found->second;
  } else if (name.starts_with('%')) {
    op.ref = RefKind::kSpecial;
  }
}

}  // namespace sagejit::emulator
