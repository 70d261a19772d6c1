#include "compiler/backend/ptx/registers.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace sagejit {
namespace {

using ir::Inst;
using ir::Op;
using ir::Value;

// Instructions are numbered in the order of the text; a loop's end has a number of its own.
using Position = int;
using Positions = std::vector<Position>;  // ascending
constexpr Position kNever = std::numeric_limits<Position>::max();

struct Loop {
  int parent;  // -1: none
  Position begin, end;
};

struct Definition {
  const Inst* inst = nullptr;
  Position at = -1;
  int block = -1;
};

bool any_in(const Positions& positions, Position after, Position before) {
  const auto it = std::upper_bound(positions.begin(), positions.end(), after);
  return it != positions.end() && *it < before;
}

// Where everything is defined, read and written.
class Survey {
 public:
  explicit Survey(const ir::Function& function)
      : definitions(function.num_registers),
        uses(function.num_registers),
        writes(function.num_registers),
        held_from(function.num_registers, kNever),
        is_sum_(function.num_registers) {
    walk(function.body);
    for (const Reading& reading : readings_) hold(reading, -1, kNever);
    for (const auto& [variable, wait] : waited_for_) {
      if (is_sum_[variable]) insert(writes[variable], wait);
    }
  }

  std::vector<Definition> definitions;  // by number
  std::vector<Positions> uses;          // as an operand of any kind
  std::vector<Positions> writes;        // of a variable, but for its first
  // The beginning of the loop whose next iterations a number must outlast, as a product of this
  // iteration is in flight; kNever: none.
  Positions held_from;
  std::vector<std::pair<Position, const Inst*>> gets, moves;  // moves: set and var

  // How long a register that is defined at `from` and used at `use` must keep its value.
  Position lives_until(Position from, Position use) const {
    if (use >= static_cast<Position>(loop_of_.size())) return use;
    Position until = use;
    for (int loop = loop_of_[use]; loop >= 0 && loops_[loop].begin > from;
         loop = loops_[loop].parent) {
      until = loops_[loop].end + 1;  // writes at its end come before the next iteration's use
    }
    return until;
  }

  int block_at(Position at) const { return block_of_[at]; }

  void add_use(uint64_t number, Position at) { insert(uses[number], at); }
  void add_write(uint64_t variable, Position at) {
    insert(writes[variable], at);
    add_use(variable, at);
  }

 private:
  static void insert(Positions& list, Position at) {
    list.insert(std::upper_bound(list.begin(), list.end(), at), at);
  }

  Position next_position(int block) {
    loop_of_.push_back(loop_);
    block_of_.push_back(block);
    return static_cast<Position>(loop_of_.size()) - 1;
  }

  // A register of an operand A that a product in flight reads.
  struct Reading {
    uint64_t number;
    Position product;
    int num_groups = 0;  // that were surely committed since, its own included
  };

  // A commit or wait that runs whenever what was read since `block_begin` did.
  void commit(Position block_begin) {
    for (Reading& reading : readings_) reading.num_groups += reading.product >= block_begin;
  }
  void wait(int in_flight, Position block_begin, Position at) {
    std::erase_if(readings_, [&](const Reading& reading) {
      if (reading.product < block_begin || reading.num_groups <= in_flight) return false;
      hold(reading, loop_, at);
      return true;
    });
  }

  // Until `end`, in loop `end_loop`, which is around the product.
  void hold(const Reading& reading, int end_loop, Position end) {
    for (int loop = loop_of_[reading.product]; loop != end_loop; loop = loops_[loop].parent) {
      held_from[reading.number] = std::min(held_from[reading.number], loops_[loop].begin);
    }
    add_use(reading.number, end);
  }

  void walk(const ir::Block& block) {
    const int number = num_blocks_++;
    const auto begin = static_cast<Position>(loop_of_.size());
    for (const Inst& inst : block) {
      const Position at = next_position(number);
      for (const Value& result : inst.results) definitions[result.bits] = {&inst, at, number};
      if (inst.op == Op::kFor || inst.op == Op::kWhile) {
        walk_loop(inst, at);
        continue;
      }
      operands(inst, at);
      if (inst.op == Op::kWgmmaCommit) commit(begin);
      if (inst.op == Op::kWgmmaWait) wait(static_cast<int>(inst.operands[0].bits), begin, at);
      walk(inst.body);
      walk(inst.orelse);
    }
  }

  // Bounds and conditions are read at the end of each iteration too.
  void walk_loop(const Inst& inst, Position at) {
    operands(inst, at);
    const int outer = loop_;
    loops_.push_back({outer, at, at});
    loop_ = static_cast<int>(loops_.size()) - 1;
    walk(inst.body);
    const Position end = next_position(-1);
    loops_[loop_].end = end;
    loop_ = outer;
    operands(inst, end);
  }

  void operands(const Inst& inst, Position at) {
    const bool is_product = ir::find_wgmma(inst.op) != nullptr;
    if (inst.op == Op::kGet) gets.emplace_back(at, &inst);
    if (inst.op == Op::kSet || inst.op == Op::kVar) moves.emplace_back(at, &inst);
    for (const Value& operand : inst.operands) {
      if (operand.is_const()) continue;
      uses[operand.bits].push_back(at);
      if (operand.kind == Value::Kind::kRegister) {
        if (is_product) readings_.push_back({operand.bits, at});
        continue;
      }
      if (is_product) is_sum_[operand.bits] = true;
      if (inst.op == Op::kWgmmaWait) waited_for_.emplace_back(operand.bits, at);
      if (is_product || (inst.op == Op::kSet && &operand == &inst.operands[0])) {
        writes[operand.bits].push_back(at);
      }
    }
  }

  std::vector<Loop> loops_;
  std::vector<int> loop_of_, block_of_;  // by position; loops: the innermost, or -1
  int loop_ = -1, num_blocks_ = 0;
  std::vector<Reading> readings_;
  // Variables that a wait names. It ends the writing of those that are sums of products; others,
  // which products read, keep their value.
  std::vector<std::pair<uint64_t, Position>> waited_for_;
  std::vector<bool> is_sum_;  // by number
};

class Sharing {
 public:
  explicit Sharing(const ir::Function& function)
      : survey_(function), shared_(function.num_registers) {
    std::iota(shared_.begin(), shared_.end(), uint64_t{0});
  }

  std::vector<uint64_t> run() {
    share_bits();
    for (const auto& [at, inst] : survey_.gets) share_get(*inst, at);
    for (const auto& [at, inst] : survey_.moves) share_move(*inst, at);
    for (uint64_t& number : shared_) number = root(number);
    return std::move(shared_);
  }

 private:
  uint64_t root(uint64_t number) const {
    while (shared_[number] != number) number = shared_[number];
    return number;
  }

  void share(uint64_t number, uint64_t with) {
    shared_[number] = with;
    survey_.held_from[with] = std::min(survey_.held_from[with], survey_.held_from[number]);
    for (const Position use : survey_.uses[number]) survey_.add_use(with, use);
  }

  // Whether a variable that has the value of `number` from `at` on is written before the last use.
  bool is_overwritten(uint64_t number, Position defined, uint64_t variable, Position at) const {
    const Position from = std::min(at, survey_.held_from[number]);
    const Positions& uses = survey_.uses[number];
    return std::any_of(uses.begin(), uses.end(), [&](Position use) {
      return any_in(survey_.writes[variable], from, survey_.lives_until(defined, use));
    });
  }

  // From the last to the first, so that uses arrive at the end of a chain.
  void share_bits() {
    for (size_t number = shared_.size(); number-- > 0;) {
      const Inst* inst = survey_.definitions[number].inst;
      if (!inst || (inst->op != Op::kBitsF32 && inst->op != Op::kF32Bits)) continue;
      if (!inst->operands[0].is_const()) share(number, inst->operands[0].bits);
    }
  }

  void share_get(const Inst& get, Position at) {
    const uint64_t number = get.results[0].bits, variable = get.operands[0].bits;
    if (!is_overwritten(number, at, variable, at)) share(number, variable);
  }

  // From `computed.at` on the variable's register holds the value.
  void share_move(const Inst& move, Position at) {
    const bool is_set = move.op == Op::kSet;
    const uint64_t variable = is_set ? move.operands[0].bits : move.results[0].bits;
    const Value value = move.operands[is_set ? 1 : 0];
    if (value.is_const()) return;
    const uint64_t number = root(value.bits);
    const Definition& computed = survey_.definitions[number];
    if (computed.inst->op >= Op::kParam || computed.block != survey_.block_at(at)) return;
    const Positions& touched = survey_.uses[variable];
    if (any_in(touched, computed.at, at)) return;
    const bool is_sequence = ir::info(computed.inst->op).ptx.starts_with('{');
    if (is_sequence && any_in(touched, computed.at - 1, computed.at + 1)) return;
    if (is_overwritten(number, computed.at, variable, at)) return;
    share(number, variable);
    survey_.add_write(variable, computed.at);
  }

  Survey survey_;
  std::vector<uint64_t> shared_;
};

}  // namespace

std::vector<uint64_t> share_registers(const ir::Function& function) {
  return Sharing(function).run();
}

}  // namespace sagejit
