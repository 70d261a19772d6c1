#include "compiler/backend/common/instruction.h"

#include "compiler/support/error.h"

namespace sagejit {

std::vector<ir::Value> placeholders(const ir::Inst& inst) {
  std::vector<ir::Value> values = inst.results;
  values.insert(values.end(), inst.operands.begin(), inst.operands.end());
  return values;
}

std::string substitute(std::string_view text, const SpellOperand& spell) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    if (text[i] != '$') {
      result += text[i++];
      continue;
    }
    size_t number = 0;
    for (++i; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
      number = number * 10 + static_cast<size_t>(text[i] - '0');
    }
    result += spell(number);
  }
  return result;
}

std::string wgmma_instruction(const ir::Inst& inst, const SpellOperand& spell) {
  const ir::WgmmaInfo& row = *ir::find_wgmma(inst.op);
  const auto list = [&](size_t first, size_t count) {
    std::string text = "{";
    for (size_t i = first; i < first + count; ++i) text += (i > first ? ", " : "") + spell(i);
    return text + "}";
  };
  const auto accumulators = static_cast<size_t>(ir::num_accumulators(inst));
  const bool from_registers = inst.operands.size() - accumulators == 7;
  const size_t columns = accumulators / (row.c == DType::kF16 ? 2 : 4) * 8;
  const std::string a = from_registers ? list(accumulators, 4) : spell(accumulators);
  return fmt::format("{}wgmma.mma_async.sync.aligned.m64n{}k{}.{} {}, {}, {}, {}{};",
                     inst.operands.back().bits ? "wgmma.fence.sync.aligned; " : "", columns, row.k,
                     row.types, list(0, accumulators), a,
                     spell(accumulators + (from_registers ? 4 : 1)),
                     inst.operands[inst.operands.size() - 2].bits,
                     from_registers ? row.modifiers_rs : row.modifiers_ss);
}

}  // namespace sagejit
