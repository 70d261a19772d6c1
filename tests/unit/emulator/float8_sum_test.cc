// Sums of products of 8-bit floats as the tensor cores of an H100 make them, bit for bit.
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

constexpr size_t kK = 32;
constexpr size_t kDots = 8;  // per block: number i is row i times column i

struct Dot {
  std::array<uint8_t, kK> a = {}, b = {};
  uint32_t c = 0;
};

struct Form {
  std::string types = "e4m3.e4m3";
  bool scale_d = true;
  int scale_a = 1;
};

std::string kernel(const Form& form) {
  std::string text = kernel_text(
      "u64 a, u64 b, u64 c, u64 d",
      "ld.param.u64 %rd0, [a]; ld.param.u64 %rd1, [b]; ld.param.u64 %rd2, [c];\n"
      "ld.param.u64 %rd3, [d]; mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, s;\n"
      "mad.lo.u32 %r3, %r1, 128, %r0; mul.wide.u32 %rd4, %r3, 16; add.u64 %rd0, %rd0, %rd4;\n"
      "ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd0];\n"
      "add.u64 %rd2, %rd2, %rd4; ld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%rd2];\n"
      "add.u64 %rd3, %rd3, %rd4;\n"
      "mad.lo.u32 %r3, %r1, 64, %r0; mul.wide.u32 %rd4, %r3, 4; add.u64 %rd1, %rd1, %rd4;\n"
      "setp.ge.u32 %p0, %r0, 64; @%p0 bra COPIED;\n"
      "ld.global.u32 %r4, [%rd1]; shl.b32 %r5, %r0, 2; add.u32 %r5, %r5, %r2;\n"
      "st.shared.u32 [%r5], %r4;\nCOPIED:\nfence.proxy.async.shared::cta;\nbar.sync 0;\n"
      "shr.u32 %r6, %r2, 4; cvt.u64.u32 %rd5, %r6;\n"
      // The halves along K 128 bytes apart.
      "or.b64 %rd5, %rd5, " +
          std::to_string(uint64_t{128 / 16} << 16 | uint64_t{256 / 16} << 32) +
          ";\nsetp.ne.b32 %p1, " + (form.scale_d ? "1" : "0") +
          ", 0;\nwgmma.fence.sync.aligned;\nwgmma.mma_async.sync.aligned.m64n8k32.f32." +
          form.types + " {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r13}, %rd5, %p1, " +
          std::to_string(form.scale_a) +
          ", 1;\nwgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
          "st.global.v4.f32 [%rd3], {%f0, %f1, %f2, %f3};",
      ".extern .shared .align 1024 .b8 s[];");
  const std::string target = ".target sm_90\n";
  return text.replace(text.find(target), target.size(), ".target sm_90a\n");
}

// D of each.
std::vector<uint32_t> add_up(const std::vector<Dot>& dots, const Form& form = {}) {
  const size_t blocks = (dots.size() + kDots - 1) / kDots;
  std::vector<uint32_t> a(blocks * 128 * 4), b(blocks * 64), c(blocks * 128 * 4),
      d(blocks * 128 * 4);
  const auto place = [](size_t i) {
    return (i / kDots * 128 + i % kDots * 4 + i % kDots / 2) * 4 + i % kDots % 2;
  };
  for (size_t i = 0; i < dots.size(); ++i) {
    const size_t block = i / kDots, row = i % kDots;
    for (size_t word = 0; word < kK / 4; ++word) {
      const size_t half = word / 4, q = word % 4;
      std::memcpy(&a[(block * 128 + row * 4 + q) * 4 + 2 * half], &dots[i].a[4 * word], 4);
      std::memcpy(&b[block * 64 + half * 32 + row * 4 + q], &dots[i].b[4 * word], 4);
    }
    c[place(i)] = dots[i].c;
  }
  const MemoryRange memory[] = {range(a, "a", false), range(b, "b", false), range(c, "c", false),
                                range(d, "d")};
  run_text(kernel(form), {static_cast<uint32_t>(blocks), 128, 1024}, Params(a, b, c, d), memory);
  std::vector<uint32_t> out;
  for (size_t i = 0; i < dots.size(); ++i) out.push_back(d[place(i)]);
  return out;
}

// e4m3 of +-2^e, a normal one.
uint8_t power(int e, bool negative = false) {
  return static_cast<uint8_t>((negative ? 0x80 : 0) | (e + 7) << 3);
}
constexpr uint8_t kOne = 7 << 3, kNan = 0x7f;

uint32_t bits(double x) {
  return std::bit_cast<uint32_t>(static_cast<float>(x));
}
double value(uint32_t bits) {
  return std::bit_cast<float>(bits);
}

// C and `count` products of `a` and 1.
Dot dot(double c, uint8_t a, size_t count) {
  Dot dot;
  dot.c = bits(c);
  for (size_t i = 0; i < count; ++i) dot.a[i] = a, dot.b[i] = kOne;
  return dot;
}

double result(const Dot& dot, const Form& form = {}) {
  return value(add_up({dot}, form)[0]);
}

}  // namespace

TEST_CASE("wgmma of e4m3: what a large C leaves of the products") {
  for (int k = -4; k < 24; ++k) {
    CAPTURE(k);
    const double c = std::ldexp(1, k);
    for (const double sign : {1.0, -1.0}) {
      const uint8_t one = power(0, sign < 0);
      const double kept = k <= 13 ? sign : 0;
      CHECK(result(dot(c, one, 32)) == c + 32 * kept);
      CHECK(result(dot(-c, one, 32)) == -c + 32 * kept);
      CHECK(result(dot(c, one, 1)) == c + kept);
    }
  }
  constexpr double kKept[4][8] = {{1, 1, 1.25, 1.25, 1.5, 1.5, 1.75, 1.75},
                                  {1, 1, 1, 1, 1.5, 1.5, 1.5, 1.5},
                                  {1, 1, 1, 1, 1, 1, 1, 1},
                                  {}};
  for (int k = 0; k < 4; ++k) {
    for (uint8_t eighths = 0; eighths < 8; ++eighths) {
      CAPTURE(k, eighths);
      const double c = std::ldexp(1, 11 + k);
      const auto x = static_cast<uint8_t>(kOne | eighths);
      CHECK(result(dot(c, x, 1)) == c + kKept[k][eighths]);
      CHECK(result(dot(-c, x | 0x80, 1)) == -c - kKept[k][eighths]);
    }
  }
}

TEST_CASE("wgmma of e4m3: what a large product leaves of the others") {
  for (int k = 0; k <= 12; ++k) {
    CAPTURE(k);
    Dot dot;
    dot.a.fill(power(-k / 2));
    dot.b.fill(power(-(k - k / 2)));
    dot.a[7] = dot.b[7] = power(4);
    // 31 * 2^-k and 256 have no more than 14 bits together up to k = 5.
    CHECK(result(dot) == 256 + (k <= 5 ? std::ldexp(31, -k) : 0));
    CHECK(result(dot, {.scale_d = false}) == result(dot));
    CHECK(result(dot, {.scale_a = -1}) == -result(dot));
  }
}

TEST_CASE("wgmma of e4m3: C and the sum keep 13 bits behind the leading one") {
  for (int j = 1; j <= 23; ++j) {
    CAPTURE(j);
    const double tail = std::ldexp(1, -j);
    CHECK(result(dot(1 + tail, kOne, 0)) == (j <= 13 ? 1 + tail : 1));
    CHECK(result(dot(-1 - tail, kOne, 0)) == (j <= 13 ? -1 - tail : -1));
    CHECK(result(dot(1 + tail, kOne, 1)) == (j <= 12 ? 2 + tail : 2));
  }
}

// A significand below 4 and an exponent that is not moved: 1.875 * 1.875 reaches 2 and leaves a
// grid of 2^-13. A subnormal factor's exponent is -6 whatever its leading bit, a product of 0 has
// none.
TEST_CASE("wgmma of e4m3: exponents of products") {
  Dot large = dot(1 + 0x1p-13, kOne, 0);
  large.a[0] = kOne | 7, large.b[0] = kOne | 7;
  large.a[1] = kOne | 7, large.b[1] = kOne | 7 | 0x80;
  CHECK(result(large) == 1 + 0x1p-13);
  Dot small = dot(0x1.08p-15, kOne, 0);
  small.a[0] = 0x01, small.b[0] = kOne;  // 2^-9, and its grid 2^(-6 - 13)
  small.a[1] = 0x81, small.b[1] = kOne;
  CHECK(result(small) == 0x1p-15);
  small.a[0] = small.a[1] = 0;
  small.b[0] = small.b[1] = 0x7e;
  CHECK(result(small) == 0x1.08p-15);
}

TEST_CASE("wgmma of e4m3: a sample of what an H100 computes") {
  const auto hex = [](const std::string& text, size_t at, size_t digits) {
    return static_cast<uint32_t>(std::stoul(text.substr(at, digits), nullptr, 16));
  };
  constexpr size_t kSide = 3;
  std::vector<Dot> dots;
  std::vector<uint32_t> expected;
  std::stringstream lines(read_data("wgmma_float8.txt"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('#')) continue;
    std::string a, b, c, d;
    std::stringstream(line) >> a >> b >> c >> d;
    REQUIRE(a.size() == kSide * kK * 2);
    REQUIRE(b.size() == kSide * kK * 2);
    REQUIRE(c.size() == kSide * kSide * 8);
    REQUIRE(d.size() == kSide * kSide * 8);
    for (size_t i = 0; i < kSide * kSide; ++i) {
      Dot dot;
      for (size_t k = 0; k < kK; ++k) {
        dot.a[k] = static_cast<uint8_t>(hex(a, 2 * (i / kSide * kK + k), 2));
        dot.b[k] = static_cast<uint8_t>(hex(b, 2 * (i % kSide * kK + k), 2));
      }
      dot.c = hex(c, 8 * i, 8);
      dots.push_back(dot);
      expected.push_back(hex(d, 8 * i, 8));
    }
  }
  REQUIRE(dots.size() == 1296);
  CHECK(add_up(dots) == expected);
}

// As in IEEE arithmetic; not measured.
TEST_CASE("wgmma of 8-bit floats: infinities and NaNs") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr uint32_t kNanBits = 0x7fffffff;
  const auto one = [](const Dot& dot, const std::string& types = "e4m3.e4m3") {
    return add_up({dot}, {.types = types})[0];
  };
  CHECK(one(dot(1, kNan, 1)) == kNanBits);
  CHECK(one(dot(kInfinity, kOne, 3)) == bits(kInfinity));
  CHECK(one(dot(-kInfinity, kOne, 3)) == bits(-kInfinity));
  CHECK(one(dot(std::numeric_limits<double>::quiet_NaN(), kOne, 3)) == kNanBits);
  CHECK(result(dot(3.4e38, kOne, 32)) > 3.39e38);
  constexpr uint8_t kInfinity8 = 0x7c;  // of e5m2
  Dot wide = dot(1, kInfinity8, 1);
  CHECK(one(wide, "e5m2.e4m3") == bits(kInfinity));
  wide.a[1] = kInfinity8 | 0x80, wide.b[1] = kOne;
  CHECK(one(wide, "e5m2.e4m3") == kNanBits);
  wide.a[1] = 0, wide.b[0] = 0;
  CHECK(one(wide, "e5m2.e4m3") == kNanBits);
  // In the same row and column of a block nothing else changes.
  const auto mixed = add_up({dot(1, kNan, 1), dot(2, kOne, 1), dot(kInfinity, kOne, 1)});
  CHECK(mixed == std::vector<uint32_t>{kNanBits, bits(3), bits(kInfinity)});
}
