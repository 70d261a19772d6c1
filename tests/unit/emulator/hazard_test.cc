// Every hazard that the emulator promises to find, planted once: kind, PTX line, block, thread,
// last writer.
#include "tests/support/catch.h"
#include "tests/unit/emulator/planted.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

// %rd0 = data, %rd1 = table, %r0 = tid, %r1 = 4 * tid, %r2 = shared address of word tid of s[256].
std::string kernel(const std::string& body) {
  return kernel_text("u64 a, u64 b",
                     "ld.param.u64 %rd0, [a];\nld.param.u64 %rd1, [b];\nmov.u32 %r0, "
                     "%tid.x;\nshl.b32 %r1, %r0, 2;\n"
                     ".shared .align 16 .b8 s[1024];\nmov.u32 %r2, s;\nadd.u32 %r2, %r2, %r1;\n"
                     "cvt.u64.u32 %rd2, %r1;\nadd.u64 %rd3, %rd0, %rd2;\n" +
                         body);
}

}  // namespace

TEST_CASE("global memory bounds") {
  expect_failure(kernel("st.global.u32 [%rd3+4092], %r0;"), {1, 32},
                 {ErrorKind::kOutOfBounds, "[%rd3+4092]", {1, 0, 0}, "", {}, "past its end"});
  expect_failure(kernel("ld.global.u32 %r5, [%rd3+-4];"), {1, 32},
                 {ErrorKind::kOutOfBounds, "[%rd3+-4]", {0, 0, 0}});
  expect_failure(
      kernel("st.global.u32 [%rd1], %r0;"), {1, 32},
      {ErrorKind::kOutOfBounds, "[%rd1], %r0", {0, 0, 0}, "", {}, "'table', which is read-only"});
  expect_failure(
      kernel("mov.u64 %rd9, 0; ld.global.u32 %r5, [%rd9];"), {1, 32},
      {ErrorKind::kOutOfBounds, "[%rd9]", {0, 0, 0}, "", {}, "before the nearest range"});
  // The last bytes of a vector access count too.
  expect_failure(kernel("ld.global.v4.u32 {%r5,%r6,%r7,%r8}, [%rd0+4096];"), {1, 32},
                 {ErrorKind::kOutOfBounds, "ld.global.v4", {0, 0, 0}});
}

TEST_CASE("misaligned access") {
  expect_failure(kernel("ld.global.u32 %r5, [%rd3+2];"), {1, 32},
                 {ErrorKind::kMisaligned, "[%rd3+2]"});
  expect_failure(kernel("ld.global.v4.u32 {%r5,%r6,%r7,%r8}, [%rd3];"), {1, 32},
                 {ErrorKind::kMisaligned, "ld.global.v4", {1, 0, 0}});
  expect_failure(kernel("st.shared.v2.u32 [%r2], {%r0,%r0};"), {1, 32},
                 {ErrorKind::kMisaligned, "st.shared.v2", {1, 0, 0}});
  expect_failure(kernel("cp.async.cg.shared.global [%r2], [%rd0], 16;"), {1, 32},
                 {ErrorKind::kMisaligned, "cp.async", {1, 0, 0}});
  expect_failure(kernel("cp.async.ca.shared.global [%r2], [%rd3+2], 4;"), {1, 32},
                 {ErrorKind::kMisaligned, "cp.async"});
  expect_failure(kernel("st.shared.u32 [%r2], %r0;\nbar.sync 0;\n"
                        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [%r2];"),
                 {1, 32}, {ErrorKind::kMisaligned, "ldmatrix", {1, 0, 0}});
}

TEST_CASE("shared memory bounds count static and dynamic bytes") {
  expect_failure(
      kernel("st.shared.u32 [%r2+1020], %r0;"), {1, 32},
      {ErrorKind::kOutOfBounds, "st.shared", {1, 0, 0}, "", {}, "(1024 static, 0 dynamic)"});
  expect_clean(kernel("st.shared.u32 [%r2+1020], %r0;"), {1, 32, 124});
  expect_failure(kernel("mov.u32 %r9, 0;\nst.shared.u32 [%r9], %r0;"), {1, 1},
                 {ErrorKind::kOutOfBounds, "[%r9]"});
}

TEST_CASE("uninitialised registers") {
  expect_failure(kernel("add.u32 %r5, %r6, %r0;"), {1, 32},
                 {ErrorKind::kUninitializedRead, "add.u32 %r5"});
  expect_failure(kernel("@%p1 mov.u32 %r5, 0;"), {1, 32},
                 {ErrorKind::kUninitializedRead, "@%p1", {0, 0, 0}, "", {}, "guard predicate"});
  // Moves and selects carry the undefined value to where it matters.
  expect_failure(
      kernel("mov.u32 %r5, %r6;\nsetp.eq.u32 %p1, %r0, 99;\nselp.b32 %r7, %r0, %r5, %p1;\n"
             "st.global.u32 [%rd3], %r7;"),
      {1, 32}, {ErrorKind::kUninitializedRead, "st.global"});
  expect_clean(kernel("mov.u32 %r5, %r6;\nsetp.ne.u32 %p1, %r0, 99;\nselp.b32 %r7, %r0, %r5, %p1;\n"
                      "st.global.u32 [%rd3], %r7;"),
               {1, 32});
  // Only lanes that skipped the definition are undefined.
  expect_failure(kernel("setp.ne.u32 %p1, %r0, 7;\n@%p1 mov.u32 %r5, 0;\nadd.u32 %r6, %r5, 1;"),
                 {1, 32}, {ErrorKind::kUninitializedRead, "add.u32 %r6", {7, 0, 0}});
  expect_failure(kernel("shfl.sync.bfly.b32 %r5, %r6, 1, 31, -1;"), {1, 32},
                 {ErrorKind::kUninitializedRead, "shfl"});
}

TEST_CASE("uninitialised shared memory") {
  expect_failure(kernel("ld.shared.u32 %r5, [%r2];"), {1, 32},
                 {ErrorKind::kUninitializedRead, "ld.shared"});
  // Byte by byte: three of four bytes written.
  expect_failure(
      kernel("st.shared.u8 [%r2], %r0;\nst.shared.u16 [%r2+2], %r0;\nld.shared.u32 %r5, [%r2];"),
      {1, 32}, {ErrorKind::kUninitializedRead, "ld.shared"});
  expect_clean(
      kernel("st.shared.u8 [%r2], %r0;\nst.shared.u8 [%r2+1], %r0;\nst.shared.u16 [%r2+2], %r0;\n"
             "ld.shared.u32 %r5, [%r2];"),
      {1, 32});
}

TEST_CASE("local memory may hold undefined values until they are used") {
  const std::string body =
      ".local .align 4 .b8 l[16];\nmov.u64 %rd9, l;\nst.local.u32 [%rd9], %r0;\n";
  expect_clean(kernel(body + "ld.local.u32 %r5, [%rd9+4];\nst.local.u32 [%rd9+8], %r5;"), {1, 32});
  expect_failure(kernel(body + "ld.local.u32 %r5, [%rd9+4];\nadd.u32 %r6, %r5, 1;"), {1, 32},
                 {ErrorKind::kUninitializedRead, "add.u32 %r6"});
  expect_failure(kernel(body + "ld.local.u32 %r5, [%rd9+16];"), {1, 32},
                 {ErrorKind::kOutOfBounds, "[%rd9+16]"});
}

TEST_CASE("shared-memory races") {
  const std::string store = "st.shared.u32 [%r2], %r0;\n";
  const std::string other =
      "xor.b32 %r3, %r1, 128;\nmov.u32 %r4, s;\nadd.u32 %r4, %r4, %r3;\n";  // other warp's word
  // The warp that completes a barrier goes on first: here the second one.
  const std::string by_warp = store + other + "bar.sync 0;\nsetp.ge.u32 %p1, %r0, 32;\n";
  SECTION("read after write in another warp") {
    const std::string text = by_warp + "@%p1 st.shared.u32 [%r2+0], %r0;\n";
    expect_failure(
        kernel(text + "@!%p1 ld.shared.u32 %r5, [%r4];"), {1, 64},
        {ErrorKind::kRace, "ld.shared", {0, 0, 0}, "[%r2+0]", {32, 0, 0}, "last written by"});
    expect_clean(kernel(text + "bar.sync 0;\n@!%p1 ld.shared.u32 %r5, [%r4];"), {1, 64});
  }
  SECTION("write after read in another warp") {
    const std::string text = by_warp + "@%p1 ld.shared.u32 %r5, [%r4];\n";
    expect_failure(
        kernel(text + "@!%p1 st.shared.u32 [%r2+0], %r0;"), {1, 64},
        {ErrorKind::kRace, "[%r2+0]", {0, 0, 0}, "ld.shared", {32, 0, 0}, "last read by"});
    expect_clean(kernel(text + "bar.sync 0;\n@!%p1 st.shared.u32 [%r2+0], %r0;"), {1, 64});
  }
  SECTION("write after write") {
    expect_failure(kernel(store + other + "st.shared.u32 [%r4], %r0;"), {1, 64},
                   {ErrorKind::kRace, "st.shared", {32, 0, 0}, "[%r4]", {0, 0, 0}});
    expect_failure(kernel("mov.u32 %r4, s;\nst.shared.u32 [%r4], %r0;"), {1, 32},
                   {ErrorKind::kRace, "st.shared", {1, 0, 0}, "st.shared", {0, 0, 0}});
  }
  SECTION("different bytes of a word do not race") {
    expect_clean(kernel("mov.u32 %r4, s;\nadd.u32 %r4, %r4, %r0;\nst.shared.u8 [%r4], %r0;"),
                 {1, 64});
    expect_failure(kernel("mov.u32 %r4, s;\nadd.u32 %r4, %r4, %r0;\nst.shared.u8 [%r4], %r0;\n"
                          "ld.shared.u8 %r5, [%r4+1];"),
                   {1, 32}, {ErrorKind::kRace, "ld.shared", {0, 0, 0}, "st.shared", {1, 0, 0}});
  }
  SECTION("within a warp only bar.warp.sync orders, not shfl") {
    const std::string near = "xor.b32 %r3, %r1, 4;\nmov.u32 %r4, s;\nadd.u32 %r4, %r4, %r3;\n";
    expect_failure(
        kernel(store + near + "shfl.sync.bfly.b32 %r6, %r0, 1, 31, -1;\nld.shared.u32 %r5, [%r4];"),
        {1, 32}, {ErrorKind::kRace, "ld.shared", {0, 0, 0}, "st.shared", {1, 0, 0}});
    expect_clean(kernel(store + near + "bar.warp.sync -1;\nld.shared.u32 %r5, [%r4];"), {1, 32});
    // A partial member mask orders its members only.
    const std::string partial = "setp.lt.u32 %p1, %r0, 16;\n@%p1 bar.warp.sync 0xffff;\n";
    expect_failure(kernel(store + near + partial + "ld.shared.u32 %r5, [%r4];"), {1, 32},
                   {ErrorKind::kRace, "ld.shared", {16, 0, 0}, "st.shared", {17, 0, 0}});
    expect_clean(kernel(store + near + partial + "@%p1 ld.shared.u32 %r5, [%r4];"), {1, 32});
  }
  SECTION("atomics do not race with each other, but with plain accesses") {
    const std::string add =
        "mov.u32 %r4, s;\nsetp.eq.u32 %p1, %r0, 0;\n@%p1 st.shared.u32 [%r4], 0;\nbar.sync 0;\n"
        "red.shared.add.u32 [%r4], 1;\n";
    expect_clean(kernel(add), {1, 64});
    expect_failure(kernel(add + "ld.shared.u32 %r5, [%r4];"), {1, 64},
                   {ErrorKind::kRace, "ld.shared", {32, 0, 0}, "red.shared", {63, 0, 0}});
  }
  SECTION("a named barrier orders only who took part") {
    const std::string two = store + other + "setp.lt.u32 %p1, %r0, 64;\n@%p1 bar.sync 1, 64;\n";
    expect_clean(kernel(two + "@%p1 ld.shared.u32 %r5, [%r4];"), {1, 128});
    expect_failure(
        kernel(two + "mov.u32 %r6, s;\nsetp.eq.u32 %p2, %r0, 64;\n@%p2 ld.shared.u32 %r5, [%r6];"),
        {1, 128}, {ErrorKind::kRace, "@%p2 ld.shared", {64, 0, 0}, "st.shared", {0, 0, 0}});
    // bar.arrive releases, bar.sync acquires: ordered one way only.
    const std::string handoff =
        "setp.lt.u32 %p1, %r0, 32;\n@%p1 st.shared.u32 [%r2], %r0;\n@%p1 bar.arrive 1, 64;\n"
        "@!%p1 bar.sync 1, 64;\n" +
        other;
    expect_clean(kernel(handoff + "@!%p1 ld.shared.u32 %r5, [%r4];"), {1, 64});
    expect_failure(kernel(handoff + "@!%p1 ld.shared.u32 %r5, [%r4];\n@!%p1 bar.arrive 2, 64;\n"
                                    "@%p1 st.shared.u32 [%r2+0], %r0;\n@%p1 bar.sync 2, 64;"),
                   {1, 64}, {ErrorKind::kRace, "ld.shared", {32, 0, 0}, "[%r2+0]", {0, 0, 0}});
  }
  SECTION("checking can be turned off") {
    Options options;
    options.check_races = false;
    expect_clean(kernel(store + other + "bar.warp.sync -1;\nst.shared.u32 [%r4], %r0;"), {1, 64},
                 options);
  }
}

TEST_CASE("asynchronous copies") {
  const std::string copy = "cp.async.ca.shared.global [%r2], [%rd3], 4;\ncp.async.commit_group;\n";
  const std::string other = "xor.b32 %r3, %r1, 128;\nmov.u32 %r4, s;\nadd.u32 %r4, %r4, %r3;\n";
  for (AsyncOrder order : {AsyncOrder::kLate, AsyncOrder::kEarly, AsyncOrder::kRandom}) {
    Options o;
    o.async = order;
    // Read by the issuing thread without a wait, or after a wait for too few groups.
    expect_failure(kernel(copy + "ld.shared.u32 %r5, [%r2];"), {1, 64},
                   {ErrorKind::kMissingWait, "ld.shared", {0, 0, 0}, "cp.async.ca", {0, 0, 0}}, o);
    expect_failure(kernel(copy + "cp.async.wait_group 1;\nld.shared.u32 %r5, [%r2];"), {1, 64},
                   {ErrorKind::kMissingWait, "ld.shared", {0, 0, 0}, "cp.async.ca", {0, 0, 0}}, o);
    expect_clean(kernel(copy + "cp.async.wait_group 0;\nld.shared.u32 %r5, [%r2];"), {1, 64}, o);
    // A copy after the commit is in no group yet.
    expect_failure(kernel("cp.async.commit_group;\ncp.async.ca.shared.global [%r2], [%rd3], 4;\n"
                          "cp.async.wait_group 0;\nld.shared.u32 %r5, [%r2];"),
                   {1, 64},
                   {ErrorKind::kMissingWait, "ld.shared", {0, 0, 0}, "cp.async.ca", {0, 0, 0}}, o);
    // Another thread: a barrier without the wait, then the wait without a barrier.
    expect_failure(kernel(copy + other + "bar.sync 0;\nld.shared.u32 %r5, [%r4];"), {1, 64},
                   {ErrorKind::kMissingWait, "ld.shared", {32, 0, 0}, "cp.async.ca", {0, 0, 0}}, o);
    expect_failure(kernel(other + "setp.lt.u32 %p1, %r0, 32;\n@%p1 " + copy +
                          "cp.async.wait_all;\n@!%p1 ld.shared.u32 %r5, [%r4];"),
                   {1, 64}, {ErrorKind::kRace, "ld.shared", {32, 0, 0}, "cp.async.ca", {0, 0, 0}},
                   o);
    expect_clean(
        kernel(copy + other + "cp.async.wait_all;\nbar.sync 0;\nld.shared.u32 %r5, [%r4];"),
        {1, 64}, o);
    // Overwriting what others still read since the last barrier.
    expect_failure(
        kernel("st.shared.u32 [%r2], %r0;\nbar.sync 0;\n" + other +
               "setp.ge.u32 %p1, %r0, 32;\n@%p1 ld.shared.u32 %r5, [%r4];\n@!%p1 " + copy),
        {1, 64}, {ErrorKind::kRace, "cp.async.ca", {0, 0, 0}, "ld.shared", {32, 0, 0}}, o);
    // A store into bytes in flight.
    expect_failure(kernel(copy + "st.shared.u32 [%r2], %r0;"), {1, 64},
                   {ErrorKind::kRace, "st.shared", {0, 0, 0}, "cp.async.ca", {0, 0, 0}}, o);
  }
  expect_failure(kernel("cp.async.ca.shared.global [%r2], [%rd3+4096], 4;"), {1, 32},
                 {ErrorKind::kOutOfBounds, "cp.async.ca", {0, 0, 0}});
  // Source size 0 reads nothing, so the address does not matter.
  expect_clean(kernel("cp.async.ca.shared.global [%r2], [%rd3+4096], 4, 0;\ncp.async.wait_all;\n"
                      "ld.shared.u32 %r5, [%r2];"),
               {1, 32});
}

TEST_CASE("deadlock names who waits where") {
  expect_failure(kernel("setp.lt.u32 %p1, %r0, 32;\n@%p1 bar.sync 0;"), {1, 64},
                 {ErrorKind::kDeadlock, "bar.sync", {0, 0, 0}, "", {}, "32 of 64 threads arrived"});
  expect_failure(kernel("setp.lt.u32 %p1, %r0, 32;\n@%p1 bar.sync 1;\n@!%p1 bar.sync 2;"), {1, 64},
                 {ErrorKind::kDeadlock, "bar.sync 1", {0, 0, 0}, "", {}, "on barrier 2 (32 of 64"});
  expect_failure(kernel("setp.eq.u32 %p1, %r0, 3;\n@%p1 ret;\nbar.sync 0;"), {1, 64},
                 {ErrorKind::kDeadlock, "bar.sync", {0, 0, 0}, "", {}, "have exited"});
}

// One warpgroup passes turns to another and may be two ahead, with one barrier for both.
TEST_CASE("a barrier counts arrivals, not turns") {
  const std::string turns =
      "setp.lt.u32 %p1, %r0, 128;\n@%p1 bar.sync 1, 256;\n"
      "@!%p1 bar.arrive 1, 256;\n@!%p1 bar.sync 2, 128;\n"
      "@!%p1 bar.arrive 1, 256; // again\n@%p1 bar.sync 1, 256;";
  expect_clean(kernel(turns), {1, 256});
  int failures = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::vector<uint32_t> data(1024, 1), constant(64, 2);
    const MemoryRange memory[] = {range(data, "data"), range(constant, "table", false)};
    try {
      run_text(kernel(turns), {1, 256}, Params(data, constant), memory, {.seed = seed});
    } catch (const Error& e) {
      ++failures;
      CHECK(e.kind() == ErrorKind::kDeadlock);
      CHECK(e.line() == line_of(kernel(turns), "// again"));
      CHECK_THAT(e.what(), Catch::Contains("arrives at barrier 1 again before the others have"));
    }
  }
  CHECK(failures > 0);
}

TEST_CASE("divergent collectives") {
  const std::string half = "setp.lt.u32 %p1, %r0, 16;\n";
  expect_failure(
      kernel(half + "@%p1 bar.sync 0;"), {1, 32},
      {ErrorKind::kDivergentCollective, "bar.sync", {16, 0, 0}, "", {}, "0xffff0000 are missing"});
  expect_failure(kernel(half + "@%p1 shfl.sync.bfly.b32 %r5, %r0, 1, 31, -1;"), {1, 32},
                 {ErrorKind::kDivergentCollective, "shfl", {16, 0, 0}});
  expect_clean(kernel(half + "@%p1 shfl.sync.bfly.b32 %r5, %r0, 1, 31, 0xffff;"), {1, 32});
  expect_failure(
      kernel(half + "@!%p1 shfl.sync.bfly.b32 %r5, %r0, 1, 31, 0xffff;"), {1, 32},
      {ErrorKind::kDivergentCollective, "shfl", {16, 0, 0}, "", {}, "does not name them"});
  expect_failure(kernel(half + "@%p1 bra DONE;\nbar.warp.sync -1;\nDONE:"), {1, 32},
                 {ErrorKind::kDivergentCollective, "bar.warp.sync", {0, 0, 0}});
  expect_failure(
      kernel("setp.eq.u32 %p1, %r0, 5;\n@%p1 ret;\n"
             "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%r5,%r6,%r7,%r8}, {%r0,%r0}, {%r0}, "
             "{%r0,%r0,%r0,%r0};"),
      {1, 32}, {ErrorKind::kDivergentCollective, "mma.sync", {5, 0, 0}});
  expect_failure(kernel("st.shared.u32 [%r2], %r0;\n" + half +
                        "@%p1 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [%r2];"),
                 {1, 32}, {ErrorKind::kDivergentCollective, "ldmatrix", {16, 0, 0}});
}

TEST_CASE("runaway and trap") {
  Options options;
  options.max_steps = 10000;
  expect_failure(kernel("L:\nbra L;"), {1, 32}, {ErrorKind::kStepLimit, "bra L"}, options);
  expect_failure(kernel("setp.eq.u32 %p1, %r0, 9;\n@%p1 trap;"), {1, 32},
                 {ErrorKind::kTrap, "trap", {9, 0, 0}});
}

TEST_CASE("the error of the lowest failing block is reported") {
  const std::string text = kernel("mov.u32 %r9, %ctaid.x;\nsetp.ge.u32 %p1, %r9, 5;\n@%p1 trap;");
  std::vector<uint32_t> data(1024), constant(64);
  const MemoryRange memory[] = {range(data, "data"), range(constant, "table", false)};
  for (unsigned threads : {1u, 4u}) {
    Options options;
    options.num_threads = threads;
    try {
      run_text(text, {40, 64}, Params(data, constant), memory, options);
      FAIL("no error");
    } catch (const Error& e) {
      CHECK(e.info().block == Index3{5, 0, 0});
    }
  }
}

namespace {

// Waits until the word at `address` is at least %r8.
std::string wait_for(const std::string& address) {
  return "W:\nld.acquire.gpu.global.b32 %r7, [" + address +
         "];\nsetp.lt.u32 %p9, %r7, %r8;\n@%p9 bra W;\n";
}

}  // namespace

TEST_CASE("blocks wait for what others release") {
  // data[0]: tickets taken, data[1]: tickets done, data[2 + t]: written by the block with ticket t,
  // data[512 + t]: what its thread 32 then finds there of the ticket before.
  const std::string text = kernel(
      "setp.eq.u32 %p1, %r0, 0;\n@%p1 atom.relaxed.gpu.global.add.u32 %r5, [%rd0], 1;\n"
      "@%p1 st.shared.u32 [%r2], %r5;\nbar.sync 0;\nmov.u32 %r4, s;\nld.shared.u32 %r5, [%r4];\n"
      "mul.wide.u32 %rd4, %r5, 4;\nadd.u64 %rd4, %rd4, %rd0;\nmov.u32 %r8, %r5;\n"
      "@%p1 bra L;\n" +
      wait_for("%rd0+4") +
      "L:\nsetp.eq.u32 %p2, %r0, 32;\nsetp.gt.and.u32 %p2, %r5, 0, %p2;\n"
      "@%p2 ld.global.u32 %r6, [%rd4+4];\n@%p2 st.global.u32 [%rd4+2048], %r6;\n"
      "add.u32 %r6, %r5, 100;\n@%p1 st.global.u32 [%rd4+8], %r6;\nbar.sync 0;\n"
      "@%p1 red.release.gpu.global.add.u32 [%rd0+4], 1;\n");
  for (const unsigned threads : {1u, 4u}) {
    std::vector<uint32_t> data(1024, 0), constant(64);
    const MemoryRange memory[] = {range(data, "data"), range(constant, "table", false)};
    run_text(text, {200, 64}, Params(data, constant), memory, {.num_threads = threads});
    CHECK(data[0] == 200);
    CHECK(data[1] == 200);
    for (uint32_t t = 1; t < 200; ++t) REQUIRE(data[512 + t] == 100 + t - 1);
  }
}

TEST_CASE("a wait for a block that cannot start ends, and so does one for a block that failed") {
  const std::string wait = "mov.u32 %r8, 2;\n" + wait_for("%rd0");
  Options options;
  options.max_steps = 1 << 20;
  expect_failure(kernel(wait), {1, 32}, {ErrorKind::kStepLimit, "ld.acquire"}, options);

  const std::string text =
      kernel("mov.u32 %r9, %ctaid.x;\nsetp.eq.u32 %p1, %r9, 1;\n@%p1 trap;\n" + wait);
  std::vector<uint32_t> data(1024), constant(64);
  const MemoryRange memory[] = {range(data, "data"), range(constant, "table", false)};
  try {
    run_text(text, {3, 32}, Params(data, constant), memory, {.num_threads = 2});
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::kTrap);
    CHECK(e.info().block == Index3{1, 0, 0});
  }
}

TEST_CASE("the message reads well") {
  std::vector<uint32_t> data(1024), constant(64);
  const MemoryRange memory[] = {range(data, "data"), range(constant, "table", false)};
  const std::string text =
      kernel("st.shared.u32 [%r2], %r0;\nmov.u32 %r4, s;\nld.shared.u32 %r5, [%r4+128];");
  try {
    run_text(text, {1, 64}, Params(data, constant), memory);
    FAIL("no error");
  } catch (const Error& e) {
    const std::string expected =
        "uninitialized read: a read of shared byte 0x480 that nobody wrote\n"
        "  at PTX line " +
        std::to_string(line_of(text, "ld.shared")) +
        ": ld.shared.u32 %r5, [%r4+128];\n"
        "  in kernel k, block (0,0,0), thread (0,0,0)";
    CHECK(std::string(e.what()) == expected);
  }
}

TEST_CASE("launches that do not fit the kernel") {
  std::vector<uint32_t> data(64);
  const Program program = Program::parse(kernel_text("u64 a, u32 n", ""));
  const Params params(data, uint32_t{1});
  LaunchConfig config;
  config.kernel = "k";
  config.params = params.bytes();
  REQUIRE_NOTHROW(run(program, config));
  const auto fails = [&](const LaunchConfig& c, const std::string& says) {
    try {
      run(program, c);
      FAIL("no error");
    } catch (const Error& e) {
      INFO(e.what());
      CHECK(e.kind() == ErrorKind::kBadLaunch);
      CHECK(std::string(e.what()).find(says) != std::string::npos);
    }
  };
  LaunchConfig bad = config;
  bad.kernel = "q";
  fails(bad, "no kernel 'q'; it has: k");
  bad = config;
  bad.params = params.bytes().first(8);
  fails(bad, "8 parameter bytes given, the kernel takes 12");
  bad = config;
  bad.block[0] = 2048;
  fails(bad, "2048 threads in a block, more than 1024");
  bad = config;
  bad.dynamic_shared_bytes = 228 * 1024;
  fails(bad, "bytes of shared memory, more than 232448");
  const MemoryRange overlapping[] = {{1000, 100, true, "x"}, {1050, 100, true, "y"}};
  bad = config;
  bad.memory = overlapping;
  fails(bad, "memory ranges 'x' and 'y' overlap");
}
