#include "compiler/ir/builder.h"

#include <bit>
#include <optional>

#include "compiler/ir/fold.h"
#include "compiler/ir/fragment.h"
#include "compiler/support/error.h"

namespace sagejit::ir {
namespace {

Type type_of_letter(char letter) {
  switch (letter) {
    case 'p':
      return Type::kPred;
    case 'h':
      return Type::kB16;
    case 'l':
      return Type::kI64;
    case 'f':
      return Type::kF32;
    default:
      return Type::kI32;  // 'r', and 'i' for constants
  }
}

void check_operands(Op op, const std::vector<Value>& operands) {
  const OpInfo& row = info(op);
  if (operands.size() != row.operands.size()) {
    fail(ErrorKind::kInternal, "{} takes {} operands, got {}", row.name, row.operands.size(),
         operands.size());
  }
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool fits = operands[i] && operands[i].type == type_of_letter(row.operands[i]) &&
                      operands[i].kind != Value::Kind::kVariable &&
                      (row.operands[i] != 'i' || operands[i].is_const());
    if (!fits) fail(ErrorKind::kInternal, "operand {} of {} has the wrong type", i, row.name);
  }
}

}  // namespace

Value constant_f32(float value) {
  return {Value::Kind::kConst, Type::kF32, std::bit_cast<uint32_t>(value)};
}

Builder::Builder(std::string name, const Teams& teams, int min_blocks_per_sm) : teams_(teams) {
  constexpr int kMostTeams = 15;  // barrier 0 is the block's
  if (teams.num_teams < 1 || teams.num_teams > kMostTeams ||
      (teams.num_teams > 1 && teams.team_threads % kWarpThreads != 0)) {
    fail(ErrorKind::kInternal, "{}: teams are 1 to {}, of whole warps", name, kMostTeams);
  }
  function_.name = std::move(name);
  function_.block_threads = teams.num_teams * teams.team_threads;
  function_.min_blocks_per_sm = min_blocks_per_sm;
  blocks_.push_back(&function_.body);
  tid_ = emit1(Op::kTid, {});
  team_ = team_smem_ = constant(0);
  if (teams.num_teams > 1) {
    // The same in all lanes of a warp: said so, it and what depends on it are kept once a warp.
    team_ = emit1(Op::kShflI32, {div(tid_, constant(teams.team_threads)), constant(0)});
    tid_ = rem(tid_, constant(teams.team_threads));
    team_smem_ = emit1(Op::kMulI32, {team_, constant(0)});  // finish() knows the factor
    team_smem_at_ = function_.body.size() - 1;
  }
  lane_ = bit_and(tid_, constant(kWarpThreads - 1));
  warp_ = div(tid_, constant(kWarpThreads));
}

void Builder::barrier() {
  if (teams_.num_teams == 1) {
    emit(Op::kBarrier, {});
  } else {
    emit(Op::kTeamBarrier, {add(team_, constant(1)), constant(teams_.team_threads)});
  }
}

Value Builder::new_register(Type type, Value::Kind kind) {
  return {kind, type, static_cast<uint64_t>(function_.num_registers++)};
}

Value Builder::param(const std::string& name, Type type) {
  const int number = static_cast<int>(function_.params.size());
  function_.params.push_back({name, type});
  const Value result = new_register(type);
  append({Op::kParam, {result}, {constant(number)}, {}, {}, {}});
  return result;
}

Value Builder::smem(const std::string& name, int bytes, int align) {
  const int number = static_cast<int>(function_.smem.size());
  const int offset = (function_.smem_bytes() + align - 1) / align * align;
  function_.smem.push_back({name, offset, bytes});
  const Value result = new_register(Type::kI32);
  append({Op::kSmem, {result}, {constant(number)}, {}, {}, {}});
  return add(result, team_smem_);
}

void Builder::comment(std::string text) {
  append({Op::kComment, {}, {}, {}, {}, std::move(text)});
}

std::vector<Value> Builder::emit(Op op, std::initializer_list<Value> operands) {
  return emit(op, std::vector<Value>(operands));
}

std::vector<Value> Builder::emit(Op op, const std::vector<Value>& operands) {
  check_operands(op, operands);
  std::vector<Value> results;
  for (const char letter : info(op).results)
    results.push_back(new_register(type_of_letter(letter)));
  append({op, results, operands, {}, {}, {}});
  return results;
}

Value Builder::fold_or_emit(Op op, Value a, Value b) {
  const Expression expression = simplified({op, a, b});
  if (const std::optional<Value> value = value_of(expression)) return *value;
  return emit1(expression.op, {expression.a, expression.b});
}

Value Builder::add(Value a, Value b) {
  return fold_or_emit(Op::kAddI32, a, b);
}
Value Builder::sub(Value a, Value b) {
  return fold_or_emit(Op::kSubI32, a, b);
}
Value Builder::mul(Value a, Value b) {
  return fold_or_emit(Op::kMulI32, a, b);
}
Value Builder::div(Value a, Value b) {
  return fold_or_emit(Op::kDivU32, a, b);
}
Value Builder::rem(Value a, Value b) {
  return fold_or_emit(Op::kRemU32, a, b);
}
Value Builder::bit_and(Value a, Value b) {
  return fold_or_emit(Op::kAndI32, a, b);
}
Value Builder::bit_or(Value a, Value b) {
  return fold_or_emit(Op::kOrI32, a, b);
}
Value Builder::bit_xor(Value a, Value b) {
  return fold_or_emit(Op::kXorI32, a, b);
}
Value Builder::shl(Value a, int bits) {
  return fold_or_emit(Op::kShlI32, a, constant(bits));
}
Value Builder::shr(Value a, int bits) {
  return fold_or_emit(Op::kShrU32, a, constant(bits));
}
Value Builder::min(Value a, Value b) {
  return fold_or_emit(Op::kMinS32, a, b);
}
Value Builder::max(Value a, Value b) {
  return fold_or_emit(Op::kMaxS32, a, b);
}

Value Builder::zext(Value a) {
  if (a.is_const()) return {Value::Kind::kConst, Type::kI64, a.bits};
  return emit1(Op::kZextI64, {a});
}
Value Builder::sext(Value a) {
  if (a.is_const()) {
    return {Value::Kind::kConst, Type::kI64,
            static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(a.bits)))};
  }
  return emit1(Op::kSextI64, {a});
}

Value Builder::add64(Value a, Value b) {
  if (b.is_const() && b.bits == 0) return a;
  if (a.is_const() && a.bits == 0) return b;
  return emit1(Op::kAddI64, {a, b});
}
Value Builder::mul64(Value a, Value b) {
  if (a.is_const() && b.is_const()) return {Value::Kind::kConst, Type::kI64, a.bits * b.bits};
  return emit1(Op::kMulI64, {a, b});
}

Value Builder::address(Value base, Value index, int element_bytes) {
  const Value scale{Value::Kind::kConst, Type::kI64, static_cast<uint64_t>(element_bytes)};
  return add64(base, element_bytes == 1 ? zext(index) : mul64(zext(index), scale));
}

Value Builder::select(Value predicate, Value a, Value b) {
  return emit1(a.type == Type::kF32 ? Op::kSelectF32 : Op::kSelectI32, {predicate, a, b});
}

Var Builder::var(Value init) {
  const Value reg = new_register(init.type, Value::Kind::kVariable);
  append({Op::kVar, {reg}, {init}, {}, {}, {}});
  return {reg};
}

Value Builder::get(Var variable) {
  const Value result = new_register(variable.reg.type);
  append({Op::kGet, {result}, {variable.reg}, {}, {}, {}});
  return result;
}

void Builder::set(Var variable, Value value) {
  if (variable.reg.type != value.type) fail(ErrorKind::kInternal, "set: types differ");
  append({Op::kSet, {}, {variable.reg, value}, {}, {}, {}});
}

void Builder::loop(Value begin, Value end, Value step, const std::function<void(Value)>& body) {
  const Value index = new_register(Type::kI32);
  Inst inst{Op::kFor, {index}, {begin, end, step}, {}, {}, {}};
  blocks_.push_back(&inst.body);
  body(index);
  blocks_.pop_back();
  append(std::move(inst));
}

void Builder::loop_while(Var condition, const std::function<void()>& body) {
  Inst inst{Op::kWhile, {}, {condition.reg}, {}, {}, {}};
  blocks_.push_back(&inst.body);
  body();
  blocks_.pop_back();
  append(std::move(inst));
}

void Builder::when(Value predicate, const std::function<void()>& body,
                   const std::function<void()>& otherwise) {
  append_if(Op::kIf, predicate, body, otherwise);
}

void Builder::when_uniform(Value predicate, const std::function<void()>& body,
                           const std::function<void()>& otherwise) {
  append_if(Op::kIfUniform, predicate, body, otherwise);
}

void Builder::append_if(Op op, Value predicate, const std::function<void()>& body,
                        const std::function<void()>& otherwise) {
  Inst inst{op, {}, {predicate}, {}, {}, {}};
  blocks_.push_back(&inst.body);
  body();
  blocks_.pop_back();
  if (otherwise) {
    blocks_.push_back(&inst.orelse);
    otherwise();
    blocks_.pop_back();
  }
  append(std::move(inst));
}

void Builder::wgmma(Op op, const std::vector<Var>& accumulators, const std::vector<Value>& a,
                    Value b, const WgmmaOptions& options) {
  Inst inst{op, {}, {}, {}, {}, {}};
  for (const Var& variable : accumulators) inst.operands.push_back(variable.reg);
  inst.operands.insert(inst.operands.end(), a.begin(), a.end());
  inst.operands.push_back(b);
  inst.operands.push_back(constant(options.accumulate));
  inst.operands.push_back(constant(options.fenced));
  append(std::move(inst));
}

void Builder::tie(const std::vector<Var>& variables) {
  Inst inst{Op::kTie, {}, {}, {}, {}, {}};
  for (const Var& variable : variables) inst.operands.push_back(variable.reg);
  append(std::move(inst));
}

void Builder::wgmma_wait(int in_flight, const std::vector<Var>& written) {
  Inst inst{Op::kWgmmaWait, {}, {constant(in_flight)}, {}, {}, {}};
  for (const Var& variable : written) inst.operands.push_back(variable.reg);
  append(std::move(inst));
}

// What was reserved is the first team's; the others' follows.
void Builder::reserve_for_teams() {
  constexpr int kAlign = 128;
  const int stride = (function_.smem_bytes() + kAlign - 1) / kAlign * kAlign;
  function_.smem.push_back({"other_teams", stride, (teams_.num_teams - 1) * stride});
  function_.body[team_smem_at_].operands[1] = constant(stride);
}

Function Builder::finish(int sm) {
  if (teams_.num_teams > 1) reserve_for_teams();
  verify(function_, sm);
  return std::move(function_);
}

}  // namespace sagejit::ir
