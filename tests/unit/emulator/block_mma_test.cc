// mma of e2m1 with scale factors, and the conversion to e2m1, against plain loops and a search over
// all codes.
//
// Where elements and scale factors lie is written out from the PTX ISA ("Matrix Fragments for
// mma.m16n8k64", "Block Scaling for mma.sync"), separately from the emulator's.
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"
#include "tests/unit/emulator/planted.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

constexpr char kTarget[] = "sm_120a";
constexpr unsigned kK = 64, kGroup = 16,
                   kWords = 12;  // of a lane: A, B, C, scale factors of A and of B

double e2m1(uint32_t code) {
  constexpr double kMagnitudes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  return (code & 8) != 0 ? -kMagnitudes[code & 7] : kMagnitudes[code & 7];
}
double ue4m3(uint32_t code) {
  const int e = static_cast<int>(code >> 3), m = static_cast<int>(code & 7);
  return e == 0 ? std::ldexp(m, -9) : std::ldexp(8 + m, e - 10);
}

struct Selectors {
  unsigned byte_a = 0, thread_a = 0, byte_b = 0, thread_b = 0;
};

std::string product_text(const Selectors& ids, const std::string& target = kTarget) {
  const auto pair = [](unsigned byte, unsigned thread) {
    return "{" + std::to_string(byte) + ", " + std::to_string(thread) + "}";
  };
  return kernel_text(
      "u64 in, u64 out",
      "ld.param.u64 %rd0, [in]; ld.param.u64 %rd1, [out]; mov.u32 %r39, %tid.x;\n"
      "mul.wide.u32 %rd2, %r39, 48; add.u64 %rd0, %rd0, %rd2;\n"
      "mul.wide.u32 %rd2, %r39, 16; add.u64 %rd1, %rd1, %rd2;\n"
      "ld.global.v4.b32 {%r0, %r1, %r2, %r3}, [%rd0]; ld.global.v2.b32 {%r4, %r5}, [%rd0+16];\n"
      "ld.global.v2.f32 {%f0, %f1}, [%rd0+24]; ld.global.v2.f32 {%f2, %f3}, [%rd0+32];\n"
      "ld.global.v2.b32 {%r6, %r7}, [%rd0+40];\n"
      "mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1."
      "f32.ue4m3 "
      "{%f3, %f2, %f1, %f0}, {%r0, %r1, %r2, %r3}, {%r4, %r5}, {%f0, %f1, %f2, %f3}, %r6, " +
          pair(ids.byte_a, ids.thread_a) + ", %r7, " + pair(ids.byte_b, ids.thread_b) +
          ";\nst.global.v4.f32 [%rd1], {%f3, %f2, %f1, %f0};",
      "", target);
}

std::vector<float> run_product(const std::vector<uint32_t>& in, const Selectors& ids) {
  std::vector<float> out(32 * 4);
  const MemoryRange memory[] = {range(in, "in", false), range(out, "out")};
  run_text(product_text(ids), {1, 32}, Params(in, out), memory);
  return out;
}

// What lies where: a[row][k] and b[k][column] with their factors.
struct Matrices {
  double a[16][kK] = {}, b[kK][8] = {};
};
Matrices read_matrices(const std::vector<uint32_t>& in, const Selectors& ids) {
  Matrices m;
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned group = lane >> 2, thread = lane % 4;
    const uint32_t* words = in.data() + lane * kWords;
    for (unsigned i = 0; i < 32; ++i) {  // row = group for i < 8 and 16 <= i < 24, else group + 8
      const unsigned row = (i / 8) % 2 == 0 ? group : group + 8;
      m.a[row][thread * 8 + i % 8 + (i < 16 ? 0 : 32)] = e2m1(words[i / 8] >> 4 * (i % 8) & 15);
    }
    for (unsigned i = 0; i < 16; ++i) {
      m.b[thread * 8 + i % 8 + (i < 8 ? 0 : 32)][group] =
          e2m1(words[4 + i / 8] >> 4 * (i % 8) & 15);
    }
  }
  for (unsigned k = 0; k < kK; ++k) {
    for (unsigned row = 0; row < 16; ++row) {
      const unsigned lane = row % 8 * 4 + 2 * ids.thread_a + row / 8;
      m.a[row][k] *= ue4m3(in[lane * kWords + 10] >> 8 * (k / kGroup) & 0xff);
    }
    for (unsigned n = 0; n < 8; ++n) {
      m.b[k][n] *= ue4m3(in[(4 * n + ids.thread_b) * kWords + 11] >> 8 * (k / kGroup) & 0xff);
    }
  }
  return m;
}

// Random codes; scale factors within 2^+-`spread`.
std::vector<uint32_t> random_operands(std::mt19937& random, unsigned spread) {
  std::vector<uint32_t> in(32 * kWords);
  for (size_t i = 0; i < in.size(); ++i) {
    const size_t word = i % kWords;
    if (word < 6) in[i] = random();
    if (word >= 6 && word < 10) {
      in[i] = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int>(random() % 65) - 32) / 4);
    }
    for (int byte = 0; word >= 10 && byte < 4; ++byte) {
      const unsigned exponent = 7 - spread + random() % (2 * spread + 1);
      in[i] |= (exponent << 3 | random() % 8) << 8 * byte;
    }
  }
  return in;
}

}  // namespace

TEST_CASE("mma of e2m1 with scale factors equals the matrix product") {
  std::mt19937 random(6);
  for (const unsigned spread : {1u, 7u}) {
    for (unsigned thread_a = 0; thread_a < 2; ++thread_a) {
      for (unsigned thread_b = 0; thread_b < 4; ++thread_b) {
        CAPTURE(spread, thread_a, thread_b);
        const Selectors ids{0, thread_a, 0, thread_b};
        const std::vector<uint32_t> in = random_operands(random, spread);
        const Matrices m = read_matrices(in, ids);
        const std::vector<float> d = run_product(in, ids);
        for (unsigned lane = 0; lane < 32; ++lane) {
          for (unsigned i = 0; i < 4; ++i) {
            const unsigned row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + (i & 1);
            double sum = 0;  // exact: multiples of 2^-20 below 2^28
            for (unsigned k = 0; k < kK; ++k) sum += m.a[row][k] * m.b[k][column];
            sum += std::bit_cast<float>(in[lane * kWords + 6 + i]);
            REQUIRE(d[lane * 4 + i] == static_cast<float>(sum));
          }
        }
      }
    }
  }
}

// Factors of the wrong threads, bytes or rows give another product: the layout is not symmetric in
// them.
TEST_CASE("mma of e2m1: misplaced scale factors are another product") {
  std::mt19937 random(7);
  const std::vector<uint32_t> in = random_operands(random, 3);
  const std::vector<float> right = run_product(in, {});
  const auto changed = [&](auto change) {
    std::vector<uint32_t> other = in;
    for (unsigned lane = 0; lane < 32; ++lane) change(other, lane);
    return run_product(other, {}) != right;
  };
  CHECK(run_product(in, {0, 1, 0, 0}) != right);
  CHECK(run_product(in, {0, 0, 0, 1}) != right);
  for (const unsigned word : {10u, 11u}) {
    CHECK(changed([&](auto& x, unsigned lane) {
      x[lane * kWords + word] = std::rotl(x[lane * kWords + word], 8);
    }));
    CHECK(changed(
        [&](auto& x, unsigned lane) { x[lane * kWords + word] = in[(lane ^ 4) * kWords + word]; }));
  }
  // The rows g and g + 8 of A.
  CHECK(changed(
      [&](auto& x, unsigned lane) { x[lane * kWords + 10] = in[(lane ^ 1) * kWords + 10]; }));
  // Nobody asks the threads that the selectors leave out.
  CHECK_FALSE(changed([&](auto& x, unsigned lane) {
    if (lane % 4 >= 2) x[lane * kWords + 10] = 0;
    if (lane % 4 != 0) x[lane * kWords + 11] = 0;
  }));
}

TEST_CASE("mma of e2m1: a NaN among the scale factors, selectors and bits that mean nothing") {
  std::mt19937 random(8);
  std::vector<uint32_t> in = random_operands(random, 2);
  in[10] = (in[10] & 0xffffff00u) | 0x7f;  // lane 0: row 0
  const std::vector<float> d = run_product(in, {});
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned i = 0; i < 4; ++i) CHECK(std::isnan(d[lane * 4 + i]) == (lane < 4 && i < 2));
  }
  const auto message = [&](const Selectors& ids) {
    try {
      run_product(in, ids);
    } catch (const Error& error) {
      CHECK(error.kind() == sagejit::emulator::ErrorKind::kUnsupported);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK_THAT(message({1, 0, 0, 0}), Catch::Contains("selector"));
  CHECK_THAT(message({0, 2, 0, 0}), Catch::Contains("selector"));
  CHECK_THAT(message({0, 0, 0, 4}), Catch::Contains("selector"));
  in[10] = 0x80;
  CHECK_THAT(message({}), Catch::Contains("ue4m3 has no sign"));
}

TEST_CASE("mma of e2m1 and its conversion exist where the architecture has them") {
  const auto parses = [](const std::string& text) {
    try {
      Program::parse(text);
      return true;
    } catch (const Error& error) {
      CHECK(error.kind() == sagejit::emulator::ErrorKind::kUnsupported);
      return false;
    }
  };
  const auto conversion = [](const std::string& target) {
    return kernel_text(
        "u64 out",
        "{ .reg .b8 b; mov.b32 %f0, 0f3f800000; cvt.rn.satfinite.e2m1x2.f32 b, %f0, %f0; }", "",
        target);
  };
  CHECK(parses(product_text({}, "sm_120a")));
  CHECK(parses(conversion("sm_120a")));
  for (const char* target : {"sm_90a", "sm_89", "sm_120"}) {
    CHECK_FALSE(parses(product_text({}, target)));
    CHECK_FALSE(parses(conversion(target)));
  }
}

TEST_CASE("f32 to e2m1") {
  // Nearest code, ties to the even one; a NaN is +6.
  const auto nearest = [](float x) -> uint32_t {
    if (std::isnan(x)) return 7;
    uint32_t best = 0;
    for (uint32_t code = 1; code < 8; ++code) {
      const double distance = std::fabs(e2m1(code) - std::fabs(x)),
                   old = std::fabs(e2m1(best) - std::fabs(x));
      if (distance < old || (distance == old && code % 2 == 0)) best = code;
    }
    return std::fabs(x) > 6 ? 7 | (std::signbit(x) ? 8u : 0u) : best | (std::signbit(x) ? 8u : 0u);
  };
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> x = {0.0f,  -0.0f,  kInfinity, -kInfinity, std::nanf(""),
                          1e30f, -1e30f, 1e-30f,    0.25f};
  for (uint32_t code = 0; code < 7; ++code) {
    const auto a = static_cast<float>(e2m1(code)), b = static_cast<float>(e2m1(code + 1));
    const float middle = (a + b) / 2;
    for (const float y : {a, middle, std::nextafter(middle, a), std::nextafter(middle, b)}) {
      x.push_back(y), x.push_back(-y);
    }
  }
  while (x.size() % 64 != 0) x.push_back(static_cast<float>(x.size()) / 16);
  for (const bool relu : {false, true}) {
    std::vector<uint32_t> out(x.size() / 2);
    const MemoryRange memory[] = {range(x, "x", false), range(out, "out")};
    run_text(
        kernel_text(
            "u64 in, u64 out",
            "ld.param.u64 %rd0, [in]; ld.param.u64 %rd1, [out]; mov.u32 %r0, %tid.x; mov.u32 %r1, "
            "%ctaid.x; mad.lo.u32 %r0, %r1, 32, %r0; mul.wide.u32 %rd2, %r0, 8; add.u64 %rd0, "
            "%rd0, "
            "%rd2;\nmul.wide.u32 %rd2, %r0, 4; add.u64 %rd1, %rd1, %rd2;\n"
            "ld.global.v2.f32 {%f0, %f1}, [%rd0];\n{ .reg .b8 b, zero; mov.b32 {b, zero, zero, "
            "zero}, 0; cvt.rn.satfinite" +
                std::string(relu ? ".relu" : "") +
                ".e2m1x2.f32 b, %f0, %f1; mov.b32 %r2, {b, zero, zero, zero}; }\n"
                "st.global.b32 [%rd1], %r2;",
            "", kTarget),
        {static_cast<uint32_t>(out.size() / 32), 32}, Params(x, out), memory);
    for (size_t i = 0; i < out.size(); ++i) {
      CAPTURE(relu, x[2 * i], x[2 * i + 1], out[i]);
      const auto clamped = [&](float y) { return relu && y <= 0 ? 0.0f : y; };
      REQUIRE(out[i] == (nearest(clamped(x[2 * i])) << 4 | nearest(clamped(x[2 * i + 1]))));
    }
  }
}
