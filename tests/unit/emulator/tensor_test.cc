// Tensor copies: boxes, bounds, swizzles, both directions; what is refused.
#include "runtime/device/emulator/tensor_map.h"
#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

// The map as a kernel parameter: 64-byte aligned, 128 bytes.
struct alignas(64) MapParam {
  TensorMapBytes bytes;
};

// Loads one box at coordinates {c0, c1, ...} and copies its `bytes` from shared memory to `out`; or
// fills shared memory from `in` and stores the box.
std::string kernel(unsigned rank, const std::string& coordinates, unsigned bytes, bool store) {
  const std::string r = std::to_string(rank), words = std::to_string(bytes / 4);
  std::string s =
      ".version 8.0\n.target sm_90a\n.address_size 64\n.shared .align 1024 .b8 "
      "box[65536];\n.shared "
      ".align 8 .b8 bar[8];\n.visible .entry k(.param .align 64 .b8 map[128], .param .u64 "
      "plain)\n{\n"
      ".reg .pred %p<4>; .reg .b32 %r<12>; .reg .b64 %rd<8>;\n"
      "mov.b64 %rd0, map; cvta.param.u64 %rd1, %rd0; ld.param.u64 %rd2, [plain];\n"
      "mov.u32 %r0, %tid.x; setp.eq.u32 %p0, %r0, 0; mov.u32 %r1, box; mov.u32 %r2, bar;\n"
      "@%p0 mbarrier.init.shared::cta.b64 [%r2], 1;\n@%p0 fence.mbarrier_init.release.cluster;\n"
      "@%p0 prefetch.tensormap [%rd1];\nbar.sync 0;\n";
  const std::string loop =
      "mov.u32 %r3, %r0;\nL:\nmul.wide.u32 %rd3, %r3, 4; add.u64 %rd3, %rd3, %rd2;\n"
      "shl.b32 %r4, %r3, 2; add.u32 %r4, %r4, %r1;\n";
  const std::string next =
      "add.u32 %r3, %r3, 32; setp.lt.u32 %p1, %r3, " + words + ";\n@%p1 bra L;\n";
  if (store) {
    return s + loop + "ld.global.u32 %r5, [%rd3]; st.shared.u32 [%r4], %r5;\n" + next +
           "fence.proxy.async;\nbar.sync 0;\n@%p0 cp.async.bulk.tensor." + r +
           "d.global.shared::cta.tile.bulk_group [%rd1, {" + coordinates +
           "}], [%r1];\n@%p0 cp.async.bulk.commit_group;\n@%p0 cp.async.bulk.wait_group "
           "0;\nret;\n}\n";
  }
  return s + "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], " + std::to_string(bytes) +
         ";\n@%p0 cp.async.bulk.tensor." + r +
         "d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, {" +
         coordinates +
         "}], [%r2];\n{\n.reg .pred p;\nW:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%r2], 0;\n"
         "@!p bra W;\n}\n" +
         loop + "ld.shared.u32 %r5, [%r4]; st.global.u32 [%rd3], %r5;\n" + next + "ret;\n}\n";
}

struct Copy {
  TensorMap map;
  std::vector<int64_t> at;
};

unsigned box_bytes(const TensorMap& m) {
  unsigned bytes = m.element_bytes;
  for (uint32_t i = 0; i < m.rank; ++i) bytes *= m.box[i];
  return bytes;
}

// Where byte `i` of a box row-major without swizzle lies: PTX ISA, "Swizzling modes": within 8 rows
// of 128 bytes, 16-byte chunk c of row r is at c ^ r (128 B), c ^ (r >> 1 & 3 ... ) and so on.
unsigned swizzled(TensorSwizzle s, unsigned i) {
  const unsigned line = i / 128 % 8, chunk = i / 16 % 8;
  unsigned moved = chunk;
  if (s == TensorSwizzle::k128B) moved = chunk ^ line;
  if (s == TensorSwizzle::k64B) moved = (chunk & 4) | ((chunk & 3) ^ (line & 3));
  if (s == TensorSwizzle::k32B) moved = (chunk & 6) | ((chunk & 1) ^ (line & 1));
  return i / 128 * 128 + moved * 16 + i % 16;
}

// Byte offset in the tensor of byte i of the box, or -1 outside the bounds.
int64_t source_of(const Copy& c, unsigned i) {
  const unsigned row_bytes = c.map.box[0] * c.map.element_bytes;
  unsigned row = i / row_bytes;
  const int64_t x = c.at[0] + i % row_bytes / c.map.element_bytes;
  if (x < 0 || x >= static_cast<int64_t>(c.map.dims[0])) return -1;
  int64_t offset = x * c.map.element_bytes + i % c.map.element_bytes;
  for (uint32_t d = 1; d < c.map.rank; ++d) {
    const int64_t y = c.at[d] + row % c.map.box[d];
    row /= c.map.box[d];
    if (y < 0 || y >= static_cast<int64_t>(c.map.dims[d])) return -1;
    offset += y * static_cast<int64_t>(c.map.strides[d - 1]);
  }
  return offset;
}

std::string list(const std::vector<int64_t>& at) {
  std::string s;
  for (int64_t x : at) s += (s.empty() ? "" : ", ") + std::to_string(x);
  return s;
}

void check(Copy c) {
  std::vector<uint64_t> storage(8192);
  auto* tensor = reinterpret_cast<uint8_t*>(storage.data());
  const size_t size = storage.size() * 8;
  for (size_t i = 0; i < size; ++i) tensor[i] = static_cast<uint8_t>(i * 37 + i / 256 + 1);
  c.map.address = reinterpret_cast<uint64_t>(tensor);
  const unsigned bytes = box_bytes(c.map);
  const MapParam param{encode_tensor_map(c.map)};
  for (AsyncOrder order : {AsyncOrder::kLate, AsyncOrder::kEarly, AsyncOrder::kRandom}) {
    Options o;
    o.async = order;
    std::vector<uint8_t> box(bytes, 0xee);
    const MemoryRange memory[] = {range(storage, "tensor"), range(box, "box")};
    run_text(kernel(c.map.rank, list(c.at), bytes, false), {1, 32}, Params(param, box), memory, o);
    for (unsigned i = 0; i < bytes; ++i) {
      const int64_t from = source_of(c, i);
      REQUIRE(box[swizzled(c.map.swizzle, i)] == (from < 0 ? 0 : tensor[from]));
    }
    // And back, each byte inverted.
    std::vector<uint64_t> before = storage;
    for (uint8_t& x : box) x = static_cast<uint8_t>(~x);
    run_text(kernel(c.map.rank, list(c.at), bytes, true), {1, 32}, Params(param, box), memory, o);
    const auto* old = reinterpret_cast<const uint8_t*>(before.data());
    std::vector<uint8_t> want(old, old + size);
    for (unsigned i = 0; i < bytes; ++i) {
      if (const int64_t at = source_of(c, i); at >= 0) {
        want[static_cast<size_t>(at)] = static_cast<uint8_t>(~old[at]);
      }
    }
    REQUIRE(std::equal(want.begin(), want.end(), tensor));
  }
}

TensorMap map2(TensorSwizzle swizzle, uint32_t row_bytes) {
  return {.element_bytes = 2,
          .rank = 2,
          .dims = {100, 60},
          .strides = {256},
          .box = {row_bytes / 2, 24},
          .swizzle = swizzle};
}

}  // namespace

TEST_CASE("tensor copies of every rank and swizzle") {
  check({{.element_bytes = 4, .rank = 1, .dims = {500}, .box = {64}}, {36}});
  check({map2(TensorSwizzle::kNone, 96), {16, 8}});
  check({map2(TensorSwizzle::k32B, 32), {16, 8}});
  check({map2(TensorSwizzle::k64B, 64), {32, 0}});
  check({map2(TensorSwizzle::k128B, 128), {0, 30}});
  check({{.element_bytes = 1,
          .rank = 3,
          .dims = {128, 20, 9},
          .strides = {128, 2560},
          .box = {128, 4, 3},
          .swizzle = TensorSwizzle::k128B},
         {0, 7, 5}});
  check({{.element_bytes = 8,
          .rank = 4,
          .dims = {8, 5, 4, 3},
          .strides = {64, 320, 1280},
          .box = {4, 2, 3, 2}},
         {2, 1, 1, 1}});
  check({{.element_bytes = 2,
          .rank = 5,
          .dims = {16, 3, 3, 3, 3},
          .strides = {32, 96, 288, 864},
          .box = {8, 2, 2, 2, 2}},
         {8, 1, 0, 1, 1}});
}

TEST_CASE("tensor copies over the bounds are filled with zeros") {
  for (TensorSwizzle s : {TensorSwizzle::kNone, TensorSwizzle::k128B}) {
    check({map2(s, 128), {60, 50}});
    check({map2(s, 128), {-7, -3}});
    check({map2(s, 128), {83, 0}});
    check({map2(s, 128), {200, 0}});
    check({map2(s, 128), {0, -24}});
  }
}

TEST_CASE("tensor maps and copies that are refused") {
  const auto refused = [](TensorMap map) {
    try {
      encode_tensor_map(map);
      return false;
    } catch (const Error& e) {
      return e.kind() == ErrorKind::kBadLaunch;
    }
  };
  const TensorMap good = map2(TensorSwizzle::k128B, 128);
  CHECK_FALSE(refused(good));
  TensorMap bad = good;
  bad.address = 8;
  CHECK(refused(bad));
  bad = good;
  bad.strides[0] = 200;
  CHECK(refused(bad));
  bad = good;
  bad.box[0] = 32;  // narrower than the swizzle
  CHECK(refused(bad));
  bad = good;
  bad.box[1] = 257;
  CHECK(refused(bad));
  bad = good;
  bad.rank = 6;
  CHECK(refused(bad));
  bad = good;
  bad.dims[1] = 0;
  CHECK(refused(bad));
  // Bytes that are no map, a map of another rank, memory that is too short for it.
  std::vector<uint64_t> storage(1024);
  std::vector<uint8_t> box(box_bytes(good));
  const MemoryRange memory[] = {range(storage, "tensor"), range(box, "box")};
  TensorMap map = good;
  map.address = reinterpret_cast<uint64_t>(storage.data());
  MapParam param{encode_tensor_map(map)};
  const auto kind = [&](const std::string& text, const MapParam& p) {
    try {
      run_text(text, {1, 32}, Params(p, box), memory);
    } catch (const Error& e) {
      return e.kind();
    }
    return ErrorKind::kParse;
  };
  const unsigned bytes = box_bytes(good);
  CHECK(kind(kernel(2, "0, 40", bytes, false), param) == ErrorKind::kOutOfBounds);
  CHECK(kind(kernel(3, "0, 0, 0", bytes, false), param) == ErrorKind::kBadLaunch);
  CHECK(kind(kernel(2, "0, 0", bytes + 16, false), param) == ErrorKind::kDeadlock);
  param.bytes[20] ^= std::byte{1};
  CHECK(kind(kernel(2, "0, 0", bytes, false), param) == ErrorKind::kBadLaunch);
  CHECK_THROWS_AS(Program::parse(kernel(2, "0", bytes, false)), Error);
}
