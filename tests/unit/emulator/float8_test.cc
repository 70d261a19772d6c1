// Conversions to and from 8-bit floats against a search over all codes.
#include <cmath>
#include <limits>
#include <random>

#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

struct Format {
  const char* name;
  int mantissa, bias;
  uint32_t largest;  // code of the largest finite value
};
const Format kE4M3{"e4m3x2", 3, 7, 0x7e};
const Format kE5M2{"e5m2x2", 2, 15, 0x7b};

double value_of(const Format& f, uint32_t code) {
  const int e = static_cast<int>(code & 0x7f) >> f.mantissa;
  const double m = (code & ((1u << f.mantissa) - 1)) / std::ldexp(1, f.mantissa);
  const double v = e == 0 ? std::ldexp(m, 1 - f.bias) : std::ldexp(1 + m, e - f.bias);
  return (code & 0x80) != 0 ? -v : v;
}

// Nearest finite code, ties to the even one; NaN is 0x7f.
uint32_t nearest(const Format& f, double x) {
  if (x != x) return 0x7f;
  const double magnitude = std::abs(x);
  uint32_t best = 0;
  for (uint32_t c = 1; c <= f.largest; ++c) {
    const double d = std::abs(value_of(f, c) - magnitude);
    const double old = std::abs(value_of(f, best) - magnitude);
    if (d < old || (d == old && c % 2 == 0)) best = c;
  }
  if (magnitude > value_of(f, f.largest)) best = f.largest;
  return best | (std::signbit(x) ? 0x80u : 0u);
}

std::vector<float> samples(const Format& f) {
  std::vector<float> out = {0.0f,
                            -0.0f,
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN(),
                            1e30f,
                            -1e30f,
                            1e-30f};
  for (uint32_t c = 0; c < f.largest; ++c) {
    const auto a = static_cast<float>(value_of(f, c)), b = static_cast<float>(value_of(f, c + 1));
    const float middle = (a + b) / 2;
    for (float x : {a, middle, std::nextafter(middle, a), std::nextafter(middle, b)}) {
      out.push_back(c % 2 != 0 ? -x : x);
    }
  }
  const auto top = static_cast<float>(value_of(f, f.largest));
  for (float x : {top, top * 1.03f, top * 1.07f, -top * 2}) out.push_back(x);
  while (out.size() % 64 != 0) out.push_back(1.0f);
  return out;
}

// Runs `op` on lanes; the operands are words of `in`: lane l gets in[2 l] and in[2 l + 1].
std::vector<uint32_t> run_pairs(const std::string& op, const std::vector<uint32_t>& in) {
  std::vector<uint32_t> out(in.size() / 2);
  const std::string text = kernel_text(
      "u64 in, u64 out",
      "ld.param.u64 %rd0, [in]; ld.param.u64 %rd1, [out]; mov.u32 %r0, %tid.x; mov.u32 %r1, "
      "%ctaid.x;\n"
      "mad.lo.u32 %r0, %r1, 32, %r0; mul.wide.u32 %rd2, %r0, 8; add.u64 %rd0, %rd0, %rd2;\n"
      "mul.wide.u32 %rd2, %r0, 4; add.u64 %rd1, %rd1, %rd2; ld.global.v2.b32 {%r2, %r3}, [%rd0];\n"
      "mov.b32 %f2, %r2; mov.b32 %f3, %r3; cvt.u16.u32 %h2, %r2;\n" +
          op + "\nst.global.u32 [%rd1], %r4;");
  const MemoryRange memory[] = {range(in, "in", false), range(out, "out")};
  run_text(text, {static_cast<uint32_t>(out.size() / 32), 32}, Params(in, out), memory);
  return out;
}

}  // namespace

TEST_CASE("f32 to 8-bit floats") {
  for (const Format& f : {kE4M3, kE5M2}) {
    const std::vector<float> x = samples(f);
    std::vector<uint32_t> bits;
    for (float v : x) bits.push_back(std::bit_cast<uint32_t>(v));
    const std::string name = f.name;
    const auto plain =
        run_pairs("cvt.rn.satfinite." + name + ".f32 %h4, %f2, %f3; cvt.u32.u16 %r4, %h4;", bits);
    const auto relu = run_pairs(
        "cvt.rn.satfinite.relu." + name + ".f32 %h4, %f2, %f3; cvt.u32.u16 %r4, %h4;", bits);
    for (size_t i = 0; i < plain.size(); ++i) {
      INFO(name << " of " << x[2 * i] << ", " << x[2 * i + 1]);
      REQUIRE(plain[i] == (nearest(f, x[2 * i]) << 8 | nearest(f, x[2 * i + 1])));
      const auto clamped = [](float v) { return v <= 0 ? 0.0 : static_cast<double>(v); };
      REQUIRE(relu[i] == (nearest(f, clamped(x[2 * i])) << 8 | nearest(f, clamped(x[2 * i + 1]))));
    }
  }
}

TEST_CASE("f16 pairs to 8-bit floats and back") {
  for (const Format& f : {kE4M3, kE5M2}) {
    const std::string name = f.name;
    // Every code, widened and narrowed: NaNs become 0x7f.
    std::vector<uint32_t> codes;
    for (uint32_t c = 0; c < 256; ++c) {
      codes.push_back(c << 8 | (255 - c));
      codes.push_back(0);
    }
    const auto back = run_pairs("cvt.rn.f16x2." + name + " %r5, %h2; cvt.rn.satfinite." + name +
                                    ".f16x2 %h4, %r5; cvt.u32.u16 %r4, %h4;",
                                codes);
    const auto wide = run_pairs("cvt.rn.f16x2." + name + " %r4, %h2;", codes);
    const auto normal = [&](uint32_t c) {
      const bool infinite = f.mantissa == 2 && (c & 0x7f) == 0x7c;
      if (infinite) return (c & 0x80) | 0x7bu;
      return (c & 0x7f) > f.largest ? 0x7fu : c;
    };
    for (uint32_t c = 0; c < 256; ++c) {
      INFO(name << " " << c);
      REQUIRE(back[c] == (normal(c) << 8 | normal(255 - c)));
    }
    // 1.0 and -0.5 in both places.
    const uint32_t one = static_cast<uint32_t>(f.bias) << f.mantissa;
    CHECK(wide[one] >> 16 == 0x3c00);
    CHECK((wide[255 - one] & 0xffff) == 0x3c00);
  }
}
