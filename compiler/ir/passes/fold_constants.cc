#include "compiler/ir/fold.h"
#include "compiler/ir/passes/passes.h"
#include "compiler/ir/passes/walk.h"

namespace sagejit::ir {
namespace {

class Folder {
 public:
  explicit Folder(const Function& function)
      : replacements_(function), sums_(function.num_registers) {}

  void walk(Block& block) {
    Block kept;
    for (Inst& inst : block) {
      replacements_.apply(inst);
      walk(inst.body);
      walk(inst.orelse);
      if (is_operation(inst) && inst.results.size() == 1 && fold(inst)) continue;
      kept.push_back(std::move(inst));
    }
    block = std::move(kept);
  }

 private:
  // x + constant
  struct Sum {
    Value x, constant;
  };

  // True if the result is replaced by another value.
  bool fold(Inst& inst) {
    if (const std::optional<Value> value = converted(inst)) {
      replacements_.set(inst.results[0], *value);
      return true;
    }
    if (inst.operands.size() != 2) return false;
    const Expression expression =
        simplified(with_sum({inst.op, inst.operands[0], inst.operands[1]}));
    if (const std::optional<Value> value = value_of(expression)) {
      replacements_.set(inst.results[0], *value);
      return true;
    }
    inst.op = expression.op;
    inst.operands = {expression.a, expression.b};
    const bool is_sum = inst.op == Op::kAddI32 || inst.op == Op::kAddI64;
    if (is_sum && expression.b.is_const()) {
      sums_[inst.results[0].bits] = {expression.a, expression.b};
    }
    return false;
  }

  // (x + c) + d = x + (c + d), and x - c = x + -c
  Expression with_sum(Expression expression) const {
    auto& [op, a, b] = expression;
    if (op == Op::kSubI32 && b.is_const()) {
      op = Op::kAddI32;
      b.bits = static_cast<uint32_t>(-b.bits);
    }
    if (op != Op::kAddI32 && op != Op::kAddI64) return expression;
    if (a.is_const()) std::swap(a, b);
    if (!b.is_const() || a.kind != Value::Kind::kRegister) return expression;
    const Sum& inner = sums_[a.bits];
    if (!inner.x) return expression;
    a = inner.x;
    b = *value_of({op, inner.constant, b});
    return expression;
  }

  static std::optional<Value> converted(const Inst& inst) {
    if (inst.operands.size() != 1 || !inst.operands[0].is_const()) return std::nullopt;
    const uint64_t bits = inst.operands[0].bits;
    if (inst.op == Op::kZextI64) return Value{Value::Kind::kConst, Type::kI64, bits};
    if (inst.op != Op::kSextI64) return std::nullopt;
    const auto extended = static_cast<int64_t>(static_cast<int32_t>(bits));
    return Value{Value::Kind::kConst, Type::kI64, static_cast<uint64_t>(extended)};
  }

  Replacements replacements_;
  std::vector<Sum> sums_;  // by register; without x: none
};

}  // namespace

Function fold_constants(Function function) {
  Folder(function).walk(function.body);
  return function;
}

}  // namespace sagejit::ir
