// One result per instruction group, computable by hand or by plain C++.
#include <bit>
#include <cmath>

#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

struct Case {
  const char* body;  // %r39 is the lane; the result goes to %r0
  uint32_t (*expected)(uint32_t lane);
};

void check(const Case& c) {
  const std::vector<uint32_t> out = run_lanes(c.body);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    INFO(c.body << "\nlane " << lane << std::hex << " got " << out[lane] << " want "
                << c.expected(lane));
    REQUIRE(out[lane] == c.expected(lane));
  }
}

uint32_t bits(float x) {
  return std::bit_cast<uint32_t>(x);
}

// A body whose result does not depend on the lane.
uint32_t constant(const std::string& body) {
  return run_lanes(body)[0];
}

// op applied to f32 constants given as bits.
uint32_t f32_op(const std::string& op, std::initializer_list<uint32_t> sources) {
  std::string text, list;
  int i = 1;
  for (uint32_t s : sources) {
    text += "mov.b32 %f" + std::to_string(i) + ", " + std::to_string(s) + ";\n";
    list += ", %f" + std::to_string(i++);
  }
  return constant(text + op + " %f0" + list + ";\nmov.b32 %r0, %f0;");
}

constexpr uint32_t kNan = 0x7fffffff, kInf = 0x7f800000, kTiny = 1;

}  // namespace

TEST_CASE("integer arithmetic") {
  const Case cases[] = {
      {"sub.s32 %r0, %r39, 40;", [](uint32_t l) { return l - 40; }},
      {"mul.hi.u32 %r0, %r39, 0x80000000;", [](uint32_t l) { return l / 2; }},
      {"neg.s32 %r1, %r39; mul.hi.s32 %r0, %r1, 0x40000000;",
       [](uint32_t l) { return static_cast<uint32_t>(-static_cast<int>(l) >> 2); }},
      {"mad.lo.s32 %r0, %r39, -3, 7;", [](uint32_t l) { return 7 - 3 * l; }},
      {"mul.wide.s32 %rd3, %r39, -1; shr.u64 %rd3, %rd3, 32; cvt.u32.u64 %r0, %rd3;",
       [](uint32_t l) { return l == 0 ? 0 : ~0u; }},
      {"sub.s32 %r1, %r39, 16; div.s32 %r0, %r1, 3;",
       [](uint32_t l) { return static_cast<uint32_t>((static_cast<int>(l) - 16) / 3); }},
      {"sub.s32 %r1, %r39, 16; rem.s32 %r0, %r1, 3;",
       [](uint32_t l) { return static_cast<uint32_t>((static_cast<int>(l) - 16) % 3); }},
      {"div.u32 %r0, %r39, 0;", [](uint32_t) { return ~0u; }},
      {"mov.u32 %r1, 0x80000000; div.s32 %r0, %r1, -1;", [](uint32_t) { return 0x80000000u; }},
      {"add.sat.s32 %r0, %r39, 0x7ffffff0;",
       [](uint32_t l) { return std::min(0x7ffffff0u + l, 0x7fffffffu); }},
      {"sub.s32 %r1, %r39, 16; abs.s32 %r0, %r1;",
       [](uint32_t l) { return l < 16 ? 16 - l : l - 16; }},
      {"sad.u32 %r0, %r39, 10, 5;", [](uint32_t l) { return 5 + (l > 10 ? l - 10 : 10 - l); }},
      {"dp4a.s32.s32 %r0, 0xff02fe01, 0x01020304, %r39;",
       [](uint32_t l) { return l + 4 - 6 + 4 - 1; }},
      {"dp4a.u32.u32 %r0, 0xff000001, 0x01020304, %r39;", [](uint32_t l) { return l + 255 + 4; }},
      {"min.s32 %r0, %r39, -1;", [](uint32_t) { return ~0u; }},
      {"min.u32 %r0, %r39, -1;", [](uint32_t l) { return l; }},
  };
  for (const Case& c : cases) check(c);
}

TEST_CASE("bits and bytes") {
  const Case cases[] = {
      {"shl.b32 %r0, 1, %r39;", [](uint32_t l) { return 1u << l; }},
      {"add.u32 %r1, %r39, 20; shl.b32 %r0, 1, %r1;",
       [](uint32_t l) { return l + 20 > 31 ? 0 : 1u << (l + 20); }},
      {"add.u32 %r1, %r39, 20; shr.s32 %r0, 0x80000000, %r1;",
       [](uint32_t l) { return l + 20 > 31 ? ~0u : static_cast<uint32_t>(INT32_MIN >> (l + 20)); }},
      {"shf.l.wrap.b32 %r0, 0x89abcdef, 0x01234567, 8;", [](uint32_t) { return 0x23456789u; }},
      {"shf.r.clamp.b32 %r0, 0x89abcdef, 0x01234567, 40;", [](uint32_t) { return 0x01234567u; }},
      {"bfe.u32 %r0, 0xf0, 4, %r39;", [](uint32_t l) { return 15u & ((1u << l) - 1); }},
      {"bfe.s32 %r0, 0xf0, 4, 4;", [](uint32_t) { return ~0u; }},
      {"bfi.b32 %r0, -1, 0, %r39, 4;", [](uint32_t l) { return 15u << l; }},
      {"popc.b32 %r0, %r39;", [](uint32_t l) { return static_cast<uint32_t>(std::popcount(l)); }},
      {"clz.b32 %r0, %r39;", [](uint32_t l) { return static_cast<uint32_t>(std::countl_zero(l)); }},
      {"brev.b32 %r0, 1;", [](uint32_t) { return 0x80000000u; }},
      {"bfind.u32 %r0, %r39;",
       [](uint32_t l) { return l == 0 ? ~0u : 31 - static_cast<uint32_t>(std::countl_zero(l)); }},
      {"lop3.b32 %r0, 0xf0, 0xcc, 0xaa, 0x96;", [](uint32_t) { return 0x96u; }},
      {"prmt.b32 %r0, 0x03020100, 0x07060504, 0x7531;", [](uint32_t) { return 0x07050301u; }},
      {"prmt.b32 %r0, 0x80020100, 0, 0x00bf;", [](uint32_t) { return 0x0000ff00u; }},
      {"prmt.b32.f4e %r0, 0x03020100, 0x07060504, 2;", [](uint32_t) { return 0x05040302u; }},
      {"prmt.b32.b4e %r0, 0x03020100, 0x07060504, 1;", [](uint32_t) { return 0x06070001u; }},
      {"prmt.b32.rc8 %r0, 0x03020100, 0, 2;", [](uint32_t) { return 0x02020202u; }},
      {"prmt.b32.ecl %r0, 0x03020100, 0, 2;", [](uint32_t) { return 0x03020202u; }},
      {"prmt.b32.ecr %r0, 0x03020100, 0, 2;", [](uint32_t) { return 0x02020100u; }},
      {"prmt.b32.rc16 %r0, 0x03020100, 0, 1;", [](uint32_t) { return 0x03020302u; }},
  };
  for (const Case& c : cases) check(c);
}

TEST_CASE("f32 rounding, NaN and flushing rules") {
  const uint32_t one = bits(1.0f), ulp = bits(0x1p-24f), below = bits(-0x1p-25f);
  CHECK(f32_op("add.rn.f32", {one, ulp}) == one);  // tie to even
  CHECK(f32_op("add.rp.f32", {one, ulp}) == one + 1);
  CHECK(f32_op("add.rz.f32", {one, below}) == one - 1);
  CHECK(f32_op("add.rm.f32", {one, bits(1e-38f)}) == one);
  CHECK(f32_op("add.rm.f32", {one, one | 0x80000000u}) == 0x80000000u);  // an exact 0 rounding down
  CHECK(f32_op("add.f32", {kInf, kInf | 0x80000000u}) == kNan);
  CHECK(f32_op("add.f32", {kTiny, 0}) == kTiny);
  CHECK(f32_op("add.ftz.f32", {kTiny, 0}) == 0);
  CHECK(f32_op("mul.ftz.f32", {bits(-0x1p-100f), bits(0x1p-40f)}) == 0x80000000u);
  CHECK(f32_op("mul.sat.f32", {bits(3.0f), one}) == one);
  CHECK(f32_op("mul.sat.f32", {kNan, one}) == 0);
  // One rounding: 1 + 2^-12 squared minus its rounded square.
  const uint32_t x = bits(1.0f + 0x1p-12f);
  CHECK(f32_op("fma.rn.f32", {x, x, bits(-(1.0f + 0x1p-11f))}) == bits(0x1p-24f));
  CHECK(f32_op("fma.rm.f32", {x, x, one}) == bits(2.0f + 0x1p-11f));
  CHECK(f32_op("fma.rp.f32", {x, x, one}) == bits(2.0f + 0x1p-11f) + 1);
  CHECK(f32_op("div.rn.f32", {one, bits(3.0f)}) == bits(1.0f / 3.0f));
  CHECK(f32_op("div.rz.f32", {bits(2.0f), bits(3.0f)}) == bits(2.0f / 3.0f) - 1);
  CHECK(f32_op("rcp.rn.f32", {0x80000000u}) == (kInf | 0x80000000u));
  CHECK(f32_op("sqrt.rn.f32", {bits(-1.0f)}) == kNan);
  CHECK(f32_op("min.f32", {kNan, one}) == one);
  CHECK(f32_op("max.f32", {kNan, 0x7fc00000}) == kNan);
  CHECK(f32_op("min.NaN.f32", {one, kNan}) == kNan);
  CHECK(f32_op("max.f32", {0x80000000u, 0}) == 0);
  CHECK(f32_op("min.f32", {0, 0x80000000u}) == 0x80000000u);
  CHECK(f32_op("neg.f32", {0x7fc00000}) == kNan);
}

TEST_CASE("approximations are within 2 ulp") {
  for (float x : {-126.5f, -3.25f, -0.1f, 0.0f, 0.3f, 1.0f, 17.75f, 127.9f}) {
    const auto ulps = [&](const char* op, float argument, double exact) {
      const float got = std::bit_cast<float>(f32_op(op, {bits(argument)}));
      return std::abs(got - exact) / std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
    };
    CHECK(ulps("ex2.approx.f32", x, std::exp2(double{x})) <= 2);
    const float y = std::exp2(x);
    CHECK(ulps("rcp.approx.f32", y, 1.0 / y) <= 1);
    CHECK(ulps("rsqrt.approx.f32", y, 1.0 / std::sqrt(double{y})) <= 2);
  }
  CHECK(f32_op("ex2.approx.ftz.f32", {bits(-200.0f)}) == 0);
  CHECK(f32_op("ex2.approx.f32", {bits(-149.0f)}) == kTiny);
  CHECK(f32_op("ex2.approx.ftz.f32", {bits(-149.0f)}) == 0);
  CHECK(f32_op("ex2.approx.f32", {bits(129.0f)}) == kInf);
  CHECK(f32_op("ex2.approx.f32", {kNan}) == kNan);
  CHECK(f32_op("ex2.approx.f32", {kInf | 0x80000000u}) == 0);
  CHECK(f32_op("lg2.approx.f32", {bits(8.0f)}) == bits(3.0f));
}

TEST_CASE("half arithmetic") {
  const auto f16x2 = [](const std::string& op, uint32_t a, uint32_t b) {
    return constant(op + " %r0, " + std::to_string(a) + ", " + std::to_string(b) + ";");
  };
  CHECK(f16x2("add.f16x2", 0x3c003c00, 0x3c001000) == 0x40003c00);  // 1+1, 1+2^-11 (tie to even)
  CHECK(f16x2("add.f16x2", 0x3c007bff, 0x10017bff) == 0x3c017c00);  // above the tie, overflow
  CHECK(f16x2("mul.f16x2", 0x7bff0001, 0x40003800) == 0x7c000000);  // overflow; subnormal tie to 0
  CHECK(f16x2("max.f16x2", 0x80007e00, 0x00003c00) == 0x00003c00);  // -0 < +0; NaN loses
  CHECK(f16x2("max.NaN.f16x2", 0x80007e00, 0x00003c00) == 0x00007fff);
  CHECK(f16x2("mul.bf16x2", 0x40003f80, 0x40403f81) == 0x40c03f81);  // 2*3, 1*1.0078
  // fma rounds once: bf16 (1 + 2^-7)^2 - (1 + 2^-6) = 2^-14.
  CHECK(constant("fma.rn.bf16x2 %r0, 0x3f813f81, 0x3f813f81, 0xbf82bf82;") == 0x38803880);
  // A tie of the product broken by a tiny addend far below double precision.
  CHECK((constant("mov.b32 %r1, 0x00007180; mov.b32 %r2, 0x00003f81; fma.rn.bf16x2 %r0, %r1, %r2, "
                  "0x00000001;") &
         0xffff) == 0x7181);
  CHECK(constant("fma.rn.relu.f16x2 %r0, 0xbc003c00, 0x3c003c00, 0x00000000;") == 0x00003c00);
}

TEST_CASE("conversions at the corners") {
  const auto from_f32 = [](const std::string& to, float x) {
    const bool narrow = to.find("16.f32") != std::string::npos;
    const std::string load = "mov.b32 %f1, " + std::to_string(bits(x)) + ";\n";
    if (narrow)
      return constant(load + "cvt." + to + " %h1, %f1;\nmov.b16 %h2, 0;\nmov.b32 %r0, {%h1, %h2};");
    return constant(load + "cvt." + to + " %r0, %f1;");
  };
  CHECK(from_f32("rni.s32.f32", 2.5f) == 2);
  CHECK(from_f32("rni.s32.f32", 3.5f) == 4);
  CHECK(from_f32("rzi.s32.f32", -2.9f) == static_cast<uint32_t>(-2));
  CHECK(from_f32("rmi.s32.f32", -2.1f) == static_cast<uint32_t>(-3));
  CHECK(from_f32("rpi.s32.f32", 2.1f) == 3);
  CHECK(from_f32("rni.s32.f32", 3e9f) == 0x7fffffff);
  CHECK(from_f32("rni.u32.f32", -1.0f) == 0);
  CHECK(from_f32("rni.s32.f32", NAN) == 0);
  CHECK(from_f32("rni.s8.f32", -200.0f) == static_cast<uint32_t>(-128));
  CHECK(from_f32("rni.u8.f32", 300.0f) == 255);
  CHECK(from_f32("rn.f16.f32", 65519.0f) == 0x7bff);
  CHECK(from_f32("rn.f16.f32", 65520.0f) == 0x7c00);
  CHECK(from_f32("rz.f16.f32", 1e6f) == 0x7bff);
  CHECK(from_f32("rn.f16.f32", 0x1p-25f) == 0);  // half the smallest subnormal: tie to even
  CHECK(from_f32("rn.f16.f32", 0x1.8p-24f) == 2);
  CHECK(from_f32("rn.f16.f32", NAN) == 0x7fff);
  CHECK(from_f32("rn.bf16.f32", 1.00390625f) == 0x3f80);
  CHECK(from_f32("rn.bf16.f32", 1.01171875f) == 0x3f82);
  CHECK(constant(
            "mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0fC0000000; cvt.rn.f16x2.f32 %r0, %f1, %f2;") ==
        0x3c00c000);
  CHECK(constant("mov.b16 %h1, 0x0001; cvt.f32.f16 %f1, %h1; mov.b32 %r0, %f1;") == bits(0x1p-24f));
  CHECK(constant("mov.u32 %r1, 16777217; cvt.rn.f32.u32 %f1, %r1; mov.b32 %r0, %f1;") ==
        bits(16777216.0f));
  CHECK(constant("mov.u32 %r1, 16777217; cvt.rp.f32.u32 %f1, %r1; mov.b32 %r0, %f1;") ==
        bits(16777218.0f));
  CHECK(constant("mov.u64 %rd1, -1; cvt.rz.f32.u64 %f1, %rd1; mov.b32 %r0, %f1;") ==
        bits(0x1p64f) - 1);
  CHECK(constant("cvt.sat.u8.s32 %r0, -5;") == 0);
  CHECK(constant("cvt.s32.s8 %r0, 0x1ff;") == ~0u);
  CHECK(constant("cvt.pack.sat.s8.s32.b32 %r0, 200, -300, 0x1234;") == 0x12347f80);
  CHECK(constant("cvt.pack.sat.u16.s32 %r0, 70000, -1;") == 0xffff0000);
  CHECK(f32_op("cvt.sat.f32.f32", {bits(1.5f)}) == bits(1.0f));
  CHECK(f32_op("cvt.sat.f32.f32", {kNan}) == 0);
  CHECK(f32_op("cvt.rni.f32.f32", {bits(-2.5f)}) == bits(-2.0f));
}

TEST_CASE("comparisons, selection, predicates") {
  const Case cases[] = {
      {"setp.lt.s32 %p1, %r39, 10; selp.u32 %r0, 1, 2, %p1;",
       [](uint32_t l) { return l < 10 ? 1u : 2u; }},
      {"setp.lt.u32 %p1|%p2, %r39, 10; selp.u32 %r0, 1, 2, %p2;",
       [](uint32_t l) { return l < 10 ? 2u : 1u; }},
      {"setp.gt.u32 %p1, %r39, 4; setp.lt.and.u32 %p2|%p3, %r39, 10, %p1; selp.u32 %r1, 1, 0, %p2; "
       "selp.u32 %r2, 2, 0, %p3; or.b32 %r0, %r1, %r2;",
       [](uint32_t l) { return (l > 4 && l < 10 ? 1u : 0u) | (l > 4 && l >= 10 ? 2u : 0u); }},
      {"setp.gt.u32 %p1, %r39, 4; setp.lt.xor.u32 %p2, %r39, 10, !%p1; selp.u32 %r0, 1, 0, %p2;",
       [](uint32_t l) { return static_cast<uint32_t>((l < 10) != (l <= 4)); }},
      {"mov.f32 %f1, 0f7FC00000; setp.lt.f32 %p1, %f1, 0f00000000; setp.geu.f32 %p2, %f1, "
       "0f00000000; selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 2, 0, %p2; or.b32 %r0, %r1, %r2;",
       [](uint32_t) { return 2u; }},
      {"setp.lo.u32 %p1, %r39, 16; and.pred %p2, %p1, %p1; not.pred %p3, %p2; @%p3 mov.u32 %r0, 7; "
       "@!%p3 mov.u32 %r0, 8;",
       [](uint32_t l) { return l < 16 ? 8u : 7u; }},
      {"set.eq.u32.s32 %r0, %r39, 3;", [](uint32_t l) { return l == 3 ? ~0u : 0u; }},
      {"sub.s32 %r1, %r39, 5; slct.u32.s32 %r0, 1, 2, %r1;",
       [](uint32_t l) { return l >= 5 ? 1u : 2u; }},
  };
  for (const Case& c : cases) check(c);
}

TEST_CASE("packing and vectors") {
  const Case cases[] = {
      {"mov.b64 %rd3, {%r39, 7}; mov.b64 {%r1, %r2}, %rd3; shl.b32 %r1, %r1, 4; or.b32 %r0, %r1, "
       "%r2;",
       [](uint32_t l) { return l << 4 | 7; }},
      {"cvt.u16.u32 %h1, %r39; mov.b32 %r0, {%h1, %h1};", [](uint32_t l) { return l | l << 16; }},
      {"mov.b32 %r1, 0x12345678; mov.b32 {%h1, %h2}, %r1; cvt.u32.u16 %r0, %h2;",
       [](uint32_t) { return 0x1234u; }},
      {"{ .reg .b32 %r1; mov.u32 %r1, 5; { .reg .b32 t; add.u32 t, %r1, %r39; mov.u32 %r0, t; } }",
       [](uint32_t l) { return 5 + l; }},
  };
  for (const Case& c : cases) check(c);
}

TEST_CASE("warp collectives") {
  const Case cases[] = {
      {"shfl.sync.bfly.b32 %r0, %r39, 5, 31, -1;", [](uint32_t l) { return l ^ 5; }},
      {"shfl.sync.up.b32 %r0|%p1, %r39, 3, 0, -1; selp.u32 %r1, 100, 0, %p1; add.u32 %r0, %r0, "
       "%r1;",
       [](uint32_t l) { return l < 3 ? l : l - 3 + 100; }},
      {"shfl.sync.down.b32 %r0, %r39, 3, 31, -1;",
       [](uint32_t l) { return l + 3 > 31 ? l : l + 3; }},
      {"shfl.sync.idx.b32 %r0, %r39, 2, 0x181f, -1;",
       [](uint32_t l) { return l / 8 * 8 + 2; }},  // segments of 8
      {"setp.lt.u32 %p1, %r39, 5; vote.sync.ballot.b32 %r0, %p1, -1;",
       [](uint32_t) { return 31u; }},
      {"setp.lt.u32 %p1, %r39, 5; vote.sync.any.pred %p2, %p1, -1; vote.sync.all.pred %p3, %p1, "
       "-1; selp.u32 %r1, 1, 0, %p2; selp.u32 %r0, 2, %r1, %p3;",
       [](uint32_t) { return 1u; }},
      {"and.b32 %r1, %r39, 3; match.any.sync.b32 %r0, %r1, -1;",
       [](uint32_t l) { return 0x11111111u << (l & 3); }},
      {"redux.sync.add.u32 %r0, %r39, -1;", [](uint32_t) { return 496u; }},
      {"sub.s32 %r1, %r39, 7; redux.sync.min.s32 %r0, %r1, -1;",
       [](uint32_t) { return static_cast<uint32_t>(-7); }},
      {"elect.sync %r1|%p1, -1; selp.u32 %r0, 1, 0, %p1;",
       [](uint32_t l) { return l == 0 ? 1u : 0u; }},
      {"setp.ge.u32 %p1, %r39, 8; mov.u32 %r0, 0; @!%p1 bra S; activemask.b32 %r0; S:",
       [](uint32_t l) { return l < 8 ? 0u : 0xffffff00u; }},
  };
  for (const Case& c : cases) check(c);
}

TEST_CASE("divergence and reconvergence") {
  const Case cases[] = {
      // Nested branches rejoin before the collective.
      {"setp.lt.u32 %p1, %r39, 16; mov.u32 %r1, 1; @!%p1 bra ELSE; setp.lt.u32 %p2, %r39, 4; @%p2 "
       "bra IN; add.u32 %r1, %r1, 10; bra JOIN; IN: add.u32 %r1, %r1, 20; bra JOIN; ELSE: add.u32 "
       "%r1, %r1, 30; JOIN: redux.sync.add.u32 %r0, %r1, -1;",
       [](uint32_t) { return 32u + 12 * 10 + 4 * 20 + 16 * 30; }},
      // Lanes leave a loop one by one and wait behind it.
      {"mov.u32 %r1, 0; L: add.u32 %r1, %r1, 1; setp.le.u32 %p1, %r1, %r39; @%p1 bra L; "
       "redux.sync.add.u32 %r0, %r1, -1;",
       [](uint32_t) { return 32u * 33 / 2; }},
      // A cold block placed behind the return does not delay nor split the rest.
      {"mov.u32 %r1, 0; setp.eq.u32 %p1, %r39, 9; @%p1 bra COLD; BACK: redux.sync.add.u32 %r0, "
       "%r1, -1; bra OUT; COLD: mov.u32 %r1, 5; bra BACK; OUT:",
       [](uint32_t) { return 5u; }},
      // Nested loops with different trip counts, an exit of both from the inner one.
      {"mov.u32 %r1, 0; mov.u32 %r2, 0; OUTER: mov.u32 %r3, 0; INNER: add.u32 %r1, %r1, 1; "
       "setp.ge.u32 %p3, %r1, 40; @%p3 bra DONE; add.u32 %r3, %r3, 1; setp.lt.u32 %p1, %r3, %r39; "
       "@%p1 bra INNER; add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, 3; @%p2 bra OUTER; DONE: "
       "redux.sync.add.u32 %r0, %r1, -1;",
       [](uint32_t) {
         uint32_t sum = 0;
         for (uint32_t l = 0; l < 32; ++l) sum += std::min(3 * std::max(l, 1u), 40u);
         return sum;
       }},
      // brx.idx: four ways at once.
      {"and.b32 %r1, %r39, 3; T: .branchtargets A, B, C, B; brx.idx %r1, T; A: mov.u32 %r0, 10; "
       "bra E; B: mov.u32 %r0, 20; bra E; C: mov.u32 %r0, 30; E: bar.warp.sync -1;",
       [](uint32_t l) { return l % 4 == 0 ? 10u : (l % 4 == 2 ? 30u : 20u); }},
  };
  for (const Case& c : cases) check(c);
}

TEST_CASE("barriers across warps") {
  // Counts, votes and named barriers over 64 threads.
  const auto all = [](const std::string& body) { return run_lanes(body, 64); };
  CHECK(all("setp.lt.u32 %p1, %r39, 40; bar.red.popc.u32 %r0, 0, %p1;") ==
        std::vector<uint32_t>(64, 40));
  CHECK(all("setp.lt.u32 %p1, %r39, 40; barrier.cta.red.and.aligned.pred %p2, 0, %p1; selp.u32 "
            "%r0, 1, 0, %p2;") == std::vector<uint32_t>(64, 0));
  CHECK(all("setp.eq.u32 %p1, %r39, 63; bar.red.or.pred %p2, 1, %p1; selp.u32 %r0, 1, 0, %p2;") ==
        std::vector<uint32_t>(64, 1));
  // Lanes of one warp may reach an unaligned barrier at different places.
  CHECK(all("mov.u32 %r0, 3; setp.eq.u32 %p1, %r39, 5; @%p1 bra X; barrier.sync 2; bra Y; X: "
            "barrier.sync 2; Y:") == std::vector<uint32_t>(64, 3));
}

TEST_CASE("memory spaces and addressing") {
  const std::string scope =
      ".const .align 4 .u32 table[4] = {11, 22, 33, 44};\n.global .align 4 .u32 counter = "
      "100;\n.extern .shared .align 16 .b8 dyn[];\n";
  std::vector<uint32_t> out(64, 0);
  const MemoryRange memory[] = {range(out, "out")};
  const auto run_kernel = [&](const std::string& body) {
    std::fill(out.begin(), out.end(), 0);
    const std::string text = kernel_text("u64 out, u32 n, b8 s[12]",
                                         "ld.param.u64 %rd0, [out]; mov.u32 %r39, %tid.x; "
                                         "mul.wide.u32 %rd1, %r39, 4; add.u64 %rd0, %rd0, %rd1;\n" +
                                             body + "\nst.global.u32 [%rd0], %r0;",
                                         scope);
    struct {
      uint32_t* p;
      uint32_t n;
      uint8_t s[12];
    } raw{out.data(), 77, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}};
    run_text(text, {1, 64, 256}, Params(raw.p, raw.n, raw.s), memory);
    return out;
  };
  CHECK(run_kernel("mov.u64 %rd3, table; ld.const.u32 %r0, [%rd3+8];")[5] == 33);
  CHECK(run_kernel("ld.const.u32 %r0, [table+4];")[5] == 22);
  CHECK(run_kernel("ld.param.u32 %r0, [n];")[0] == 77);
  CHECK(run_kernel("ld.param.u16 %h1, [s+2]; cvt.u32.u16 %r0, %h1;")[0] == 0x0403);
  CHECK(run_kernel("mov.b64 %rd3, s; cvta.param.u64 %rd3, %rd3; ld.u8 %r0, [%rd3+11];")[0] == 12);
  // Atomics return distinct old values; the variable starts from its initialiser in every launch.
  for (int i = 0; i < 2; ++i) {
    std::vector<uint32_t> old =
        run_kernel("mov.u64 %rd3, counter; atom.global.add.u32 %r0, [%rd3], 1;");
    std::sort(old.begin(), old.end());
    CHECK(old.front() == 100);
    CHECK(old.back() == 163);
  }
  // Generic addresses of shared and local memory; lanes may point to different spaces at once.
  const std::string own =
      ".local .align 8 .b8 l[8]; mov.u64 %rd4, l; cvta.local.u64 %rd4, %rd4; mov.u64 %rd5, dyn; "
      "add.u64 %rd5, %rd5, %rd1; cvta.shared.u64 %rd5, %rd5;\n";
  CHECK(run_kernel(own + "setp.lt.u32 %p1, %r39, 10; selp.b64 %rd6, %rd4, %rd5, %p1; st.u32 "
                         "[%rd6], %r39; ld.u32 %r0, [%rd6];")[33] == 33);
  CHECK(run_kernel(own + "isspacep.shared %p1, %rd5; isspacep.global %p2, %rd0; and.pred %p3, %p1, "
                         "%p2; selp.u32 %r0, 1, 0, %p3;")[0] == 1);
  CHECK(run_kernel("mov.u32 %r1, dyn; mad.lo.u32 %r1, %r39, 4, %r1; st.shared.u32 [%r1], -2; "
                   "ld.shared.s8 %r0, [%r1];")[0] == static_cast<uint32_t>(-2));
  CHECK(run_kernel("mov.u32 %r0, %dynamic_smem_size;")[0] == 256);
}

TEST_CASE("asynchronous copies fill with zeros behind the source size") {
  const std::string text = kernel_text(
      "u64 out",
      "ld.param.u64 %rd0, [out];\n.shared .align 16 .b8 s[16];\nmov.u32 %r1, s;\nmov.u64 %rd1, g;\n"
      "cp.async.cg.shared.global.L2::128B [%r1], [%rd1], 16, 6;\ncp.async.wait_all;\n"
      "ld.shared.v4.u32 {%r2,%r3,%r4,%r5}, [%r1];\nst.global.v4.u32 [%rd0], {%r2,%r3,%r4,%r5};",
      ".global .align 16 .u32 g[4] = {0x11111111, 0x22222222, 3, 4};");
  alignas(16) static uint32_t out[4];
  const MemoryRange memory[] = {{reinterpret_cast<uint64_t>(out), sizeof(out), true, "out"}};
  run_text(text, {1, 1}, Params(&out[0]), memory);
  CHECK(out[0] == 0x11111111);
  CHECK(out[1] == 0x2222);
  CHECK(out[2] == 0);
  CHECK(out[3] == 0);
}

TEST_CASE("what is outside the subset is refused with its line") {
  const auto refuses = [](const std::string& text, ErrorKind kind, uint32_t line,
                          const std::string& says) {
    try {
      Program::parse(text);
      FAIL("accepted: " << text);
    } catch (const Error& e) {
      INFO(e.what());
      CHECK(e.kind() == kind);
      CHECK(e.line() == line);
      CHECK(std::string(e.what()).find(says) != std::string::npos);
    }
  };
  const auto body = [](const std::string& b) { return kernel_text("u64 a", "\n" + b); };
  refuses(body("frobnicate.u32 %r0, %r1;"), ErrorKind::kUnsupported, 9,
          "unsupported instruction 'frobnicate.u32' at line 9; no form of 'frobnicate' is known");
  refuses(body("add.u128 %r0, %r1, %r2;"), ErrorKind::kUnsupported, 9,
          "the forms known are: add.$int");
  refuses(body("add.u32 %r0, %r1;"), ErrorKind::kParse, 9, "needs more operands");
  refuses(body("add.u32 %r0, %r1, %r2, %r3;"), ErrorKind::kParse, 9, "too many operands");
  refuses(body("add.u32 %r0, %rd1, %r2;"), ErrorKind::kParse, 9,
          "'%rd1' has 64 bits, the instruction wants 32 (u32)");
  refuses(body("add.u32 %r0, %r1, %r99;"), ErrorKind::kParse, 9,
          "neither declared nor a known special register");
  refuses(body("add.f32 %f0, %f1, 1;"), ErrorKind::kParse, 9,
          "an integer constant where a float is expected");
  refuses(body("bra NOWHERE;"), ErrorKind::kParse, 9, "label 'NOWHERE' is not defined");
  refuses(body("cp.async.cg.shared.global [%r0], [%rd0], 8;"), ErrorKind::kUnsupported, 9,
          "unsupported instruction");
  refuses(body(".reg .b32 %r1; .reg .b32 %q; .reg .b32 %q;"), ErrorKind::kParse, 9,
          "declared twice");
  refuses(".version 8.0\n.target sm_90\n.address_size 64\n.func f() { ret; }\n",
          ErrorKind::kUnsupported, 4, "directive '.func'");
  refuses("", ErrorKind::kParse, 1, "not a PTX module");
}

TEST_CASE("kernels() describes the entries") {
  const Program program = Program::parse(
      ".version 8.4\n.target sm_89\n.address_size 64\n.shared .align 4 .b8 pad[20];\n"
      ".visible .entry one(.param .u32 n, .param .align 16 .b8 s[24], .param .u64 .ptr .global "
      ".align 4 p)\n"
      ".maxntid 128, 1, 1\n.minnctapersm 2\n{ .shared .align 16 .b8 t[100]; ret; }\n"
      ".entry two()\n.reqntid 64\n{ ret; }\n");
  REQUIRE(program.kernels().size() == 2);
  const KernelInfo& k = program.kernels()[0];
  CHECK(k.name == "one");
  REQUIRE(k.params.size() == 3);
  CHECK(k.params[1].offset == 16);
  CHECK(k.params[1].bytes == 24);
  CHECK(k.params[2].offset == 40);
  CHECK(k.params[2].type == "u64");
  CHECK(k.param_bytes == 48);
  CHECK(k.max_ntid == Index3{128, 1, 1});
  CHECK(k.static_shared_bytes == 132);
  CHECK(k.target == "sm_89");
  CHECK(k.version == "8.4");
  CHECK(program.kernels()[1].req_ntid == Index3{64, 1, 1});
}
