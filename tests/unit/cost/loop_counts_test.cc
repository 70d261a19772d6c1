#include "compiler/cost/loop_counts.h"

#include <map>

#include "compiler/ir/builder.h"
#include "tests/support/catch.h"

namespace sagejit::cost {
namespace {

using ir::Builder;
using ir::constant;
using ir::Op;
using ir::Value;
using ir::Var;

std::map<std::string, int> by_name(const std::vector<OpCount>& ops) {
  std::map<std::string, int> result;
  for (const OpCount& op : ops) result[name_of(op)] = op.count;
  return result;
}

// A loop with a product, so that it counts, and what `body` adds.
LoopCount count_of(const std::function<void(Builder&, Value index, Value outside)>& body) {
  Builder b("kernel", 32);
  const Value outside = b.param("n", ir::Type::kI32);
  const Value zero = constant(0);
  b.comment("the loop");
  b.loop(constant(0), outside, constant(1), [&](Value index) {
    b.emit(Op::kMmaS8, {index, zero, zero, zero, zero, zero, zero, zero, zero, zero});
    body(b, index, outside);
  });
  const std::vector<LoopCount> loops = count_loops(b.finish(80));
  REQUIRE(loops.size() == 1);
  CHECK(loops[0].label == "the loop");
  CHECK(loops[0].has_products());
  return loops[0];
}

TEST_CASE("a product is counted with its shape") {
  const auto ops = by_name(count_of([](Builder&, Value, Value) {}).ops);
  CHECK(ops == std::map<std::string, int>{{"mma.s8 m16n8k32", 1}});
}

TEST_CASE("what does not change in a loop is not counted, what is equal is counted once") {
  const LoopCount loop = count_of([](Builder& b, Value index, Value outside) {
    b.add(b.mul(outside, outside), constant(3));  // before the loop
    b.emit(Op::kStSharedI32, {outside, constant(0), b.add(index, outside)});
    b.emit(Op::kStSharedI32, {outside, constant(4), b.add(index, outside)});  // the same sum
  });
  CHECK(by_name(loop.ops) ==
        std::map<std::string, int>{{"add.i32", 1}, {"mma.s8 m16n8k32", 1}, {"st.shared.b32", 2}});
}

TEST_CASE("a variable is what was set last, and changes if the loop sets it") {
  const LoopCount loop = count_of([](Builder& b, Value index, Value outside) {
    const Var x = b.var(index);
    b.mul(b.get(x), outside);
    b.mul(b.get(x), outside);  // known
    b.set(x, b.add(b.get(x), constant(1)));
    b.mul(b.get(x), outside);  // of another value
    b.set(x, constant(7));     // a register is loaded
    b.mul(b.get(x), outside);  // does not change in the loop
  });
  CHECK(by_name(loop.ops) ==
        std::map<std::string, int>{
            {"add.i32", 1}, {"mma.s8 m16n8k32", 1}, {"mul.i32", 2}, {"set", 1}});
}

TEST_CASE("a loop-carried variable varies") {
  Builder b("kernel", 32);
  const Value zero = constant(0);
  const Var sum = b.var(zero), fixed = b.var(zero);
  b.loop(zero, b.param("n", ir::Type::kI32), constant(1), [&](Value index) {
    b.emit(Op::kMmaS8, {index, zero, zero, zero, zero, zero, zero, zero, zero, zero});
    b.add(b.get(fixed), b.get(fixed));
    b.set(sum, b.add(b.get(sum), constant(5)));
  });
  CHECK(by_name(count_loops(b.finish(80)).at(0).ops)["add.i32"] == 1);
}

TEST_CASE("what stands behind a vote is rare, what stands behind a predicate is not") {
  const LoopCount loop = count_of([](Builder& b, Value index, Value outside) {
    const Value less = b.less(index, outside);
    const Var x = b.var(index);
    b.when(less, [&] { b.set(x, b.mul(index, index)); });
    b.when(b.emit1(Op::kAnySync, {less}), [&] {
      b.set(x, b.add(b.get(x), index));
      b.when(less, [&] { b.set(x, b.sub(b.get(x), index)); });
    });
    b.bit_xor(b.get(x), index);
  });
  CHECK(
      by_name(loop.ops) ==
      std::map<std::string, int>{
          {"lt.s32", 1}, {"mma.s8 m16n8k32", 1}, {"mul.i32", 1}, {"vote.any", 1}, {"xor.i32", 1}});
  CHECK(by_name(loop.rare) == std::map<std::string, int>{{"add.i32", 1}, {"sub.i32", 1}});
}

TEST_CASE("the main loop is the one that executes least") {
  Builder b("kernel", 32);
  const Value zero = constant(0), n = b.param("n", ir::Type::kI32);
  const auto loop = [&](const char* label, bool masked) {
    b.comment(label);
    b.loop(zero, n, constant(1), [&](Value index) {
      b.emit(Op::kMmaS8, {index, zero, zero, zero, zero, zero, zero, zero, zero, zero});
      if (masked) b.mul(index, n);
    });
  };
  loop("masked", true);
  loop("plain", false);
  b.loop(zero, n, constant(1), [&](Value index) { b.mul(index, n); });  // no products
  const std::vector<LoopCount> loops = count_loops(b.finish(80));
  REQUIRE(loops.size() == 2);
  CHECK(main_loop(loops)->label == "plain");
  CHECK(main_loop({}) == nullptr);
}

}  // namespace
}  // namespace sagejit::cost
