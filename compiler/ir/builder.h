// Builder: writes a kernel-IR function, one operation per call, folding integer constants on the
// way.
//
// C++ control flow runs in the generator; `loop`, `loop_while`, `when` and `when_uniform` run on
// the GPU. Operations are methods named after ops.def; tile verbs (tile.h) are built on them. A
// defect in a generator (wrong type, use of a foreign value) throws Error{kInternal}.
#pragma once

#include <array>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "compiler/ir/ir.h"

namespace sagejit::ir {

constexpr Value constant(int32_t value) {
  return {Value::Kind::kConst, Type::kI32, static_cast<uint32_t>(value)};
}
Value constant_f32(float value);

// A mutable register. Reading it copies its present value.
struct Var {
  Value reg;
};

class Builder {
 public:
  // A block of `num_teams` teams, each of `team_threads`, whole warps, with a barrier and shared
  // memory of its own: what a block would be elsewhere.
  struct Teams {
    int team_threads;
    int num_teams;
  };
  Builder(std::string name, const Teams& teams, int min_blocks_per_sm = 1);
  Builder(std::string name, int block_threads, int min_blocks_per_sm = 1)
      : Builder(std::move(name), Teams{block_threads, 1}, min_blocks_per_sm) {}

  // Declares the next kernel parameter and returns its value. Addresses are kI64.
  Value param(const std::string& name, Type type);
  // Reserves shared memory, for each team its own, and returns its address; objects follow one
  // another, each start aligned.
  Value smem(const std::string& name, int bytes, int align = 16);
  void comment(std::string text);

  // Appends `op`; results come in the order of its row.
  std::vector<Value> emit(Op op, std::initializer_list<Value> operands);
  std::vector<Value> emit(Op op, const std::vector<Value>& operands);
  Value emit1(Op op, std::initializer_list<Value> operands) { return emit(op, operands)[0]; }

  // --- integers; constants fold
  Value add(Value a, Value b);
  Value sub(Value a, Value b);
  Value mul(Value a, Value b);
  Value div(Value a, Value b);  // unsigned
  Value rem(Value a, Value b);  // unsigned
  Value bit_and(Value a, Value b);
  Value bit_or(Value a, Value b);
  Value bit_xor(Value a, Value b);
  Value shl(Value a, int bits);
  Value shr(Value a, int bits);  // logical
  Value min(Value a, Value b);   // signed
  Value max(Value a, Value b);
  Value zext(Value a);  // i32 -> i64, unsigned
  Value sext(Value a);
  Value add64(Value a, Value b);
  Value mul64(Value a, Value b);
  // a + b * scale, all i64 but `b`, which is i32 and unsigned: an address of element b.
  Value address(Value base, Value index, int element_bytes);

  // --- predicates
  Value less(Value a, Value b) { return emit1(Op::kLtS32, {a, b}); }
  Value less_equal(Value a, Value b) { return emit1(Op::kLeS32, {a, b}); }
  Value greater(Value a, Value b) { return emit1(Op::kGtS32, {a, b}); }
  Value equal(Value a, Value b) { return emit1(Op::kEqI32, {a, b}); }
  Value not_equal(Value a, Value b) { return emit1(Op::kNeI32, {a, b}); }
  Value both(Value a, Value b) { return emit1(Op::kAndPred, {a, b}); }
  Value either(Value a, Value b) { return emit1(Op::kOrPred, {a, b}); }
  Value select(Value predicate, Value a, Value b);

  // --- f32
  Value fadd(Value a, Value b) { return emit1(Op::kAddF32, {a, b}); }
  Value fsub(Value a, Value b) { return emit1(Op::kSubF32, {a, b}); }
  Value fmul(Value a, Value b) { return emit1(Op::kMulF32, {a, b}); }
  Value fdiv(Value a, Value b) { return emit1(Op::kDivF32, {a, b}); }
  Value fma(Value a, Value b, Value c) { return emit1(Op::kFmaF32, {a, b, c}); }
  Value fmax(Value a, Value b) { return emit1(Op::kMaxF32, {a, b}); }
  Value fneg(Value a) { return emit1(Op::kNegF32, {a}); }
  Value ex2(Value a) { return emit1(Op::kEx2Approx, {a}); }

  // --- variables
  Var var(Value init);
  Value get(Var variable);
  void set(Var variable, Value value);

  // --- control flow on the GPU
  void loop(Value begin, Value end, Value step, const std::function<void(Value)>& body);
  void loop_while(Var condition, const std::function<void()>& body);  // i32: until it is 0
  void when(Value predicate, const std::function<void()>& body,
            const std::function<void()>& otherwise = {});
  // `predicate` must be the same in all threads of the team, which nothing checks: barriers may
  // stand inside.
  void when_uniform(Value predicate, const std::function<void()>& body,
                    const std::function<void()>& otherwise = {});

  // --- products of a warpgroup (wgmma.def): `accumulators` in place; a: one descriptor or four
  // registers
  struct WgmmaOptions {
    bool fenced = false;     // other instructions wrote the registers since the last product
    bool accumulate = true;  // else the accumulators start from zero
  };
  void wgmma(Op op, const std::vector<Var>& accumulators, const std::vector<Value>& a, Value b,
             const WgmmaOptions& options);
  // What the variables hold is computed before anything that follows.
  void tie(const std::vector<Var>& variables);
  // Until at most `in_flight` committed groups run; `written` are the finished ones' accumulators.
  void wgmma_wait(int in_flight, const std::vector<Var>& written);

  // --- threads; numbers within the team
  Value tid() const { return tid_; }
  Value lane() const { return lane_; }
  Value warp() const { return warp_; }
  void barrier();  // of the team

  int team_threads() const { return teams_.team_threads; }
  // Closes the function and verifies it for `sm`.
  Function finish(int sm);

 private:
  void reserve_for_teams();
  Value fold_or_emit(Op op, Value a, Value b);
  Value new_register(Type type, Value::Kind kind = Value::Kind::kRegister);
  void append_if(Op op, Value predicate, const std::function<void()>& body,
                 const std::function<void()>& otherwise);
  void append(Inst inst) { blocks_.back()->push_back(std::move(inst)); }

  Function function_;
  Teams teams_;
  std::vector<Block*> blocks_;  // innermost last
  Value tid_, lane_, warp_;
  Value team_, team_smem_;   // the number; from the first team's shared memory to this one's, bytes
  size_t team_smem_at_ = 0;  // the instruction in the body that says so
};

}  // namespace sagejit::ir
