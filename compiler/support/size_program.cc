#include "compiler/support/size_program.h"

#include <algorithm>

#include "compiler/support/error.h"

namespace sagejit {

int SizeProgram::value_of(const Node& node, const SizeExpr& expression) {
  const auto known = std::find(nodes_.begin(), nodes_.end(), node);
  const auto index = static_cast<int>(known - nodes_.begin());
  if (known != nodes_.end()) return kNumSymbols + index;
  if (num_values() == kMaxValues) {
    fail(ErrorKind::kInternal, "a plan's size expressions have more than {} parts", kMaxValues);
  }
  nodes_.push_back(node);
  texts_.push_back(expression.text());
  return kNumSymbols + index;
}

int SizeProgram::add(const SizeExpr& expression) {
  std::vector<int> stack;
  for (const SizeExpr::Step& step : expression.steps_) {
    if (step.op == SizeExpr::Op::kSymbol) {
      stack.push_back(static_cast<int>(step.value));
      continue;
    }
    Node node = {.op = step.op};
    if (step.op == SizeExpr::Op::kPush) {
      node.number = step.value;
    } else {
      node.b = static_cast<uint16_t>(stack.back());
      stack.pop_back();
      node.a = static_cast<uint16_t>(stack.back());
      stack.pop_back();
    }
    stack.push_back(value_of(node, expression));
  }
  return stack.back();
}

void SizeProgram::evaluate(SymbolValues symbols, std::span<int64_t> values) const {
  std::copy(symbols.begin(), symbols.end(), values.begin());
  int64_t* out = values.data() + kNumSymbols;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    out[i] = node.op == SizeExpr::Op::kPush
                 ? node.number
                 : SizeExpr::apply(node.op, values[node.a], values[node.b], texts_[i]);
  }
}

}  // namespace sagejit
