// SizeProgram: the expressions of a plan as one program, which computes what they share once.
//
// The launch path evaluates some hundred expressions over the same symbols, most of which are
// symbols alone or made of the same few parts.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compiler/support/size_expr.h"

namespace sagejit {

class SizeProgram {
 public:
  // Adds an expression; returns the index of its value. Throws Error{kInternal} beyond kMaxValues.
  int add(const SizeExpr& expression);

  // The values of all expressions, and of their parts, into the first num_values() of `values`.
  // Throws as SizeExpr::evaluate. Allocates nothing; may be called from any thread.
  void evaluate(SymbolValues symbols, std::span<int64_t> values) const;

  static constexpr int kMaxValues = 512;
  int num_values() const { return kNumSymbols + static_cast<int>(nodes_.size()); }

 private:
  // A number, or an operation on two values before it. Symbols are the first values.
  struct Node {
    SizeExpr::Op op;
    uint16_t a = 0, b = 0;
    int64_t number = 0;
    bool operator==(const Node&) const = default;
  };
  int value_of(const Node& node, const SizeExpr& expression);

  std::vector<Node> nodes_;
  std::vector<std::string> texts_;  // by node: of the first expression with it, for messages
};

}  // namespace sagejit
