#include <algorithm>
#include <set>
#include <vector>

#include "compiler/ir/ir.h"
#include "compiler/support/error.h"

namespace sagejit::ir {
namespace {

// What is known of a register while the function is walked.
enum class State : uint8_t { kUndefined, kInScope, kOutOfScope };

class Verifier {
 public:
  Verifier(const Function& function, int sm)
      : function_(function), sm_(sm), state_(function.num_registers, State::kUndefined) {}

  void run() {
    if (function_.block_threads <= 0 || function_.block_threads > 1024) {
      fail_function("threads must be 1..1024");
    }
    check_names(function_.params, "parameters");
    check_names(function_.smem, "shared-memory objects");
    check_smem();
    check_block(function_.body, /*divergent=*/false);
  }

 private:
  [[noreturn]] void fail_function(std::string_view what) const {
    fail(ErrorKind::kInternal, "kernel IR of '{}': {}", function_.name, what);
  }

  [[noreturn]] void fail_at(const Inst& inst, std::string_view what) const {
    fail(ErrorKind::kInternal, "kernel IR of '{}': {} in '{}': {}", function_.name,
         info(inst.op).name, print_line(function_, inst), what);
  }

  template <typename Named>
  void check_names(const std::vector<Named>& list, std::string_view what) const {
    std::set<std::string_view> names;
    for (const Named& item : list) {
      if (!names.insert(item.name).second) {
        fail_function(fmt::format("there are two {} '{}'", what, item.name));
      }
    }
  }

  void check_smem() const {
    int end = 0;
    for (const SmemObject& object : function_.smem) {
      if (object.offset_bytes < end) fail_function("shared-memory objects overlap");
      end = object.offset_bytes + object.bytes;
    }
  }

  void use(const Inst& inst, Value value) const {
    if (value.is_const()) {
      const bool exists =
          value.type == Type::kI32 || value.type == Type::kI64 || value.type == Type::kF32;
      if (!exists)
        fail_at(inst, fmt::format("there are no constants of type {}", name_of(value.type)));
      return;
    }
    if (value.kind == Value::Kind::kNone || value.bits >= state_.size()) {
      fail_at(inst, "an operand is no register of this function");
    }
    if (state_[value.bits] == State::kUndefined)
      fail_at(inst, "an operand is used before it is defined");
    if (state_[value.bits] == State::kOutOfScope)
      fail_at(inst, "an operand belongs to a closed block");
  }

  void define(const Inst& inst, Value value, std::vector<uint64_t>& scope) {
    if (value.bits >= state_.size()) fail_at(inst, "a result's number is out of range");
    if (state_[value.bits] != State::kUndefined) fail_at(inst, "a register is defined twice");
    state_[value.bits] = State::kInScope;
    scope.push_back(value.bits);
  }

  static bool letter_fits(char letter, Value value) {
    return letter == 'i' ? value.is_const() : letter == letter_of(value.type);
  }

  void check_signature(const Inst& inst) const {
    const OpInfo& row = info(inst.op);
    if (row.operands.size() != inst.operands.size() || row.results.size() != inst.results.size()) {
      fail_at(inst, "wrong number of operands or results");
    }
    for (size_t i = 0; i < inst.operands.size(); ++i) {
      if (!letter_fits(row.operands[i], inst.operands[i]))
        fail_at(inst, "operand types do not fit");
    }
    check_no_variables(inst);
    for (size_t i = 0; i < inst.results.size(); ++i) {
      if (letter_of(inst.results[i].type) != row.results[i])
        fail_at(inst, "result types do not fit");
    }
    if (row.min_sm > sm_) fail_at(inst, fmt::format("needs sm_{} or newer", row.min_sm));
  }

  // Variables are written by var and set, and read by get alone.
  void check_no_variables(const Inst& inst) const {
    const auto is_variable = [](Value value) { return value.kind == Value::Kind::kVariable; };
    if (std::any_of(inst.operands.begin(), inst.operands.end(), is_variable)) {
      fail_at(inst, "an operand is a variable, which only get reads");
    }
    if (std::any_of(inst.results.begin(), inst.results.end(), is_variable)) {
      fail_at(inst, "a result is a variable, which only var defines");
    }
  }

  void check_structural_shape(const Inst& inst) const {
    struct Shape {
      Op op;
      size_t results, operands;
    };
    static constexpr Shape kShapes[] = {
        {Op::kParam, 1, 1}, {Op::kSmem, 1, 1},      {Op::kVar, 1, 1}, {Op::kGet, 1, 1},
        {Op::kSet, 0, 2},   {Op::kFor, 1, 3},       {Op::kIf, 0, 1},  {Op::kComment, 0, 0},
        {Op::kWhile, 0, 1}, {Op::kIfUniform, 0, 1},
    };
    if (inst.op == Op::kTie) return check_tie(inst);
    if (inst.op == Op::kWgmmaWait || find_wgmma(inst.op)) return check_wgmma(inst);
    for (const Shape& shape : kShapes) {
      if (shape.op != inst.op) continue;
      if (inst.results.size() != shape.results || inst.operands.size() != shape.operands) {
        fail_at(inst, "wrong number of operands or results");
      }
    }
    const bool takes_variables =
        inst.op == Op::kVar || inst.op == Op::kGet || inst.op == Op::kSet || inst.op == Op::kWhile;
    if (!takes_variables) check_no_variables(inst);
  }

  void check_tie(const Inst& inst) const {
    if (!inst.results.empty()) fail_at(inst, "it has no results");
    if (num_accumulators(inst) != static_cast<int>(inst.operands.size())) {
      fail_at(inst, "operands must be variables");
    }
  }

  // The accumulators come first, all of the type that the row and the number of columns demand.
  void check_wgmma(const Inst& inst) const {
    const int accumulators = num_accumulators(inst);
    if (sm_ < 90) fail_at(inst, "needs sm_90a");
    if (!inst.results.empty()) fail_at(inst, "it has no results: it writes variables");
    const auto at = [&](size_t i) { return inst.operands.size() > i ? inst.operands[i] : Value{}; };
    if (inst.op == Op::kWgmmaWait) {
      if (!at(0).is_const() || inst.operands.size() != static_cast<size_t>(accumulators) + 1) {
        fail_at(inst, "operands must be a number and variables");
      }
      return;
    }
    const WgmmaInfo& wgmma = *find_wgmma(inst.op);
    const Type type = wgmma.c == DType::kF32 ? Type::kF32 : Type::kI32;
    const int per_column_tile = wgmma.c == DType::kF16 ? 2 : 4;
    const size_t rest = inst.operands.size() - static_cast<size_t>(accumulators);
    if (accumulators == 0 || accumulators % per_column_tile ||
        accumulators / per_column_tile > 32) {
      fail_at(inst, "accumulators must fill 1 to 32 tiles of 8 columns");
    }
    for (int i = 0; i < accumulators; ++i) {
      if (at(i).kind != Value::Kind::kVariable || at(i).type != type) {
        fail_at(inst, "accumulators must come first and have the type of the row");
      }
    }
    if (rest != 4 && rest != 7) fail_at(inst, "A is one descriptor or four registers");
    for (size_t i = 0; i + 3 < rest; ++i) {
      const Type a = rest == 4 ? Type::kI64 : Type::kI32;
      if (at(accumulators + i).type != a) fail_at(inst, "A has the wrong type");
    }
    if (at(inst.operands.size() - 3).type != Type::kI64) fail_at(inst, "B is a descriptor");
    for (size_t i = inst.operands.size() - 2; i < inst.operands.size(); ++i) {
      if (!at(i).is_const() || at(i).bits > 1) fail_at(inst, "the last two operands are 0 or 1");
    }
  }

  void check_structural(const Inst& inst) const {
    check_structural_shape(inst);
    const auto require = [&](bool condition, std::string_view what) {
      if (!condition) fail_at(inst, what);
    };
    switch (inst.op) {
      case Op::kParam:
        require(inst.operands[0].is_const() && inst.operands[0].bits < function_.params.size(),
                "no such parameter");
        require(function_.params[inst.operands[0].bits].type == inst.results[0].type,
                "parameter type");
        return;
      case Op::kSmem:
        require(inst.operands[0].is_const() && inst.operands[0].bits < function_.smem.size(),
                "no such shared-memory object");
        require(inst.results[0].type == Type::kI32, "a shared-memory address is i32");
        return;
      case Op::kVar:
        require(inst.results[0].kind == Value::Kind::kVariable, "result must be a variable");
        require(inst.results[0].type == inst.operands[0].type, "types differ");
        return;
      case Op::kGet:
      case Op::kSet:
        require(inst.operands[0].kind == Value::Kind::kVariable, "operand 0 must be a variable");
        require(inst.operands[0].type ==
                    (inst.op == Op::kGet ? inst.results[0].type : inst.operands[1].type),
                "types differ");
        require(inst.op == Op::kGet ? inst.results[0].kind == Value::Kind::kRegister
                                    : inst.operands[1].kind != Value::Kind::kVariable,
                "a variable's value goes through a register");
        return;
      case Op::kFor:
        for (const Value& operand : inst.operands) {
          require(operand.type == Type::kI32, "bounds must be i32");
        }
        require(inst.results[0].type == Type::kI32, "the index must be i32");
        return;
      case Op::kWhile:
        require(
            inst.operands[0].kind == Value::Kind::kVariable && inst.operands[0].type == Type::kI32,
            "condition must be an i32 variable");
        return;
      case Op::kIf:
      case Op::kIfUniform:
        require(inst.operands[0].type == Type::kPred, "condition must be a predicate");
        return;
      case Op::kComment:
        require(inst.text.find('\n') == std::string::npos, "a comment must be one line");
        return;
      default:
        return;
    }
  }

  static bool is_structural(Op op) { return op >= Op::kParam; }

  // `divergent`: inside an `if`, whose condition may differ between threads.
  void check_block(const Block& block, bool divergent) {
    std::vector<uint64_t> scope;
    for (const Inst& inst : block) {
      for (const Value& operand : inst.operands) use(inst, operand);
      if (is_structural(inst.op)) {
        check_structural(inst);
      } else {
        check_signature(inst);
        const bool is_barrier = inst.op == Op::kBarrier || inst.op == Op::kTeamBarrier;
        if (is_barrier && divergent) {
          fail_at(inst,
                  "a barrier stands inside an if: threads that skip it would hang the others");
        }
      }
      if (inst.op == Op::kFor) {
        std::vector<uint64_t> index_scope;
        define(inst, inst.results[0], index_scope);
        check_block(inst.body, divergent);
        for (const uint64_t number : index_scope) state_[number] = State::kOutOfScope;
      } else if (inst.op == Op::kWhile) {
        check_block(inst.body, divergent);
      } else if (inst.op == Op::kIf || inst.op == Op::kIfUniform) {
        const bool may_diverge = divergent || inst.op == Op::kIf;
        check_block(inst.body, may_diverge);
        check_block(inst.orelse, may_diverge);
      } else {
        for (const Value& result : inst.results) define(inst, result, scope);
      }
    }
    for (const uint64_t number : scope) state_[number] = State::kOutOfScope;
  }

  const Function& function_;
  int sm_;
  std::vector<State> state_;
};

}  // namespace

void verify(const Function& function, int sm) {
  Verifier(function, sm).run();
}

}  // namespace sagejit::ir
