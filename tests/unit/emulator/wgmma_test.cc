// wgmma against plain loops over matrices: types, shapes, layouts in shared memory, A in registers.
//
// Layouts are written out here from the PTX ISA, separately from the emulator's. Values are small
// multiples of powers of two, so that every sum is exact in every type.
#include <cmath>
#include <random>

#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

enum class Layout { kPlain, kSwizzle32, kSwizzle64, kSwizzle128, kMnPlain, kMn32, kMn64, kMn128 };

struct Placement {
  unsigned lbo = 0, sbo = 0;  // bytes
  unsigned swizzle = 0;       // descriptor field
  unsigned bytes = 0;         // of the whole operand
};

// Strides for an operand of `rows` rows (M or N), 32 bytes along K; unequal on purpose where both
// count.
Placement place(Layout layout, unsigned rows) {
  switch (layout) {
    case Layout::kPlain:
      return {rows * 16 + 128, 128, 0, 2 * (rows * 16 + 128)};
    case Layout::kSwizzle32:
      return {16, 256, 3, rows * 32};
    case Layout::kSwizzle64:
      return {16, 512, 2, rows * 64};
    case Layout::kSwizzle128:
      return {16, 1024, 1, rows * 128};
    case Layout::kMnPlain:  // blocks of 8 rows and 8 k
      return {128, 384, 0, rows / 8 * 384};
    case Layout::kMn32:  // 16 rows wide
      return {512, 256, 3, (rows + 15) / 16 * 512};
    case Layout::kMn64:
      return {1024, 512, 2, (rows + 31) / 32 * 1024};
    case Layout::kMn128:
      return {2048, 1024, 1, (rows + 63) / 64 * 2048};
  }
  return {};
}

// Byte offset of element (row, k) of `size` bytes.
unsigned offset_of(Layout layout, const Placement& p, unsigned row, unsigned k, unsigned size) {
  const unsigned byte = k * size, chunk = byte / 16, in = byte % 16;
  const unsigned r = row % 8;
  switch (layout) {
    case Layout::kPlain:
      return row / 8 * p.sbo + chunk * p.lbo + r * 16 + in;
    case Layout::kSwizzle32:
      return row / 8 * p.sbo + r * 32 + (chunk ^ r / 4) * 16 + in;
    case Layout::kSwizzle64:
      return row / 8 * p.sbo + r * 64 + (chunk ^ r / 2) * 16 + in;
    case Layout::kSwizzle128:
      return row / 8 * p.sbo + r * 128 + (chunk ^ r) * 16 + in;
    default:
      break;
  }
  // MN-major: 16-bit elements, rows contiguous; k % 8 is the row of the swizzle pattern.
  const unsigned q = k % 8, unit = row / 8, at = r * 2;
  switch (layout) {
    case Layout::kMnPlain:
      return unit * p.sbo + k / 8 * p.lbo + q * 16 + at;
    case Layout::kMn32:
      return row / 16 * p.lbo + k / 8 * p.sbo + q * 32 + (unit % 2 ^ q / 4) * 16 + at;
    case Layout::kMn64:
      return row / 32 * p.lbo + k / 8 * p.sbo + q * 64 + (unit % 4 ^ q / 2) * 16 + at;
    default:
      return row / 64 * p.lbo + k / 8 * p.sbo + q * 128 + (unit % 8 ^ q) * 16 + at;
  }
}

struct Element {
  std::string name;
  unsigned bytes;
  // Random bits of a small value, and their value.
  uint32_t (*draw)(std::mt19937&);
  double (*value)(uint32_t);
};

double float8(uint32_t bits, int mantissa, int bias) {
  const int e = static_cast<int>(bits & 0x7f) >> mantissa;
  const double m = bits & ((1u << mantissa) - 1);
  const double one = 1 << mantissa;
  const double v = e == 0 ? std::ldexp(m / one, 1 - bias) : std::ldexp(1 + m / one, e - bias);
  return (bits & 0x80) != 0 ? -v : v;
}
double half(uint32_t bits) {
  const int e = static_cast<int>(bits >> 10 & 31);
  const double v = e == 0 ? std::ldexp(bits & 1023, -24) : std::ldexp(1024 + (bits & 1023), e - 25);
  return (bits & 0x8000) != 0 ? -v : v;
}
double brain(uint32_t bits) {
  return std::bit_cast<float>(bits << 16);
}

const Element kS8{"s8", 1, [](std::mt19937& r) { return static_cast<uint32_t>(r() & 0xff); },
                  [](uint32_t b) { return double{static_cast<double>(static_cast<int8_t>(b))}; }};
const Element kU8{"u8", 1, [](std::mt19937& r) { return static_cast<uint32_t>(r() & 0xff); },
                  [](uint32_t b) { return static_cast<double>(b); }};
// 8-bit floats in +-[1, 4) with two bits behind the point: sums have at most 13
// (float8_sum_test.cc).
const Element kE4M3{
    "e4m3", 1,
    [](std::mt19937& r) {
      return static_cast<uint32_t>((r() & 0x80) | ((7 + r() % 2) << 3) | (r() % 4) << 1);
    },
    [](uint32_t b) { return float8(b, 3, 7); }};
const Element kE5M2{"e5m2", 1,
                    [](std::mt19937& r) {
                      return static_cast<uint32_t>((r() & 0x80) | ((15 + r() % 2) << 2) | r() % 4);
                    },
                    [](uint32_t b) { return float8(b, 2, 15); }};
const Element kF16{
    "f16", 2,
    [](std::mt19937& r) {
      return static_cast<uint32_t>((r() & 0x8000) | ((14 + r() % 3) << 10) | (r() % 8) << 7);
    },
    half};
const Element kBF16{
    "bf16", 2,
    [](std::mt19937& r) {
      return static_cast<uint32_t>((r() & 0x8000) | ((126 + r() % 3) << 7) | (r() % 8) << 4);
    },
    brain};

struct Case {
  unsigned n;
  Element a, b;
  std::string d;  // "s32", "f32", "f16"
  Layout layout_a = Layout::kPlain, layout_b = Layout::kPlain;
  bool a_in_registers = false;
  bool scale_d = true;
  int scale_a = 1, scale_b = 1;
  std::string satfinite = "";
  AsyncOrder order = AsyncOrder::kLate;
};

bool is_mn(Layout l) {
  return l >= Layout::kMnPlain;
}

struct Problem {
  std::vector<uint32_t> a, b;       // element bits, [64][k], [n][k]
  std::vector<double> c, expected;  // [64][n]
  std::vector<uint8_t> shared_a, shared_b;
  std::vector<uint32_t> registers;  // of A: [thread][4]
  std::vector<uint32_t> in, out;    // of D: [thread][register]
};

unsigned num_k(const Case& c) {
  return 32 / c.a.bytes;
}
unsigned num_d(const Case& c) {
  return c.d == "f16" ? c.n / 4 : c.n / 2;
}

std::string replace_all(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

std::string list(const std::string& prefix, unsigned count) {
  std::string s = "{";
  for (unsigned i = 0; i < count; ++i) s += (i != 0 ? ", " : "") + prefix + std::to_string(i);
  return s + "}";
}

std::string opcode(const Case& c) {
  const std::string shape = "m64n" + std::to_string(c.n) + "k" + std::to_string(num_k(c));
  return "wgmma.mma_async.sync.aligned." + shape + c.satfinite + "." + c.d + "." + c.a.name + "." +
         c.b.name;
}

std::string immediates(const Case& c) {
  if (c.d == "s32") return "";
  std::string s = ", " + std::to_string(c.scale_a) + ", " + std::to_string(c.scale_b);
  if (c.a.bytes == 1) return s;
  if (!c.a_in_registers) s += is_mn(c.layout_a) ? ", 1" : ", 0";
  return s + (is_mn(c.layout_b) ? ", 1" : ", 0");
}

uint64_t descriptor_of(const Placement& p) {
  return uint64_t{p.lbo / 16} << 16 | uint64_t{p.sbo / 16} << 32 | uint64_t{p.swizzle} << 62;
}

// One warpgroup: operands to shared memory, D from memory, one wgmma, D to memory.
std::string kernel(const Case& c, const Placement& pa, const Placement& pb) {
  const unsigned d = num_d(c);
  std::string s =
      ".reg .b32 %d<128>; .reg .b32 %a<4>;\n"
      "ld.param.u64 %rd0, [a]; ld.param.u64 %rd1, [b]; ld.param.u64 %rd2, [ra];\n"
      "ld.param.u64 %rd3, [in]; ld.param.u64 %rd4, [out]; mov.u32 %r0, %tid.x; mov.u32 %r1, s;\n";
  // Thread t copies words t, t + 128, ... of both operands; B begins 32 KiB behind A.
  const auto copy = [&](const char* from, unsigned to, unsigned words, const char* label) {
    const std::string l = label;
    s += "mov.u32 %r2, %r0;\n" + l + ":\nsetp.ge.u32 %p0, %r2, " + std::to_string(words) +
         ";\n@%p0 bra " + l + "_END;\nmul.wide.u32 %rd5, %r2, 4; add.u64 %rd5, %rd5, " + from +
         ";\nld.global.u32 %r3, [%rd5]; shl.b32 %r4, %r2, 2; add.u32 %r4, %r4, %r1;\n"
         "st.shared.u32 [%r4+" +
         std::to_string(to) + "], %r3; add.u32 %r2, %r2, 128; bra " + l + ";\n" + l + "_END:\n";
  };
  copy("%rd0", 0, pa.bytes / 4, "COPY_A");
  copy("%rd1", 32768, pb.bytes / 4, "COPY_B");
  s += "fence.proxy.async.shared::cta;\nbar.sync 0;\nmul.wide.u32 %rd5, %r0, 16; add.u64 %rd5, "
       "%rd5, %rd2;\nld.global.v4.u32 {%a0,%a1,%a2,%a3}, [%rd5];\nmul.wide.u32 %rd5, %r0, " +
       std::to_string(4 * d) + ";\nadd.u64 %rd3, %rd3, %rd5; add.u64 %rd4, %rd4, %rd5;\n";
  for (unsigned i = 0; i < d; ++i) {
    s += "ld.global.u32 %d" + std::to_string(i) + ", [%rd3+" + std::to_string(4 * i) + "];\n";
  }
  s += "shr.u32 %r5, %r1, 4; cvt.u64.u32 %rd6, %r5; or.b64 %rd7, %rd6, " +
       std::to_string(descriptor_of(pa)) + ";\nadd.u64 %rd6, %rd6, 2048; or.b64 %rd8, %rd6, " +
       std::to_string(descriptor_of(pb)) + ";\nwgmma.fence.sync.aligned;\nsetp.ne.b32 %p1, " +
       (c.scale_d ? "1" : "0") + ", 0;\n" + opcode(c) + " " + list("%d", d) + ", " +
       (c.a_in_registers ? list("%a", 4) : "%rd7") + ", %rd8, %p1" + immediates(c) +
       ";\nwgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n";
  for (unsigned i = 0; i < d; ++i) {
    s += "st.global.u32 [%rd4+" + std::to_string(4 * i) + "], %d" + std::to_string(i) + ";\n";
  }
  return kernel_text("u64 a, u64 b, u64 ra, u64 in, u64 out", s,
                     ".extern .shared .align 1024 .b8 s[];");
}

// Row and column of register r, half h (16-bit D) of a thread: PTX ISA, "Matrix fragments for
// wgmma.mma_async.m64nNk32".
struct At {
  unsigned row, column;
};
At place_d(unsigned thread, unsigned i) {  // i: d_i of the fragment in elements
  const unsigned warp = thread / 32, lane = thread % 32;
  return {16 * warp + lane / 4 + (i % 4 < 2 ? 0 : 8), i / 4 * 8 + lane % 4 * 2 + i % 2};
}

Problem make(const Case& c, const Placement& pa, const Placement& pb) {
  std::mt19937 random(c.n * 7 + c.a.bytes);
  const unsigned k = num_k(c), per = 4 / c.a.bytes;
  Problem p;
  p.a.resize(64 * k);
  p.b.resize(c.n * k);
  for (uint32_t& x : p.a) x = c.a.draw(random);
  for (uint32_t& x : p.b) x = c.b.draw(random);
  p.shared_a.resize(pa.bytes);
  p.shared_b.resize(pb.bytes);
  const auto spread = [&](const std::vector<uint32_t>& from, unsigned rows, Layout layout,
                          const Placement& at, std::vector<uint8_t>& to) {
    for (unsigned r = 0; r < rows; ++r) {
      for (unsigned i = 0; i < k; ++i)
        std::memcpy(&to.at(offset_of(layout, at, r, i, c.a.bytes)), &from[r * k + i], c.a.bytes);
    }
  };
  spread(p.a, 64, c.layout_a, pa, p.shared_a);
  spread(p.b, c.n, c.layout_b, pb, p.shared_b);
  p.registers.resize(128 * 4);
  for (unsigned t = 0; t < 128; ++t) {
    for (unsigned i = 0; i < 4 * per; ++i) {
      // ISA: rows by pairs of registers' halves, columns by thread in quad.
      const unsigned lane = t % 32, reg = i / per;
      const unsigned row = t / 32 * 16 + lane / 4 + (reg % 2 == 0 ? 0 : 8);
      const unsigned column = lane % 4 * per + i % per + (reg >= 2 ? k / 2 : 0);
      p.registers[t * 4 + reg] |= p.a[row * k + column] << 8 * c.a.bytes * (i % per);
    }
  }
  return p;
}

uint32_t encode(const std::string& type, double x) {
  if (type == "s32") return static_cast<uint32_t>(static_cast<int64_t>(x));
  if (type == "f32") return std::bit_cast<uint32_t>(static_cast<float>(x));
  // f16, exactly representable: integers times a power of two.
  if (x == 0) return 0;
  int e = 0;
  const double m = std::frexp(std::abs(x), &e);  // [0.5, 1)
  return (x < 0 ? 0x8000u : 0u) | static_cast<uint32_t>(e + 14) << 10 |
         static_cast<uint32_t>(m * 2048 - 1024);
}

void set_d(const Case& c, Problem& p, std::mt19937& random) {
  const unsigned d = num_d(c);
  p.in.assign(128 * d, 0);
  p.out.assign(128 * d, 0xdeadbeef);
  p.c.resize(64 * c.n);
  for (double& x : p.c) x = static_cast<double>(random() % 9) - 4;
  if (!c.satfinite.empty()) {
    for (double& x : p.c) x += x > 0 ? 2147483600.0 : -2147483600.0;
  }
  const unsigned halves = c.d == "f16" ? 2 : 1;
  for (unsigned t = 0; t < 128; ++t) {
    for (unsigned i = 0; i < d * halves; ++i) {
      const At at = place_d(t, i);
      const uint32_t bits = encode(c.d, p.c[at.row * c.n + at.column]);
      p.in[t * d + i / halves] |= bits << 16 * (i % halves);
    }
  }
}

double expected(const Case& c, const Problem& p, unsigned row, unsigned column) {
  const unsigned k = num_k(c);
  double sum = 0;
  for (unsigned i = 0; i < k; ++i)
    sum += c.a.value(p.a[row * k + i]) * c.b.value(p.b[column * k + i]);
  const double x = (c.scale_d ? p.c[row * c.n + column] : 0) + c.scale_a * c.scale_b * sum;
  if (c.satfinite.empty()) return x;
  return std::min(std::max(x, -2147483648.0), 2147483647.0);
}

void check(const Case& c) {
  const Placement pa = place(c.layout_a, 64), pb = place(c.layout_b, c.n);
  Problem p = make(c, pa, pb);
  std::mt19937 random(5);
  set_d(c, p, random);
  const std::string text = replace_all(kernel(c, pa, pb), ".target sm_90\n", ".target sm_90a\n");
  const MemoryRange memory[] = {range(p.shared_a, "a", false), range(p.shared_b, "b", false),
                                range(p.registers, "ra", false), range(p.in, "in", false),
                                range(p.out, "out")};
  Options options;
  options.async = c.order;
  INFO(opcode(c) << " layouts " << static_cast<int>(c.layout_a) << ", "
                 << static_cast<int>(c.layout_b) << " registers " << c.a_in_registers);
  const Report report =
      run_text(text, {1, 128, 32768 + 65536},
               Params(p.shared_a, p.shared_b, p.registers, p.in, p.out), memory, options);
  CHECK(report.wgmma == 1);
  const unsigned d = num_d(c), halves = c.d == "f16" ? 2 : 1;
  for (unsigned t = 0; t < 128; ++t) {
    for (unsigned i = 0; i < d * halves; ++i) {
      const At at = place_d(t, i);
      uint32_t got = p.out[t * d + i / halves];
      if (halves == 2) got = got >> 16 * (i % 2) & 0xffff;
      const double x = expected(c, p, at.row, at.column);
      if (halves == 2) {
        // A sum may have more bits than f16: nearest-even.
        const double scale = std::ldexp(1, x == 0 ? -24 : std::max(-24, std::ilogb(x) - 10));
        const double r = std::nearbyint(x / scale) * scale;
        INFO("thread " << t << " element " << i);
        REQUIRE(half(got) == r);
      } else {
        INFO("thread " << t << " element " << i);
        REQUIRE(got == encode(c.d, x));
      }
    }
  }
}

}  // namespace

TEST_CASE("wgmma: types") {
  const unsigned n = 64;
  for (const Element& a : {kS8, kU8}) {
    for (const Element& b : {kS8, kU8}) check({n, a, b, "s32"});
  }
  for (const Element& a : {kE4M3, kE5M2}) {
    for (const Element& b : {kE4M3, kE5M2}) {
      check({n, a, b, "f32"});
      check({n, a, b, "f16"});
    }
  }
  check({n, kF16, kF16, "f32"});
  check({n, kF16, kF16, "f16"});
  check({n, kBF16, kBF16, "f32"});
}

TEST_CASE("wgmma: every N") {
  for (unsigned n = 8; n <= 256; n += 8) {
    check({n, kE4M3, kE4M3, "f32"});
    check({n, kF16, kF16, "f16"});
    if (n <= 32 || n % 16 == 0) check({n, kS8, kS8, "s32"});
  }
  CHECK_THROWS_AS(check({40, kS8, kS8, "s32"}), Error);
}

TEST_CASE("wgmma: layouts in shared memory") {
  for (Layout a : {Layout::kPlain, Layout::kSwizzle32, Layout::kSwizzle64, Layout::kSwizzle128}) {
    for (Layout b : {Layout::kPlain, Layout::kSwizzle32, Layout::kSwizzle64, Layout::kSwizzle128}) {
      check({.n = 96, .a = kS8, .b = kS8, .d = "s32", .layout_a = a, .layout_b = b});
    }
  }
  const Layout all[] = {Layout::kPlain,      Layout::kSwizzle32, Layout::kSwizzle64,
                        Layout::kSwizzle128, Layout::kMnPlain,   Layout::kMn32,
                        Layout::kMn64,       Layout::kMn128};
  for (Layout a : all) {
    for (Layout b : all) {
      check({.n = 128, .a = kF16, .b = kF16, .d = "f32", .layout_a = a, .layout_b = b});
    }
  }
}

TEST_CASE("wgmma: A in registers") {
  for (Layout b : {Layout::kPlain, Layout::kSwizzle128}) {
    check({.n = 128, .a = kU8, .b = kS8, .d = "s32", .layout_b = b, .a_in_registers = true});
    check({.n = 128, .a = kE4M3, .b = kE5M2, .d = "f32", .layout_b = b, .a_in_registers = true});
  }
  check({.n = 128,
         .a = kF16,
         .b = kF16,
         .d = "f32",
         .layout_b = Layout::kMnPlain,
         .a_in_registers = true});
  check({.n = 64,
         .a = kBF16,
         .b = kBF16,
         .d = "f32",
         .layout_b = Layout::kMn128,
         .a_in_registers = true});
}

TEST_CASE("wgmma: scales, saturation, and when it happens") {
  check({.n = 32, .a = kS8, .b = kS8, .d = "s32", .scale_d = false});
  check({.n = 32, .a = kF16, .b = kF16, .d = "f32", .scale_d = false, .scale_a = -1});
  check({.n = 32, .a = kE4M3, .b = kE4M3, .d = "f32", .scale_b = -1});
  check({.n = 32, .a = kF16, .b = kF16, .d = "f16", .scale_a = -1, .scale_b = -1});
  check({.n = 32, .a = kS8, .b = kS8, .d = "s32", .satfinite = ".satfinite"});
  for (AsyncOrder order : {AsyncOrder::kEarly, AsyncOrder::kRandom}) {
    check({.n = 32, .a = kS8, .b = kS8, .d = "s32", .order = order});
  }
}
