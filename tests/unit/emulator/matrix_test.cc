// mma, ldmatrix and stmatrix against plain loops over matrices.
//
// The fragment positions here are written out from the PTX ISA tables, separately from the
// emulator's.
#include <bit>
#include <cmath>
#include <random>

#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

float f16(uint16_t h) {
  const int e = h >> 10 & 31;
  const double m = h & 1023;
  const double v = e == 0 ? std::ldexp(m, -24) : std::ldexp(1024 + m, e - 25);
  return static_cast<float>((h & 0x8000) != 0 ? -v : v);
}
float bf16(uint16_t h) {
  return std::bit_cast<float>(static_cast<uint32_t>(h) << 16);
}

// Per lane: registers of A, B, C in order; returns D's registers.
std::vector<uint32_t> run_mma(const std::string& op, unsigned ra, unsigned rb, unsigned rc,
                              const std::vector<uint32_t>& in,
                              const std::string& target = "sm_90") {
  const unsigned total = ra + rb + rc;
  std::vector<uint32_t> out(32 * rc);
  std::string body =
      "ld.param.u64 %rd0, [in]; ld.param.u64 %rd1, [out]; mov.u32 %r39, %tid.x;\n"
      "mul.wide.u32 %rd2, %r39, " +
      std::to_string(4 * total) +
      "; add.u64 %rd0, %rd0, %rd2;\n"
      "mul.wide.u32 %rd2, %r39, " +
      std::to_string(4 * rc) + "; add.u64 %rd1, %rd1, %rd2;\n";
  const auto list = [](unsigned first, unsigned count) {
    std::string s = "{";
    for (unsigned i = 0; i < count; ++i) s += (i != 0 ? ", %r" : "%r") + std::to_string(first + i);
    return s + "}";
  };
  for (unsigned i = 0; i < total; ++i)
    body += "ld.global.u32 %r" + std::to_string(i) + ", [%rd0+" + std::to_string(4 * i) + "];\n";
  // D overwrites C's registers in reverse order: results must not depend on the order of
  // write-back.
  std::string d = "{";
  for (unsigned i = 0; i < rc; ++i)
    d += (i != 0 ? ", %r" : "%r") + std::to_string(ra + rb + rc - 1 - i);
  body +=
      op + " " + d + "}, " + list(0, ra) + ", " + list(ra, rb) + ", " + list(ra + rb, rc) + ";\n";
  for (unsigned i = 0; i < rc; ++i)
    body += "st.global.u32 [%rd1+" + std::to_string(4 * i) + "], %r" +
            std::to_string(ra + rb + rc - 1 - i) + ";\n";
  const MemoryRange memory[] = {range(in, "in", false), range(out, "out")};
  run_text(kernel_text("u64 in, u64 out", body, "", target), {1, 32}, Params(in, out), memory);
  return out;
}

struct Shape32 {
  unsigned k;
  unsigned bits;  // of an element of A and B
};

// Matrices from fragments. a: 16 x k, b: k x 8 (both as raw element bits), element (row, column).
struct Matrices {
  std::vector<uint32_t> a, b;
};
Matrices unpack(const std::vector<uint32_t>& in, Shape32 s, unsigned ra, unsigned rb,
                unsigned stride) {
  Matrices m{std::vector<uint32_t>(16 * s.k), std::vector<uint32_t>(s.k * 8)};
  const unsigned e = 32 / s.bits;
  const uint32_t ones = (1u << s.bits) - 1;
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned group = lane >> 2, thread = lane % 4;
    for (unsigned i = 0; i < ra * e; ++i) {
      // ISA, m16n8k32 .s8: row = group for 0 <= i < 4 or 8 <= i < 12, else group + 8;
      // column = thread * 4 + (i & 3), + 16 for i >= 8. For 16-bit types the same with 2 per
      // register, for 4-bit types with 8.
      const unsigned row = (i / e) % 2 == 0 ? group : group + 8;
      const unsigned column = thread * e + i % e + (i >= 2 * e ? s.k / 2 : 0);
      m.a[row * s.k + column] = in[lane * stride + i / e] >> s.bits * (i % e) & ones;
    }
    for (unsigned i = 0; i < rb * e; ++i) {
      const unsigned row = thread * e + i % e + (i >= e ? s.k / 2 : 0);
      m.b[row * 8 + group] = in[lane * stride + ra + i / e] >> s.bits * (i % e) & ones;
    }
  }
  return m;
}

}  // namespace

TEST_CASE("integer mma equals the matrix product") {
  struct Kind {
    const char* op;
    unsigned k, ra, rb;
    bool a_signed, b_signed;
    unsigned bits = 8;
  };
  const Kind kinds[] = {
      {"mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", 32, 4, 2, true, true},
      {"mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32", 32, 4, 2, false, true},
      {"mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32", 32, 4, 2, false, false},
      {"mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32", 16, 2, 1, true, true},
      {"mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32", 32, 4, 2, true, true},
      {"mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32", 64, 4, 2, true, true, 4},
      {"mma.sync.aligned.m16n8k64.row.col.satfinite.s32.s4.s4.s32", 64, 4, 2, true, true, 4},
  };
  const auto number = [](uint32_t x, bool is_signed, unsigned bits) {
    return is_signed && x >> (bits - 1) != 0 ? static_cast<int>(x) - (1 << bits)
                                             : static_cast<int>(x);
  };
  std::mt19937 random(3);
  for (const Kind& kind : kinds) {
    INFO(kind.op);
    const bool saturate = std::string(kind.op).find("satfinite") != std::string::npos;
    const unsigned stride = kind.ra + kind.rb + 4;
    std::vector<uint32_t> in(32 * stride);
    for (uint32_t& x : in) x = random();
    if (saturate) in[9] = 0x7fffffff, in[stride + 9] = 0x80000000;
    const Matrices m = unpack(in, {kind.k, kind.bits}, kind.ra, kind.rb, stride);
    const std::vector<uint32_t> d = run_mma(kind.op, kind.ra, kind.rb, 4, in);
    for (unsigned lane = 0; lane < 32; ++lane) {
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + (i & 1);
        int64_t sum = static_cast<int32_t>(in[lane * stride + kind.ra + kind.rb + i]);
        for (unsigned k = 0; k < kind.k; ++k) {
          const uint32_t x = m.a[row * kind.k + k], y = m.b[k * 8 + column];
          sum += number(x, kind.a_signed, kind.bits) * number(y, kind.b_signed, kind.bits);
        }
        if (saturate) sum = std::min<int64_t>(std::max<int64_t>(sum, INT32_MIN), INT32_MAX);
        REQUIRE(d[lane * 4 + i] == static_cast<uint32_t>(sum));
      }
    }
  }
}

TEST_CASE("floating-point mma equals the matrix product") {
  struct Kind {
    const char* op;
    unsigned k, ra, rb, rc;
    bool brain;
  };
  const Kind kinds[] = {
      {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", 16, 4, 2, 4, false},
      {"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", 8, 2, 1, 4, false},
      {"mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", 16, 4, 2, 2, false},
      {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 16, 4, 2, 4, true},
  };
  std::mt19937 random(4);
  for (const Kind& kind : kinds) {
    INFO(kind.op);
    const unsigned stride = kind.ra + kind.rb + kind.rc;
    std::vector<uint32_t> in(32 * stride);
    // Small multiples of 1/8, so that every sum is exact in f16 and f32.
    const auto half = [&] {
      const float x = static_cast<float>(static_cast<int>(random() % 17) - 8) / 8;
      if (kind.brain) return std::bit_cast<uint32_t>(x) >> 16;
      for (uint32_t h = 0; h < 0x10000; ++h) {
        if (f16(static_cast<uint16_t>(h)) == x) return h;
      }
      return 0u;
    };
    for (uint32_t& x : in) x = half() | half() << 16;
    if (kind.rc == 4) {
      for (unsigned lane = 0; lane < 32; ++lane) {
        for (unsigned i = 0; i < 4; ++i)
          in[lane * stride + kind.ra + kind.rb + i] =
              std::bit_cast<uint32_t>(0.25f * static_cast<float>(lane + i));
      }
    }
    const auto value = [&](uint32_t h) {
      return kind.brain ? bf16(static_cast<uint16_t>(h)) : f16(static_cast<uint16_t>(h));
    };
    const Matrices m = unpack(in, {kind.k, 16}, kind.ra, kind.rb, stride);
    const std::vector<uint32_t> d = run_mma(kind.op, kind.ra, kind.rb, kind.rc, in);
    for (unsigned lane = 0; lane < 32; ++lane) {
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + (i & 1);
        const unsigned word = kind.rc == 4 ? i : i / 2, shift = kind.rc == 4 ? 0 : 16 * (i % 2);
        const auto read = [&](uint32_t w) {
          return kind.rc == 4 ? std::bit_cast<float>(w) : f16(static_cast<uint16_t>(w >> shift));
        };
        float sum = read(in[lane * stride + kind.ra + kind.rb + word]);
        for (unsigned k = 0; k < kind.k; ++k)
          sum += value(m.a[row * kind.k + k]) * value(m.b[k * 8 + column]);
        REQUIRE(read(d[lane * kind.rc + word]) == sum);
      }
    }
  }
}

namespace {

struct Float8 {
  std::string name;
  int mantissa, bias;

  float value(uint8_t x) const {
    const int e = (x & 127) >> mantissa, m = x & ((1 << mantissa) - 1), one = 1 << mantissa;
    const int scale = (e == 0 ? 1 : e) - bias - mantissa;
    const double v = std::ldexp(e == 0 ? m : one + m, scale);
    return static_cast<float>((x & 0x80) != 0 ? -v : v);
  }
  uint32_t power(int exponent) const { return static_cast<uint32_t>(exponent + bias) << mantissa; }
};
const Float8 kE4M3{"e4m3", 3, 7}, kE5M2{"e5m2", 2, 15};

}  // namespace

// Multiples of 1/8 up to 1, whose sums are exact in f16, and in the 13 bits of sm_89.
TEST_CASE("mma of 8-bit floats equals the matrix product") {
  constexpr unsigned kK = 32, kA = 4, kB = 2;
  std::mt19937 random(5);
  for (const std::string target : {"sm_89", "sm_90", "sm_120"}) {
    for (const unsigned form : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u}) {
      const unsigned rc = form % 2 == 0 ? 4 : 2;
      const Float8 &type_a = form / 2 % 2 ? kE5M2 : kE4M3, &type_b = form / 4 ? kE5M2 : kE4M3;
      CAPTURE(target, rc, type_a.name, type_b.name);
      const unsigned stride = kA + kB + rc;
      std::vector<uint32_t> in(32 * stride);
      for (size_t i = 0; i < in.size(); ++i) {
        const bool is_c = i % stride >= kA + kB;
        const auto eighths = static_cast<int>(random() % 9) - 4;
        if (is_c) {
          in[i] = rc == 4 ? std::bit_cast<uint32_t>(static_cast<float>(eighths) / 8) : 0x3c00b800;
          continue;
        }
        // Powers of 2 from 1/8 to 1, of either sign, and zeros.
        const Float8& type = i % stride < kA ? type_a : type_b;
        for (int byte = 0; byte < 4; ++byte) {
          const uint32_t code = random() % 5 == 0 ? 0 : type.power(-static_cast<int>(random() % 4));
          in[i] |= (code | (random() % 2) << 7) << 8 * byte;
        }
      }
      const Matrices m = unpack(in, {kK, 8}, kA, kB, stride);
      const std::string c = rc == 4 ? "f32" : "f16";
      const std::vector<uint32_t> d = run_mma("mma.sync.aligned.m16n8k32.row.col." + c + "." +
                                                  type_a.name + "." + type_b.name + "." + c,
                                              kA, kB, rc, in, target);
      for (unsigned lane = 0; lane < 32; ++lane) {
        for (unsigned i = 0; i < 4; ++i) {
          const unsigned row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + (i & 1);
          const unsigned word = rc == 4 ? i : i / 2, shift = rc == 4 ? 0 : 16 * (i % 2);
          const auto read = [&](uint32_t w) {
            return rc == 4 ? std::bit_cast<float>(w) : f16(static_cast<uint16_t>(w >> shift));
          };
          float sum = read(in[lane * stride + kA + kB + word]);
          for (unsigned k = 0; k < kK; ++k) {
            sum += type_a.value(static_cast<uint8_t>(m.a[row * kK + k])) *
                   type_b.value(static_cast<uint8_t>(m.b[k * 8 + column]));
          }
          REQUIRE(read(d[lane * rc + word]) == sum);
        }
      }
    }
  }
}

// 32 products of 1 beside a C of 2^13 count, beside one of 2^14 they are cut off, where the tensor
// core keeps 13 bits; elsewhere nothing is lost.
TEST_CASE("mma of 8-bit floats on sm_89 keeps 13 bits of a sum") {
  constexpr uint32_t kOneE4M3 = 0x38383838, kOneE5M2 = 0x3c3c3c3c;
  struct Form {
    std::string types;
    uint32_t one_a, one_b;
  };
  for (const Form& form : {Form{"e4m3.e4m3", kOneE4M3, kOneE4M3},
                           {"e4m3.e5m2", kOneE4M3, kOneE5M2},
                           {"e5m2.e4m3", kOneE5M2, kOneE4M3},
                           {"e5m2.e5m2", kOneE5M2, kOneE5M2}}) {
    for (const int exponent : {13, 14}) {
      CAPTURE(form.types, exponent);
      std::vector<uint32_t> in(32 * 10);
      const float c = std::ldexp(1.0f, exponent);
      for (size_t i = 0; i < in.size(); ++i) {
        in[i] = i % 10 < 4 ? form.one_a : i % 10 < 6 ? form.one_b : std::bit_cast<uint32_t>(c);
      }
      const auto sum = [&](const std::string& target) {
        const std::string op = "mma.sync.aligned.m16n8k32.row.col.f32." + form.types + ".f32";
        return std::bit_cast<float>(run_mma(op, 4, 2, 4, in, target)[77]);
      };
      CHECK(sum("sm_89") == (exponent == 13 ? c + 32 : c));
      CHECK(sum("sm_120") == c + 32);
    }
  }
}

TEST_CASE("mma of e4m3 into f16 rounds once") {
  std::vector<uint32_t> in(32 * 8);
  for (size_t i = 0; i < in.size(); ++i) {
    in[i] = i % 8 < 4 ? 0x30303030 : i % 8 < 6 ? 0x38383838 : 0x78017801;  // 1/2, 1 and 32800
  }
  const std::string op = "mma.sync.aligned.m16n8k32.row.col.f16.e4m3.e4m3.f16";
  CHECK(run_mma(op, 4, 2, 2, in, "sm_89")[5] == 0x78027802);  // 32816 to even: 32832
}

TEST_CASE("ldmatrix and stmatrix layouts") {
  // Row r of matrix i holds elements 256 * (8 * i + r) + column; rows lie in reverse order in
  // memory.
  const std::string head =
      "ld.param.u64 %rd0, [out];\nmov.u32 %r39, %tid.x;\n.shared .align 16 .b8 s[512];\n"
      "mov.u32 %r1, s;\nsub.u32 %r2, 31, %r39;\nmad.lo.u32 %r2, %r2, 16, %r1;\n";
  std::string fill = head;
  for (unsigned c = 0; c < 8; ++c)
    fill += "mad.lo.u32 %r3, %r39, 256, " + std::to_string(c) + ";\nst.shared.u16 [%r2+" +
            std::to_string(2 * c) + "], %r3;\n";
  const std::string store =
      "mul.wide.u32 %rd2, %r39, 16;\nadd.u64 %rd0, %rd0, %rd2;\nst.global.v4.u32 [%rd0], "
      "{%r10,%r11,%r12,%r13};\n";
  alignas(16) static uint32_t out[128];
  const MemoryRange memory[] = {{reinterpret_cast<uint64_t>(out), sizeof(out), true, "out"}};
  for (bool trans : {false, true}) {
    const std::string t = trans ? ".trans" : "";
    const auto element = [&](uint32_t matrix, uint32_t lane, uint32_t i) {
      const uint32_t r = lane / 4, c = lane % 4 * 2 + i;
      return trans ? 256 * (8 * matrix + c) + r : 256 * (8 * matrix + r) + c;
    };
    run_text(kernel_text("u64 out", fill + "bar.sync 0;\nldmatrix.sync.aligned.m8n8.x4" + t +
                                        ".shared.b16 {%r10,%r11,%r12,%r13}, [%r2];\n" + store),
             {1, 32}, Params(&out[0]), memory);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      for (uint32_t j = 0; j < 4; ++j)
        REQUIRE(out[lane * 4 + j] == (element(j, lane, 0) | element(j, lane, 1) << 16));
    }
    run_text(
        kernel_text("u64 out", fill + "bar.sync 0;\nldmatrix.sync.aligned.m8n8.x2" + t +
                                   ".shared.b16 {%r10,%r11}, [%r2];\n"
                                   "ldmatrix.sync.aligned.m8n8.x1" +
                                   t + ".shared.b16 {%r12}, [%r2];\nmov.u32 %r13, 0;\n" + store),
        {1, 32}, Params(&out[0]), memory);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      for (uint32_t j = 0; j < 3; ++j)
        REQUIRE(out[lane * 4 + j] == (element(j % 2, lane, 0) | element(j % 2, lane, 1) << 16));
    }
    // stmatrix is the inverse.
    run_text(kernel_text("u64 out", fill + "bar.sync 0;\nldmatrix.sync.aligned.m8n8.x4" + t +
                                        ".shared.b16 {%r10,%r11,%r12,%r13}, [%r2];\n"
                                        "bar.sync 0;\nstmatrix.sync.aligned.m8n8.x4" +
                                        t +
                                        ".shared.b16 [%r2], {%r11,%r10,%r13,%r12};\nbar.sync 0;\n"
                                        "ld.shared.v4.u32 {%r10,%r11,%r12,%r13}, [%r2];\n" +
                                        store),
             {1, 32}, Params(&out[0]), memory);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      for (uint32_t j = 0; j < 4; ++j)
        REQUIRE(out[lane * 4 + j] ==
                ((256 * (lane ^ 8) + 2 * j) | (256 * (lane ^ 8) + 2 * j + 1) << 16));
    }
  }
}

TEST_CASE("bank conflicts are counted") {
  std::vector<uint32_t> out(32);
  const MemoryRange memory[] = {range(out, "out")};
  const auto conflicts = [&](const std::string& stride, const std::string& access) {
    const std::string text = kernel_text("u64 out",
                                         ".shared .align 16 .b8 s[16384];\nmov.u32 %r1, "
                                         "s;\nmov.u32 %r0, %tid.x;\nmad.lo.u32 %r1, %r0, " +
                                             stride + ", %r1;\n" + access);
    return run_text(text, {1, 32}, Params(out), memory).shared_conflicts;
  };
  CHECK(conflicts("4", "st.shared.u32 [%r1], %r0;") == 0);
  CHECK(conflicts("8", "st.shared.u32 [%r1], %r0;") == 1);
  CHECK(conflicts("128", "st.shared.u32 [%r1], %r0;") == 31);
  CHECK(conflicts("16", "st.shared.v4.u32 [%r1], {%r0,%r0,%r0,%r0};") == 0);
  CHECK(conflicts("144", "st.shared.v4.u32 [%r1], {%r0,%r0,%r0,%r0};") == 0);
  CHECK(conflicts("64", "st.shared.v4.u32 [%r1], {%r0,%r0,%r0,%r0};") == 4 * 3);
}
