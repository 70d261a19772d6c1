#include "compiler/kernels/divisor.h"

#include <cstdint>

#include "compiler/plan/forward_plan.h"
#include "tests/unit/kernels/run_ir.h"

namespace sagejit {
namespace {

using ir::Builder;
using ir::constant;
using ir::Op;
using ir::Value;

struct Division {
  uint32_t x, quotient, remainder, unused = 0;
};

// A thread for each x of `results`, whose quotients and remainders it writes.
ir::Function divide_all() {
  Builder b("divide_all", 32);
  const Value results = b.param("results", ir::Type::kI64);
  const Value divisor = b.param("divisor", ir::Type::kI32);
  const Value reciprocal = b.param("reciprocal", ir::Type::kI32);
  const Value mine = b.address(results, b.tid(), sizeof(Division));
  const Value x = b.emit(Op::kLdGlobalV4, {mine, constant(0)})[0];
  const auto [quotient, remainder] = Divisor(b, divisor, reciprocal).divide(x);
  b.emit(Op::kStGlobalV4, {mine, constant(0), x, quotient, remainder, constant(0)});
  return b.finish(80);
}

}  // namespace

TEST_CASE("quotients by a reciprocal are those of a division") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const test::IrProgram program(divide_all(), *nvrtc);
  for (const uint32_t divisor :
       {1u, 2u, 3u, 7u, 24u, 640u, 65535u, 65536u, 715827883u, (1u << 30) - 1}) {
    std::vector<Division> found;
    for (uint32_t i = 0; i < 8; ++i) {  // about multiples of the divisor, and the ends
      const uint32_t multiple = divisor * (((1u << 30) - 1) / divisor * i / 7);
      for (const int32_t distance : {-1, 0, 1, 2}) {
        const int64_t x = int64_t{multiple} + distance;
        found.push_back({static_cast<uint32_t>(std::clamp<int64_t>(x, 0, (1 << 30) - 1)), 0, 0});
      }
    }
    REQUIRE(found.size() == 32);
    const test::MemoryRange memory[] = {test::range(found, "results")};
    program.run(
        test::Params(found, static_cast<int>(divisor), kReciprocalOf / static_cast<int>(divisor)),
        memory);
    for (const Division& one : found) {
      CAPTURE(divisor, one.x);
      CHECK(one.quotient == one.x / divisor);
      CHECK(one.remainder == one.x % divisor);
    }
  }
}

}  // namespace sagejit
