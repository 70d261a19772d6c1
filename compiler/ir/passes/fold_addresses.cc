#include <limits>
#include <optional>

#include "compiler/ir/passes/passes.h"
#include "compiler/ir/passes/walk.h"

namespace sagejit::ir {
namespace {

class AddressFolder {
 public:
  explicit AddressFolder(const Function& function) : sums_(function.num_registers) {}

  void walk(Block& block) {
    for (Inst& inst : block) {
      if (is_operation(inst)) fold(inst);
      walk(inst.body);
      walk(inst.orelse);
    }
  }

 private:
  // x + constant
  struct Sum {
    Value x;
    int64_t constant = 0;
  };

  void fold(Inst& inst) {
    const bool is_sum = inst.op == Op::kAddI32 || inst.op == Op::kAddI64;
    if (is_sum && inst.operands[1].is_const()) {
      const Value c = inst.operands[1];
      const auto constant = static_cast<int64_t>(c.bits);
      sums_[inst.results[0].bits] = {
          inst.operands[0], c.type == Type::kI32 ? static_cast<int32_t>(constant) : constant};
    }
    const std::string_view text = info(inst.op).ptx;
    for (size_t at = text.find("[$"); at != std::string_view::npos; at = text.find("[$", at + 1)) {
      const std::optional<Place> place = read_place(text.substr(at), inst.results.size());
      if (place) fold(inst.operands[place->address], inst.operands[place->offset]);
    }
  }

  // The operands of "[$address+$offset]".
  struct Place {
    size_t address, offset;
  };
  static std::optional<Place> read_place(std::string_view text, size_t num_results) {
    size_t numbers[2] = {};
    size_t at = 0;
    for (const std::string_view before : {"[$", "+$"}) {
      if (!text.substr(at).starts_with(before)) return std::nullopt;
      size_t& number = numbers[before[0] == '+'];
      for (at += before.size(); at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
        number = number * 10 + static_cast<size_t>(text[at] - '0');
      }
    }
    if (!text.substr(at).starts_with(']')) return std::nullopt;
    return Place{numbers[0] - num_results, numbers[1] - num_results};
  }

  void fold(Value& address, Value& offset) const {
    while (address.kind == Value::Kind::kRegister && sums_[address.bits].x) {
      const Sum& sum = sums_[address.bits];
      const int64_t total = static_cast<int32_t>(offset.bits) + sum.constant;
      if (sum.x.kind != Value::Kind::kRegister || total != static_cast<int32_t>(total)) return;
      address = sum.x;
      offset.bits = static_cast<uint32_t>(total);
    }
  }

  std::vector<Sum> sums_;  // by register; without x: none
};

}  // namespace

Function fold_addresses(Function function) {
  AddressFolder(function).walk(function.body);
  return function;
}

}  // namespace sagejit::ir
