#include "compiler/cost/loop_counts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace sagejit::cost {

using ir::Block;
using ir::Effect;
using ir::Inst;
using ir::Op;
using ir::Value;

namespace {

bool is_mma(Op op) {
  static const std::set<Op> ops = {
#define MMA(id, name, m, n, k, a, b, c, ptx_version, ptx) Op::id,
#include "compiler/ir/mma.def"
#undef MMA
  };
  return ops.contains(op);
}

bool is_product(Op op) {
  return is_mma(op) || ir::find_wgmma(op);
}

// Operands of a warpgroup's product behind its sums: A, of one descriptor or four registers, and
// three more.
constexpr size_t kBehindA = 3;

// What tells apart operations that are counted apart: the fields of OpCount but the count.
using CountKey = std::tuple<Op, int, bool>;
using CountMap = std::map<CountKey, int>;

CountKey key_of(const Inst& inst) {
  const ir::WgmmaInfo* wgmma = ir::find_wgmma(inst.op);
  if (!wgmma) return {inst.op, 0, false};
  const int sums = ir::num_accumulators(inst);
  const size_t a = inst.operands.size() - static_cast<size_t>(sums) - kBehindA;
  // A thread holds 64 n / 128 sums, two to a register in f16.
  return {inst.op, sums * (wgmma->c == DType::kF16 ? 4 : 2), a > 1};
}

// Numbers the values of a loop's body, so that equal ones have equal numbers, and tells which
// change from iteration to iteration.
class LoopCounter {
 public:
  LoopCount count(const Inst& loop) {
    for (const Value& variable : variables_set_in(loop.body)) current_[variable.bits] = varying();
    numbers_[loop.results[0].bits] = varying();
    walk(loop.body, false);
    LoopCount result;
    result.ops = list(ops_);
    result.rare = list(rare_);
    result.bulk_copy_bytes = bulk_copy_bytes_;
    return result;
  }

 private:
  using Number = uint64_t;

  static std::vector<Value> variables_set_in(const Block& block) {
    std::vector<Value> variables;
    for (const Inst& inst : block) {
      for (const Value& operand : inst.operands) {
        const bool writes = inst.op == Op::kSet || ir::find_wgmma(inst.op);
        if (writes && operand.kind == Value::Kind::kVariable) variables.push_back(operand);
      }
      for (const Block* inner : {&inst.body, &inst.orelse}) {
        const std::vector<Value> more = variables_set_in(*inner);
        variables.insert(variables.end(), more.begin(), more.end());
      }
    }
    return variables;
  }

  static std::vector<OpCount> list(const CountMap& map) {
    std::vector<OpCount> result;
    for (const auto& [key, count] : map) {
      result.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), count});
    }
    return result;
  }

  Number varying() {
    varying_.insert(++last_);
    return last_;
  }
  Number numbered(const std::vector<uint64_t>& key) {
    const auto [at, is_new] = expressions_.try_emplace(key, last_ + 1);
    if (is_new) ++last_;
    return at->second;
  }
  Number number_of(const Value& value) {
    if (value.is_const()) return numbered({0, static_cast<uint64_t>(value.type), value.bits});
    auto& known = value.kind == Value::Kind::kVariable ? current_ : numbers_;
    const auto at = known.find(value.bits);
    return at != known.end() ? at->second : numbered({1, value.bits});  // of before the loop
  }

  void walk(const Block& block, bool rare) {
    for (const Inst& inst : block) visit(inst, rare);
  }

  void visit(const Inst& inst, bool rare) {
    switch (inst.op) {
      case Op::kComment:
      case Op::kTie:
      case Op::kParam:
      case Op::kSmem:
        return;
      case Op::kVar:
        current_[inst.results[0].bits] = number_of(inst.operands[0]);
        return;
      case Op::kGet:
      case Op::kBitsF32:
      case Op::kF32Bits:
        numbers_[inst.results[0].bits] = number_of(inst.operands[0]);
        return;
      case Op::kSet:
        if (inst.operands[1].is_const()) add(inst, rare);  // a register must be loaded with it
        current_[inst.operands[0].bits] = number_of(inst.operands[1]);
        return;
      case Op::kIf:
      case Op::kIfUniform:
        return visit_branch(inst, rare);
      default:
        return visit_operation(inst, rare);
    }
  }

  void visit_branch(const Inst& inst, bool rare) {
    const bool is_rare = rare || votes_.contains(inst.operands[0].bits);
    walk(inst.body, is_rare);
    walk(inst.orelse, is_rare);
    for (const Block* inner : {&inst.body, &inst.orelse}) {
      for (const Value& variable : variables_set_in(*inner)) current_[variable.bits] = varying();
    }
  }

  void visit_operation(const Inst& inst, bool rare) {
    const bool is_pure = !ir::find_wgmma(inst.op) && ir::info(inst.op).effect == Effect::kPure &&
                         inst.op != Op::kWgmmaWait;
    if (!is_pure) {
      add(inst, rare);
      for (const Value& result : inst.results) {
        numbers_[result.bits] = varying();
        if (inst.op == Op::kAnySync) votes_.insert(result.bits);
      }
      for (const Value& operand : inst.operands) {
        if (operand.kind == Value::Kind::kVariable) current_[operand.bits] = varying();
      }
      return;
    }
    std::vector<uint64_t> key = {2, static_cast<uint64_t>(inst.op)};
    bool varies = false;
    for (const Value& operand : inst.operands) {
      key.push_back(number_of(operand));
      varies = varies || varying_.contains(key.back());
    }
    const bool known = expressions_.contains(key);
    for (size_t i = 0; i < inst.results.size(); ++i) {
      std::vector<uint64_t> of_result = key;
      if (i > 0) of_result.insert(of_result.begin(), 3 + i);
      const Number number = numbered(of_result);
      if (varies) varying_.insert(number);
      numbers_[inst.results[i].bits] = number;
    }
    if (varies && !known) add(inst, rare);
  }

  void add(const Inst& inst, bool rare) {
    ++(rare ? rare_ : ops_)[key_of(inst)];
    if (inst.op == Op::kBulkCopy && inst.operands[2].is_const()) {
      bulk_copy_bytes_ += static_cast<int>(inst.operands[2].bits);
    }
  }

  Number last_ = 0;
  std::map<uint64_t, Number> numbers_, current_;  // of registers; of what variables hold
  std::map<std::vector<uint64_t>, Number> expressions_;
  std::set<Number> varying_;
  std::set<uint64_t> votes_;
  CountMap ops_, rare_;
  int bulk_copy_bytes_ = 0;
};

// Whether the block itself, or a branch in it, but no loop in it, has such an operation.
template <typename Is>
bool has(const Block& block, Is is) {
  return std::any_of(block.begin(), block.end(), [&](const Inst& inst) {
    if (inst.op == Op::kFor || inst.op == Op::kWhile) return false;
    return is(inst.op) || has(inst.body, is) || has(inst.orelse, is);
  });
}

void collect(const Block& block, std::vector<LoopCount>& loops) {
  std::string label;
  for (const Inst& inst : block) {
    const bool counts = inst.op == Op::kFor &&
                        has(inst.body, [](Op op) { return is_product(op) || op == Op::kBulkCopy; });
    if (counts) {
      loops.push_back(LoopCounter().count(inst));
      loops.back().label = label;
      label.clear();
    } else {
      collect(inst.body, loops);
      collect(inst.orelse, loops);
    }
    if (inst.op == Op::kComment) label = inst.text;
  }
}

int total(const std::vector<OpCount>& ops) {
  int sum = 0;
  for (const OpCount& op : ops) sum += op.count;
  return sum;
}

}  // namespace

std::string name_of(const OpCount& count) {
  std::string name(ir::info(count.op).name);
  if (const ir::WgmmaInfo* wgmma = ir::find_wgmma(count.op)) {
    return fmt::format("{} m64n{}k{}{}", name, count.columns, wgmma->k,
                       count.a_in_registers ? " (A in registers)" : "");
  }
  if (!is_mma(count.op)) return name;
  const ir::MmaInfo& mma = ir::mma_info(count.op);
  return fmt::format("{} m{}n{}k{}", name, mma.m, mma.n, mma.k);
}

bool LoopCount::has_products() const {
  return std::any_of(ops.begin(), ops.end(), [](const OpCount& op) { return is_product(op.op); });
}

std::vector<LoopCount> count_loops(const ir::Function& kernel) {
  std::vector<LoopCount> loops;
  collect(kernel.body, loops);
  return loops;
}

const LoopCount* main_loop(const std::vector<LoopCount>& loops) {
  const LoopCount* least = nullptr;
  for (const LoopCount& loop : loops) {
    if (!loop.has_products()) continue;
    if (!least || total(loop.ops) < total(least->ops)) least = &loop;
  }
  return least;
}

}  // namespace sagejit::cost
