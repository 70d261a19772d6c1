// What the kernels that prepare are written with, executed: teams of threads, predicated loads,
// extremes of pairs.
#include <array>
#include <numeric>

#include "compiler/ir/builder.h"
#include "tests/unit/kernels/run_ir.h"

namespace sagejit {
namespace {

using ir::Builder;
using ir::constant;
using ir::Op;
using ir::Value;
using ir::Var;

constexpr int kTeamThreads = 64, kTeams = 3;

// Team t adds up, in t + 1 rounds, what its neighbours in the team have put into shared memory.
// out: four words a thread of the block: its number in the team, lane, warp, and the sum.
ir::Function sums_of_neighbours() {
  Builder b("k", Builder::Teams{kTeamThreads, kTeams});
  const Value out = b.param("out", ir::Type::kI64);
  b.smem("unused", 4);
  const Value shared = b.smem("shared", kTeamThreads * 4);
  const Value thread = b.emit1(Op::kTidAgain, {});  // of the block
  const Value rounds = b.add(b.div(thread, constant(kTeamThreads)), constant(1));
  const Var sum = b.var(constant(0));
  const auto place = [&](Value number) { return b.add(shared, b.shl(number, 2)); };
  b.loop(constant(0), rounds, constant(1), [&](Value round) {
    b.emit(Op::kStSharedI32,
           {place(b.tid()), constant(0), b.add(thread, b.mul(round, constant(1000)))});
    b.barrier();
    const Value next = b.rem(b.add(b.tid(), constant(1)), constant(kTeamThreads));
    const Value found = b.emit1(Op::kLdSharedI32, {place(next), constant(0)});
    b.set(sum, b.add(b.get(sum), found));
    b.barrier();
  });
  b.emit(Op::kStGlobalV4,
         {b.address(out, thread, 16), constant(0), b.tid(), b.lane(), b.warp(), b.get(sum)});
  return b.finish(80);
}

}  // namespace

TEST_CASE("a team has numbers, a barrier and shared memory of its own") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const test::IrProgram program(sums_of_neighbours(), *nvrtc);
  std::vector<std::array<uint32_t, 4>> expected;
  for (uint32_t thread = 0; thread < kTeams * kTeamThreads; ++thread) {
    const uint32_t team = thread / kTeamThreads, tid = thread % kTeamThreads;
    const uint32_t neighbour = team * kTeamThreads + (tid + 1) % kTeamThreads;
    const uint32_t rounds = team + 1;
    const uint32_t sum = rounds * neighbour + 1000 * (rounds * (rounds - 1) / 2);
    expected.push_back({tid, tid % 32, tid / 32, sum});
  }
  for (const uint64_t seed : {0, 1, 2, 3}) {
    std::vector<std::array<uint32_t, 4>> found(expected.size());
    const test::MemoryRange memory[] = {test::range(found, "out")};
    const test::Report report = program.run(test::Params(found), memory, seed);
    CHECK(found == expected);
    CHECK(report.barriers == 2 * (1 + 2 + 3));
  }
}

TEST_CASE("a load under a condition reads nothing where it is 0") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  Builder b("k", 32);
  const Value data = b.param("data", ir::Type::kI64), out = b.param("out", ir::Type::kI64);
  // Only thread 0's address is one of `data`.
  const Value condition = b.select(b.equal(b.tid(), constant(0)), constant(1), constant(0));
  std::vector<Value> operands = {b.address(out, b.tid(), 16), constant(0)};
  for (const Value word : b.emit(Op::kLdGlobalV4If, {b.address(data, b.tid(), 1 << 20),
                                                     constant(16), condition, constant(7)})) {
    operands.push_back(word);
  }
  b.emit(Op::kStGlobalV4, operands);
  const test::IrProgram program(b.finish(80), *nvrtc);
  std::vector<uint32_t> words = {1, 2, 3, 4, 5, 6, 7, 8}, found(32 * 4, 9), expected(32 * 4, 7);
  std::iota(expected.begin(), expected.begin() + 4, 5);
  const test::MemoryRange memory[] = {test::range(words, "data", false), test::range(found, "out")};
  program.run(test::Params(words, found), memory);
  CHECK(found == expected);
}

TEST_CASE("extremes of pairs pass NaNs over, half by half") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  Builder b("k", 32);
  const Value out = b.param("out", ir::Type::kI64);
  const auto pair = [](uint32_t bits) { return constant(static_cast<int32_t>(bits)); };
  // Upper half: -2 and 1; lower: NaN and -infinity.
  const Value f16[] = {pair(0xc0007e00), pair(0x3c00fc00)};
  const Value bf16[] = {pair(0xc0007fc0), pair(0x3f80ff80)};
  b.emit(Op::kStGlobalV4,
         {out, constant(0), b.emit1(Op::kMaxF16x2, {f16[0], f16[1]}),
          b.emit1(Op::kMinF16x2, {f16[0], f16[1]}), b.emit1(Op::kMaxBF16x2, {bf16[0], bf16[1]}),
          b.emit1(Op::kMinBF16x2, {bf16[0], bf16[1]})});
  const test::IrProgram program(b.finish(80), *nvrtc);
  std::vector<uint32_t> found(4);
  const test::MemoryRange memory[] = {test::range(found, "out")};
  program.run(test::Params(found), memory);
  CHECK(found == std::vector<uint32_t>{0x3c00fc00, 0xc000fc00, 0x3f80ff80, 0xc000ff80});
}

}  // namespace sagejit
