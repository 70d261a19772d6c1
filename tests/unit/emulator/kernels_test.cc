// Kernels compiled beforehand by nvcc -ptx -O3 --fmad=false -arch=sm_80 (sources beside them in
// data/).
#include <random>

#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

struct Gemm {
  uint32_t m = 128, n = 192, k = 320;
  std::vector<int8_t> a, b;
  std::vector<int32_t> c, expected;

  Gemm() : a(m * k), b(n * k), c(m * n, -1), expected(m * n, 0) {
    std::mt19937 random(7);
    for (auto* v : {&a, &b}) {
      for (int8_t& x : *v) x = static_cast<int8_t>(random());
    }
    for (uint32_t i = 0; i < m; ++i) {
      for (uint32_t j = 0; j < n; ++j) {
        for (uint32_t x = 0; x < k; ++x) expected[i * n + j] += a[i * k + x] * b[j * k + x];
      }
    }
  }

  Report run_with(const Options& options) {
    const Program program = Program::parse(read_data("gemm_int8.ptx"));
    const MemoryRange memory[] = {range(a, "a", false), range(b, "b", false), range(c, "c")};
    const Params params(a, b, c, n, k);
    LaunchConfig config;
    config.kernel = "gemm_int8";
    config.grid[0] = n / 64;
    config.grid[1] = m / 64;
    config.block[0] = 128;
    config.dynamic_shared_bytes = 4 * 64 * 64;
    config.params = params.bytes();
    config.memory = memory;
    config.options = options;
    return run(program, config);
  }
};

}  // namespace

TEST_CASE("block reduction through shuffles and shared memory") {
  const uint32_t n = 5000, blocks = 3;
  std::vector<float> in(n);
  for (uint32_t i = 0; i < n; ++i) in[i] = static_cast<float>((i * 37) % 101);
  std::vector<float> sums(blocks, -1);
  std::vector<int32_t> maxima(blocks, -1);
  const MemoryRange memory[] = {range(in, "in", false), range(sums, "sums"),
                                range(maxima, "maxima")};
  const Report report =
      run_text(read_data("block_reduce.ptx"), {blocks, 256}, Params(in, sums, maxima, n), memory);
  float total = 0;
  for (float s : sums) total += s;
  float expected = 0;
  for (float x : in) expected += x;
  CHECK(total == expected);  // small integers: exact in any order
  CHECK(maxima == std::vector<int32_t>{100, 100, 100});
  CHECK(report.barriers == blocks);
}

TEST_CASE("int8 GEMM with cp.async double buffering, ldmatrix and mma") {
  for (AsyncOrder order : {AsyncOrder::kLate, AsyncOrder::kEarly, AsyncOrder::kRandom}) {
    Gemm gemm;
    Options options;
    options.async = order;
    options.seed = order == AsyncOrder::kRandom ? 5 : 0;
    const Report report = gemm.run_with(options);
    CHECK(gemm.c == gemm.expected);
    // 6 blocks x 4 warps x 5 steps x 2 k-halves x 8 tiles.
    CHECK(report.mma == 6 * 4 * 5 * 2 * 8);
    CHECK(report.shared_conflicts == 0);
  }
}

TEST_CASE("divergent loop with early return and switch") {
  const uint32_t n = 1000;
  std::vector<uint32_t> in(n), steps(n, 7), kinds(n, 7), want_steps(n, 7), want_kinds(n, 7);
  for (uint32_t i = 0; i < n; ++i) {
    in[i] = i + 1;
    uint32_t x = in[i], count = 0, kind = 0;
    for (; x != 1; ++count) {
      if (x % 2 == 0) {
        x /= 2;
      } else {
        kind += x % 3 == 0 ? 1 : 0;
        x = 3 * x + 1;
      }
    }
    uint32_t reversed = 0;
    for (int b = 0; b < 32; ++b) reversed |= (kind >> b & 1) << (31 - b);
    const uint32_t by_case[] = {kind + 100, kind * 3,      kind ^ 0x55, count,
                                kind - 7,   kind | 0x1000, ~kind,       reversed};
    want_steps[i] = count;
    want_kinds[i] = by_case[in[i] % 8];
  }
  const MemoryRange memory[] = {range(in, "in", false), range(steps, "steps"),
                                range(kinds, "kinds")};
  const Report report =
      run_text(read_data("collatz.ptx"), {8, 128}, Params(in, steps, kinds, n), memory);
  CHECK(steps == want_steps);
  CHECK(kinds == want_kinds);
  CHECK(report.divergent_steps > 0);
}
