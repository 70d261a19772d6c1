// A warp-specialised kernel compiled by nvcc -ptx -O3 -gencode=arch=compute_90a,code=compute_90a
// (source in data/), right in every order of events, and caught with any one thing broken.
#include <cmath>
#include <random>

#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

// Operands of gemm_warpgroups: int8 matrices, tiled for bulk copies.
struct TiledGemm {
  uint32_t m = 256, n = 128, k = 448;  // more k steps than stages, an uneven number of rounds
  std::vector<int8_t> a, b;
  std::vector<int32_t> c, expected;

  static std::vector<int8_t> tile(const std::vector<int8_t>& plain, uint32_t rows, uint32_t k) {
    std::vector<int8_t> out;
    for (uint32_t block = 0; block < rows; block += 128) {
      for (uint32_t chunk = 0; chunk < k; chunk += 16) {
        for (uint32_t r = block; r < block + 128; ++r) {
          const int8_t* from = plain.data() + r * k + chunk;
          out.insert(out.end(), from, from + 16);
        }
      }
    }
    return out;
  }

  TiledGemm() : c(m * n, -1), expected(m * n, 0) {
    std::mt19937 random(11);
    std::vector<int8_t> plain_a(m * k), plain_b(n * k);
    for (auto* v : {&plain_a, &plain_b}) {
      for (int8_t& x : *v) x = static_cast<int8_t>(random());
    }
    for (uint32_t i = 0; i < m; ++i) {
      for (uint32_t j = 0; j < n; ++j) {
        for (uint32_t x = 0; x < k; ++x)
          expected[i * n + j] += plain_a[i * k + x] * plain_b[j * k + x];
      }
    }
    a = tile(plain_a, m, k);
    b = tile(plain_b, n, k);
  }

  Report run_with(const std::string& ptx, const Options& options) {
    const Program program = Program::parse(ptx);
    const MemoryRange memory[] = {range(a, "a", false), range(b, "b", false), range(c, "c")};
    const Params params(a, b, c, n, k);
    LaunchConfig config;
    config.kernel = "gemm_warpgroups";
    config.grid[0] = n / 128;
    config.grid[1] = m / 128;
    config.block[0] = 384;
    config.dynamic_shared_bytes = 65536;
    config.params = params.bytes();
    config.memory = memory;
    config.options = options;
    return run(program, config);
  }
};

// Operands of attention_warpgroups. The queries' and keys' int8 values are small, so that a row's
// probabilities spread over many keys.
struct TiledAttention {
  static constexpr uint32_t kRows = 192, kDim = 128;
  uint32_t n;
  float scale = 0.002f;
  std::vector<int8_t> q, k;
  std::vector<uint8_t> v;
  std::vector<float> o, expected;

  explicit TiledAttention(uint32_t keys) : n(keys), o(kRows * kDim, -1), expected(kRows * kDim) {
    std::mt19937 random(17);
    std::vector<int8_t> plain_q(kRows * kDim), plain_k(n * kDim);
    for (auto* x : {&plain_q, &plain_k}) {
      for (int8_t& e : *x) e = static_cast<int8_t>(random() % 61 - 30);
    }
    std::vector<uint8_t> code(n * kDim);  // e4m3 of +-[0.5, 4)
    for (uint8_t& c : code) c = static_cast<uint8_t>((random() & 0x80) | (0x30 + random() % 24));
    q = chunks(plain_q, kRows, kRows);
    k = chunks(plain_k, n, 128);
    place_values(code);
    reference(plain_q, plain_k, code);
  }

  // [tile of rows][chunk of 16][row][16].
  static std::vector<int8_t> chunks(const std::vector<int8_t>& plain, uint32_t rows,
                                    uint32_t tile) {
    std::vector<int8_t> out;
    for (uint32_t block = 0; block < rows; block += tile) {
      for (uint32_t c = 0; c < kDim; c += 16) {
        for (uint32_t r = block; r < block + tile; ++r) {
          const int8_t* from = plain.data() + r * kDim + c;
          out.insert(out.end(), from, from + 16);
        }
      }
    }
    return out;
  }

  // Position 4 t + j + 16 h of 32 holds key 8 (2 h + j / 2) + 2 t + j % 2, as the accumulators lie.
  void place_values(const std::vector<uint8_t>& code) {
    v.resize(n * kDim);
    for (uint32_t key = 0; key < n; ++key) {
      const uint32_t in = key % 32, i = in / 8, t = in % 8 / 2;
      const uint32_t position = key % 128 / 32 * 32 + 4 * t + i % 2 * 2 + in % 2 + 16 * (i / 2);
      for (uint32_t d = 0; d < kDim; ++d) {
        v[key / 128 * 128 * kDim + position / 16 * kDim * 16 + d * 16 + position % 16] =
            code[key * kDim + d];
      }
    }
  }

  void reference(const std::vector<int8_t>& pq, const std::vector<int8_t>& pk,
                 const std::vector<uint8_t>& code) {
    for (uint32_t r = 0; r < kRows; ++r) {
      std::vector<double> p(n);
      double sum = 0;
      for (uint32_t j = 0; j < n; ++j) {
        int dot = 0;
        for (uint32_t d = 0; d < kDim; ++d) dot += pq[r * kDim + d] * pk[j * kDim + d];
        p[j] = std::exp2(static_cast<double>(dot) * scale);
        sum += p[j];
      }
      for (uint32_t d = 0; d < kDim; ++d) {
        double x = 0;
        for (uint32_t j = 0; j < n; ++j) {
          const uint8_t c = code[j * kDim + d];
          const double value = std::ldexp(1 + (c & 7) / 8.0, (c >> 3 & 15) - 7);
          x += p[j] * ((c & 0x80) != 0 ? -value : value);
        }
        expected[r * kDim + d] = static_cast<float>(x / sum);
      }
    }
  }

  Report run_with(const std::string& ptx, const Options& options) {
    const Program program = Program::parse(ptx);
    const MemoryRange memory[] = {range(q, "q", false), range(k, "k", false), range(v, "v", false),
                                  range(o, "o")};
    const Params params(q, k, v, o, n, scale);
    LaunchConfig config;
    config.kernel = "attention_warpgroups";
    config.block[0] = 512;
    config.dynamic_shared_bytes = kRows * kDim + 4 * 128 * kDim;
    config.params = params.bytes();
    config.memory = memory;
    config.options = options;
    return run(program, config);
  }

  // sum |o - expected| / sum |expected|.
  double error() const {
    double difference = 0, total = 0;
    for (size_t i = 0; i < o.size(); ++i) {
      difference += std::abs(o[i] - expected[i]);
      total += std::abs(expected[i]);
    }
    return difference / total;
  }
};

// All of `text` behind the first `behind`, with `from` replaced by `to`.
std::string broken(std::string text, const std::string& from, const std::string& to,
                   const std::string& behind = "") {
  size_t at = text.find(from, behind.empty() ? 0 : text.find(behind));
  REQUIRE(at != std::string::npos);
  for (; at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

}  // namespace

TEST_CASE("warp-specialised GEMM with bulk copies, an mbarrier ring and wgmma") {
  const std::string ptx = read_data("gemm_warpgroups.ptx");
  for (AsyncOrder order : {AsyncOrder::kLate, AsyncOrder::kEarly, AsyncOrder::kRandom}) {
    for (uint64_t seed : {0, 1, 2}) {
      TiledGemm gemm;
      Options options;
      options.async = order;
      options.seed = seed;
      const Report report = gemm.run_with(ptx, options);
      CHECK(gemm.c == gemm.expected);
      // 2 blocks x 2 warpgroups x 7 steps x 2.
      CHECK(report.wgmma == 2 * 2 * 7 * 2);
      // 7 steps of 2 tiles, and 128 rows of stores.
      CHECK(report.bulk_copies == 2 * (7 * 2 + 128));
    }
  }
}

TEST_CASE("attention with two products in flight") {
  const std::string ptx = read_data("attention_warpgroups.ptx");
  const TiledAttention made(512);
  for (AsyncOrder order : {AsyncOrder::kLate, AsyncOrder::kEarly, AsyncOrder::kRandom}) {
    for (uint64_t seed : {0, 1}) {
      TiledAttention attention = made;
      Options options;
      options.async = order;
      options.seed = seed;
      const Report report = attention.run_with(ptx, options);
      CHECK(attention.error() < 0.05);  // of e4m3 probabilities
      CHECK(report.wgmma == 3 * 4 * (4 + 4));
    }
  }
  // Without the wait for the product with V, its accumulators are scaled in flight.
  TiledAttention attention = made;
  const std::string text =
      broken(ptx, "wgmma.wait_group.sync.aligned 0;", "", "wgmma.wait_group.sync.aligned 1;");
  try {
    attention.run_with(text, {});
    FAIL("no error");
  } catch (const Error& e) {
    INFO(e.what());
    CHECK(e.kind() == ErrorKind::kMissingWait);
    CHECK(std::string(e.what()).find("is an accumulator of a wgmma in flight") !=
          std::string::npos);
  }
}

TEST_CASE("the same GEMM with one thing broken") {
  struct Break {
    std::string from, to, behind;
    std::vector<ErrorKind> kinds;
    std::string says;
  };
  using enum ErrorKind;
  const std::string producer = "setmaxnreg.dec";
  const Break breaks[] = {
      {"fence.mbarrier_init.release.cluster;", "", "", {kMissingFence}, "behind its mbarrier.init"},
      {"wgmma.fence.sync.aligned;", "", "", {kMissingFence}, "wgmma.fence"},
      {"fence.proxy.async.shared::cta;", "", "", {kMissingFence}, "without a fence.proxy.async"},
      {"wgmma.wait_group.sync.aligned 0;",
       "wgmma.wait_group.sync.aligned 1;",
       "",
       {kMissingWait, kRace},
       "wgmma"},
      {"cp.async.bulk.wait_group.read 0;", "", "", {kMissingWait}, "this bulk store"},
      // Consumers that do not wait for their tiles, a producer that does not wait for its readers.
      {"@!p bra WAIT;", "", "", {kMissingWait, kUninitializedRead, kRace, kBarrierMisuse}, ""},
      {"@!p bra WAIT;", "", producer, {kRace, kMissingWait, kBarrierMisuse}, ""},
      // Nobody frees a stage; fewer and more bytes than come.
      {"mbarrier.arrive.shared::cta.b64 _", "//", "", {kDeadlock}, "2 of 2 arrivals"},
      {", 16384;", ", 8192;", producer, {kMissingWait, kBarrierMisuse, kUninitializedRead}, ""},
      {", 16384;", ", 16400;", producer, {kDeadlock}, "16 transaction bytes"},
      {"bar.sync 1, 256;", "", "", {kRace, kMissingFence, kMissingWait}, "byte"},
      {"bar.sync \t%r3117, 128;", "", "", {kRace, kMissingFence}, "byte"},
      {"bar.sync %r3117, 128;", "", "", {kRace, kMissingFence, kUninitializedRead}, "byte"},
      {"aligned.u32 240;", "aligned.u32 248;", "", {kDeadlock}, "for registers"},
  };
  const std::string ptx = read_data("gemm_warpgroups.ptx");
  const TiledGemm made;
  for (const Break& b : breaks) {
    if (ptx.find(b.from) == std::string::npos) continue;
    const std::string text = broken(ptx, b.from, b.to, b.behind);
    for (AsyncOrder order : {AsyncOrder::kLate, AsyncOrder::kEarly, AsyncOrder::kRandom}) {
      for (uint64_t seed : {0, 1}) {
        INFO(b.from << " -> " << b.to << ", order " << static_cast<int>(order) << ", seed "
                    << seed);
        TiledGemm gemm = made;
        Options options;
        options.async = order;
        options.seed = seed;
        try {
          gemm.run_with(text, options);
          CHECK(false);  // no error
        } catch (const Error& e) {
          INFO(e.what());
          CHECK(std::count(b.kinds.begin(), b.kinds.end(), e.kind()) == 1);
          CHECK(std::string(e.what()).find(b.says) != std::string::npos);
        }
      }
    }
  }
}
