#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "compiler/ir/fold.h"
#include "compiler/ir/passes/passes.h"
#include "compiler/ir/passes/walk.h"

namespace sagejit::ir {
namespace {

class Merger {
 public:
  explicit Merger(const Function& function) : replacements_(function) {}

  void walk(Block& block) {
    std::vector<Known::iterator> added;
    Block kept;
    for (Inst& inst : block) {
      replacements_.apply(inst);
      if (is_loop(inst)) {
        walk_loop(inst.body);
      } else {
        walk(inst.body);
        walk(inst.orelse);
      }
      if (is_integer_computation(inst) && merge(inst, added)) continue;
      kept.push_back(std::move(inst));
    }
    block = std::move(kept);
    for (const Known::iterator known : added) known_.erase(known);
  }

 private:
  using Operand = std::tuple<Value::Kind, Type, uint64_t>;
  struct Key {
    Op op;
    std::vector<Operand> operands;
    auto operator<=>(const Key&) const = default;
  };
  using Known = std::map<Key, std::vector<Value>>;

  // True if the results are replaced by what is known; else they are known from now on.
  bool merge(const Inst& inst, std::vector<Known::iterator>& added) {
    const auto [known, is_new] = known_.try_emplace(key_of(inst), inst.results);
    if (is_new) {
      added.push_back(known);
      return false;
    }
    for (size_t i = 0; i < inst.results.size(); ++i) {
      replacements_.set(inst.results[i], known->second[i]);
    }
    return true;
  }

  void walk_loop(Block& body) {
    Known outside = std::exchange(known_, {});
    walk(body);
    known_ = std::move(outside);
  }

  static Key key_of(const Inst& inst) {
    Key key{inst.op, {}};
    for (const Value& operand : inst.operands) {
      key.operands.emplace_back(operand.kind, operand.type, operand.bits);
    }
    if (is_commutative(inst.op)) std::sort(key.operands.begin(), key.operands.end());
    return key;
  }

  Replacements replacements_;
  Known known_;  // what the blocks around here have computed
};

}  // namespace

Function merge_common(Function function) {
  Merger(function).walk(function.body);
  return function;
}

}  // namespace sagejit::ir
