// mbarriers, bulk copies, their fences and groups, setmaxnreg: results, and each misuse planted
// once.
#include "tests/unit/emulator/planted.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

// %rd0 = data (u32[1024], all 1), %r0 = tid, %r2 = tile (4 KiB), %r3 = bar (8 mbarriers), %r4 =
// 4 * tid. Thread 0 initialises bar[0] for `count` arrivals and bar[1] for one; all see it.
std::string kernel(const std::string& body, unsigned count = 1) {
  return kernel_text(
      "u64 a, u64 b",
      "ld.param.u64 %rd0, [a]; mov.u32 %r0, %tid.x; mov.u32 %r2, tile; mov.u32 %r3, bar;\n"
      "shl.b32 %r4, %r0, 2; setp.eq.u32 %p0, %r0, 0;\n"
      "@%p0 mbarrier.init.shared::cta.b64 [%r3+0], " +
          std::to_string(count) +
          ";\n@%p0 mbarrier.init.shared::cta.b64 [%r3+8], 1;\n"
          "@%p0 fence.mbarrier_init.release.cluster;\nbar.sync 0;\n" +
          body,
      ".shared .align 1024 .b8 tile[4096];\n.shared .align 8 .b8 bar[64];");
}

// A wait on parity `parity` of bar[i], as inline assembly writes it.
std::string wait(unsigned i, unsigned parity) {
  return "{\n.reg .pred p;\nW:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%r3+" +
         std::to_string(8 * i) + "], " + std::to_string(parity) + ";\n@!p bra W;\n}\n";
}

const std::string kCopy =
    "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 4096;\n"
    "@%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0], 4096, "
    "[%r3];\n";
const std::string kRead = "add.u32 %r5, %r2, %r4;\nld.shared.u32 %r6, [%r5];\n";
// The value read must be 1 in every thread.
const std::string kCheck = "setp.ne.u32 %p2, %r6, 1;\n@%p2 trap;\n";

const AsyncOrder kOrders[] = {AsyncOrder::kLate, AsyncOrder::kEarly, AsyncOrder::kRandom};

void expect_clean_always(const std::string& text, Shape shape) {
  for (AsyncOrder order : kOrders) {
    for (uint64_t seed : {0, 1, 2}) {
      Options o;
      o.async = order;
      o.seed = seed;
      expect_clean(text, shape, o);
    }
  }
}
void expect_failure_always(const std::string& text, Shape shape, const Planted& planted) {
  for (AsyncOrder order : kOrders) {
    Options o;
    o.async = order;
    expect_failure(text, shape, planted, o);
  }
}

// .maxntid for setmaxnreg.
std::string with_maxntid(std::string text, unsigned threads) {
  const size_t at = text.find("\n{\n");
  return text.insert(at, "\n.maxntid " + std::to_string(threads) + ", 1, 1");
}

}  // namespace

TEST_CASE("mbarrier phases, by token and by parity") {
  // All 64 threads arrive; the tokens are of phase 0, which then has completed.
  expect_clean_always(
      kernel("mbarrier.arrive.shared.b64 %rd5, [%r3];\n"
             "L:\nmbarrier.test_wait.shared.b64 %p1, [%r3], %rd5;\n@!%p1 bra L;\n"
             "mbarrier.test_wait.parity.acquire.cta.shared::cta.b64 %p1, [%r3], 0;\n@!%p1 trap;\n"
             "mbarrier.arrive.release.cta.shared::cta.b64 _, [%r3], 1;\n" +
                 wait(0, 1),
             64),
      {1, 64});
  // Generic addresses, counts and transaction bytes without copies.
  expect_clean_always(
      kernel("cvt.u64.u32 %rd6, %r3; cvta.shared.u64 %rd6, %rd6;\nsetp.eq.u32 %p1, %r0, 32;\n"
             "@%p0 mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r3], 100;\n"
             "@%p0 mbarrier.arrive.b64 _, [%rd6], 3;\n"
             "@%p1 mbarrier.complete_tx.shared::cta.b64 [%r3], 100;\n" +
                 wait(0, 0),
             3),
      {1, 64});
}

TEST_CASE("a wait that cannot succeed yet costs no steps") {
  // Warp 1 works long before it arrives.
  const std::string text = kernel(
      "setp.lt.u32 %p1, %r0, 32;\n@%p1 bra WAIT;\nmov.u32 %r5, 0;\nLOOP:\nadd.u32 %r5, %r5, "
      "1;\nsetp.lt.u32 %p2, %r5, 3000;\n@%p2 bra LOOP;\nsetp.eq.u32 %p2, %r0, 32;\n"
      "@%p2 mbarrier.arrive.shared::cta.b64 _, [%r3];\nbra END;\nWAIT:\n" +
      wait(0, 0) + "END:\n");
  Options o;
  o.max_steps = 9200;
  expect_clean(text, {1, 64}, o);
}

TEST_CASE("a thread may poll and do something else") {
  expect_clean_always(
      kernel("setp.ne.u32 %p1, %r0, 0;\n@%p1 bra END;\n"
             "mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r3], 0;\n@%p1 trap;\n"
             "mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r3], 0, 100;\n@%p1 trap;\n"
             "mbarrier.arrive.shared::cta.b64 _, [%r3];\n" +
             wait(0, 0) + "END:\n"),
      {1, 32});
}

TEST_CASE("lanes of a warp may wait for each other") {
  expect_clean_always(kernel("@!%p0 bra OTHERS;\n" + wait(0, 0) +
                             "bra END;\nOTHERS:\nsetp.eq.u32 %p1, %r0, 5;\n"
                             "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r3];\nEND:\n"),
                      {1, 32});
}

TEST_CASE("labels are local to their scope") {
  expect_clean_always(kernel("setp.ne.u32 %p1, %r0, 0;\n@!%p1 mbarrier.arrive.shared::cta.b64 _, "
                             "[%r3];\n" +
                             wait(0, 0) + "@!%p1 mbarrier.arrive.shared::cta.b64 _, [%r3+8];\n" +
                             wait(1, 0) + "{\n" + wait(0, 0) + "}\n"),
                      {1, 64});
}

TEST_CASE("bulk copy into shared memory") {
  expect_clean_always(kernel(kCopy + wait(0, 0) + kRead + kCheck), {1, 128});
  // One thread waits for its warp; a second barrier passes that on.
  expect_clean_always(
      kernel(kCopy + "setp.lt.u32 %p3, %r0, 32;\n@!%p0 bra HERE;\n" + wait(0, 0) +
             "mbarrier.arrive.shared::cta.b64 _, [%r3+8];\nHERE:\n" + wait(1, 0) + kRead + kCheck),
      {1, 64});
  expect_clean_always(kernel(kCopy + "@!%p0 bra HERE;\n" + wait(0, 0) +
                             "HERE:\nbar.warp.sync -1;\n" + kRead + kCheck),
                      {1, 32});
}

TEST_CASE("a ring of two stages") {
  // Warp 0 copies five times into alternating halves, warp 1 reads and frees them.
  const std::string text = kernel_text(
      "u64 a, u64 b",
      "ld.param.u64 %rd0, [a]; mov.u32 %r0, %tid.x; mov.u32 %r2, tile; mov.u32 %r3, bar;\n"
      "setp.ne.u32 %p0, %r0, 0;\n@%p0 bra INIT;\n"
      "mbarrier.init.shared::cta.b64 [%r3], 1; mbarrier.init.shared::cta.b64 [%r3+8], 1;\n"
      "mbarrier.init.shared::cta.b64 [%r3+16], 32; mbarrier.init.shared::cta.b64 [%r3+24], 32;\n"
      "fence.proxy.async;\nINIT:\nbar.sync 0;\nmov.u32 %r5, 0;\nsetp.ge.u32 %p1, %r0, 32;\n@%p1 "
      "bra "
      "READER;\n@%p0 bra END;\n"
      "WRITE:\nand.b32 %r6, %r5, 1; shr.u32 %r7, %r5, 1; and.b32 %r7, %r7, 1; xor.b32 %r8, %r7, "
      "1;\n"
      "shl.b32 %r9, %r6, 3; add.u32 %r9, %r9, %r3; shl.b32 %r10, %r6, 7; add.u32 %r10, %r10, %r2;\n"
      "W1:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r9+16], %r8;\n@!%p2 bra W1;\n"
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r9], 128;\n"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r10], [%rd0], 128, "
      "[%r9];\n"
      "add.u64 %rd0, %rd0, 128; add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 5;\n@%p2 bra "
      "WRITE;\nbra "
      "END;\n"
      "READER:\nand.b32 %r6, %r5, 1; shr.u32 %r7, %r5, 1; and.b32 %r7, %r7, 1;\n"
      "shl.b32 %r9, %r6, 3; add.u32 %r9, %r9, %r3; shl.b32 %r10, %r6, 7; add.u32 %r10, %r10, %r2;\n"
      "W2:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r9], %r7;\n@!%p2 bra W2;\n"
      "and.b32 %r11, %r0, 31; shl.b32 %r11, %r11, 2; add.u32 %r10, %r10, %r11;\n"
      "ld.shared.u32 %r12, [%r10];\nsetp.ne.u32 %p2, %r12, 1;\n@%p2 trap;\n"
      "mbarrier.arrive.shared::cta.b64 _, [%r9+16];\n"
      "add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 5;\n@%p2 bra READER;\nEND:\n",
      ".shared .align 1024 .b8 tile[256];\n.shared .align 8 .b8 bar[32];");
  expect_clean_always(text, {1, 64});
  // The reader arrives before it reads: the copy may overwrite what it still reads.
  std::string early = text;
  const std::string load = "ld.shared.u32 %r12, [%r10];\n";
  const std::string arrive = "mbarrier.arrive.shared::cta.b64 _, [%r9+16];\n";
  early.erase(early.find(arrive), arrive.size());
  early.insert(early.find(load), arrive);
  Options o;
  o.seed = 3;
  o.async = AsyncOrder::kEarly;
  bool caught = false;
  for (o.seed = 1; o.seed < 40 && !caught; ++o.seed) {
    std::vector<uint32_t> data(1024, 1);
    const MemoryRange memory[] = {range(data, "data")};
    try {
      run_text(early, {1, 64}, Params(data, data), memory, o);
    } catch (const Error& e) {
      CHECK((e.kind() == ErrorKind::kRace || e.kind() == ErrorKind::kMissingWait));
      caught = true;
    }
  }
  CHECK(caught);
}

TEST_CASE("cp.async arrives on an mbarrier") {
  const std::string copy =
      "cvt.u64.u32 %rd2, %r4; add.u64 %rd2, %rd0, %rd2; add.u32 %r5, %r2, %r4;\n"
      "cp.async.ca.shared.global [%r5], [%rd2], 4;\n";
  const std::string other =
      "xor.b32 %r5, %r4, 128; add.u32 %r5, %r5, %r2;\nld.shared.u32 %r6, [%r5];\n";
  expect_clean_always(kernel(copy + "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r3];\n" +
                                 wait(0, 0) + other + kCheck,
                             64),
                      {1, 64});
  expect_clean_always(kernel(copy +
                                 "cp.async.mbarrier.arrive.shared.b64 [%r3];\n"
                                 "mbarrier.arrive.shared::cta.b64 _, [%r3];\n" +
                                 wait(0, 0) + other + kCheck,
                             64),
                      {1, 64});
}

TEST_CASE("bulk store from shared memory") {
  const std::string fill =
      "add.u32 %r5, %r2, %r4; add.u32 %r6, %r0, 7; st.shared.u32 [%r5], %r6;\n";
  const std::string store =
      "@%p0 cp.async.bulk.global.shared::cta.bulk_group [%rd0], [%r2], 256;\n"
      "@%p0 cp.async.bulk.commit_group;\n";
  const std::string text = kernel(fill + "fence.proxy.async.shared::cta;\nbar.sync 0;\n" + store +
                                  "@%p0 cp.async.bulk.wait_group.read 0;\nbar.sync 0;\n"
                                  "st.shared.u32 [%r5], 0;\n");
  for (AsyncOrder order : kOrders) {
    std::vector<uint32_t> data(64, 1);
    const MemoryRange memory[] = {range(data, "data")};
    Options o;
    o.async = order;
    run_text(text, {1, 64}, Params(data, data), memory, o);
    for (uint32_t i = 0; i < 64; ++i) REQUIRE(data[i] == i + 7);
  }
  expect_clean_always(kernel(fill + "fence.proxy.async;\nbar.sync 0;\n" + store +
                             "@%p0 cp.async.bulk.wait_group 0;\nbar.sync 0;\n"
                             "st.shared.u32 [%r5], 0;\n"),
                      {1, 64});
  expect_clean(kernel("cp.async.bulk.prefetch.L2.global [%rd0], 4096;"), {1, 32});
  // Without the fence, with the fence of another thread, without a wait.
  expect_failure_always(kernel(fill + "bar.sync 0;\n" + store), {1, 64},
                        {ErrorKind::kMissingFence,
                         "cp.async.bulk.global",
                         {0, 0, 0},
                         "st.shared",
                         {0, 0, 0},
                         "without a fence.proxy.async"});
  expect_failure_always(
      kernel(fill + "bar.sync 0;\n@%p0 fence.proxy.async;\n" + store), {1, 64},
      {ErrorKind::kMissingFence, "cp.async.bulk.global", {0, 0, 0}, "st.shared", {1, 0, 0}});
  expect_failure_always(
      kernel(fill + "bar.sync 0;\nfence.proxy.async;\n" + store), {1, 64},
      {ErrorKind::kMissingFence, "cp.async.bulk.global", {0, 0, 0}, "st.shared", {1, 0, 0}});
  expect_failure_always(
      kernel(fill + "fence.proxy.async;\nbar.sync 0;\n" + store), {1, 64},
      {ErrorKind::kMissingWait, "cp.async.bulk.global", {0, 0, 0}, "", {}, "the block ended with"});
  expect_failure_always(
      kernel(fill + "fence.proxy.async;\nbar.sync 0;\n" + store +
             "bar.sync 0;\nst.shared.u32 [%r5+0], 0;\n"),
      {1, 64}, {ErrorKind::kRace, "[%r5+0]", {32, 0, 0}, "", {}, "source of a bulk store"});
  expect_failure_always(
      kernel(fill + "fence.proxy.async;\nbar.sync 0;\n" + store +
             "@%p0 cp.async.bulk.wait_group.read 0;\nst.shared.u32 [%r5+0], 0;\n"),
      {1, 64}, {ErrorKind::kRace, "[%r5+0]", {1, 0, 0}, "cp.async.bulk.global"});
}

TEST_CASE("bulk-copied bytes are read too early") {
  expect_failure_always(kernel(kCopy + kRead), {1, 32},
                        {ErrorKind::kMissingWait, "ld.shared", {0, 0, 0}, "cp.async.bulk"});
  // After a wait on the wrong parity, which succeeds at once.
  expect_failure(kernel(kCopy + wait(0, 1) + kRead), {1, 32},
                 {ErrorKind::kMissingWait, "ld.shared", {0, 0, 0}, "cp.async.bulk"});
  // Only one lane has waited.
  expect_failure_always(kernel(kCopy + "@!%p0 bra HERE;\n" + wait(0, 0) + "HERE:\n" + kRead),
                        {1, 32},
                        {ErrorKind::kMissingWait, "ld.shared", {1, 0, 0}, "cp.async.bulk"});
  // The other warp has waited, and says so through global memory, which orders nothing here.
  expect_failure_always(
      kernel("setp.ge.u32 %p1, %r0, 32;\n@%p1 bra OTHER;\n" + kCopy + wait(0, 0) +
             "st.volatile.global.u32 [%rd0], 2;\nbra END;\nOTHER:\nld.volatile.global.u32 %r7, "
             "[%rd0];\nsetp.eq.u32 %p2, %r7, 1;\n@%p2 bra OTHER;\n" +
             kRead + "END:\n"),
      {1, 64},
      {ErrorKind::kMissingWait, "ld.shared", {32, 0, 0}, "cp.async.bulk", {0, 0, 0}, "no wait on"});
}

TEST_CASE("bytes are copied over while others use them") {
  const std::string fill = "add.u32 %r5, %r2, %r4; st.shared.u32 [%r5], %r0; fence.proxy.async;\n";
  expect_clean_always(kernel(fill + "bar.sync 0;\n" + kCopy + wait(0, 0)), {1, 64});
  expect_failure_always(kernel(fill + kCopy), {1, 32},
                        {ErrorKind::kRace, "cp.async.bulk", {0, 0, 0}, "st.shared", {1, 0, 0}});
  expect_failure_always(
      kernel("add.u32 %r5, %r2, %r4; st.shared.u32 [%r5], %r0;\nbar.sync 0;\n" + kCopy), {1, 32},
      {ErrorKind::kMissingFence, "cp.async.bulk", {0, 0, 0}, "st.shared", {0, 0, 0}});
  // Readers of the last round: each lane must arrive, or the warp must sync before one does.
  const std::string first = kCopy + wait(0, 0) + kRead;
  const std::string second = "@!%p0 bra END;\n" + wait(1, 0) + kCopy + wait(0, 1) + "END:\n";
  expect_clean_always(kernel(first +
                             "bar.warp.sync -1;\n@%p0 mbarrier.arrive.shared::cta.b64 _, "
                             "[%r3+8];\n" +
                             second),
                      {1, 32});
  expect_failure_always(
      kernel(first + "@%p0 mbarrier.arrive.shared::cta.b64 _, [%r3+8];\n" + "@!%p0 bra END;\n" +
             wait(1, 0) +
             "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2+0], [%rd0], "
             "4096, [%r3];\nEND:\n"),
      {1, 32}, {ErrorKind::kRace, "[%r2+0]", {0, 0, 0}, "ld.shared", {1, 0, 0}, "read of it"});
}

TEST_CASE("mbarrier misuse") {
  const ErrorKind misuse = ErrorKind::kBarrierMisuse;
  expect_failure(kernel("mbarrier.arrive.shared::cta.b64 _, [%r3+16];"), {1, 32},
                 {misuse, "[%r3+16]", {0, 0, 0}, "", {}, "no mbarrier was initialised"});
  expect_failure(kernel("mbarrier.arrive.shared::cta.b64 _, [%r3+4];"), {1, 32},
                 {ErrorKind::kMisaligned, "[%r3+4]", {0, 0, 0}});
  expect_failure(kernel("mbarrier.arrive.shared::cta.b64 _, [%r3+0];", 16), {1, 32},
                 {misuse, "arrive.shared", {0, 0, 0}, "", {}, "32 arrivals at mbarrier"});
  expect_failure(kernel("@%p0 mbarrier.arrive.shared::cta.b64 _, [%r3+0], 2;"), {1, 32},
                 {misuse, "arrive.shared", {0, 0, 0}, "", {}, "2 arrivals at mbarrier"});
  expect_failure(kernel("mov.u32 %r9, 0; mbarrier.init.shared.b64 [%r3+32], %r9;"), {1, 1},
                 {misuse, "[%r3+32]", {0, 0, 0}, "", {}, "for 0 arrivals"});
  expect_failure(kernel("@%p0 mbarrier.init.shared.b64 [%r3], 5;"), {1, 32},
                 {misuse, "[%r3], 5", {0, 0, 0}, "[%r3+0], 1", {0, 0, 0}, "initialised again"});
  expect_clean(
      kernel("@%p0 mbarrier.inval.shared.b64 [%r3];\n@%p0 mbarrier.init.shared.b64 [%r3], 5;"),
      {1, 32});
  expect_failure(kernel("@%p0 mbarrier.inval.shared.b64 [%r3];\nmbarrier.arrive.shared.b64 _, "
                        "[%r3+8];\nbar.sync 0;\nmbarrier.arrive.shared.b64 _, [%r3];"),
                 {1, 1}, {misuse, "_, [%r3];", {0, 0, 0}, "", {}, "no mbarrier"});
  expect_failure(kernel("mbarrier.test_wait.parity.shared.b64 %p1, [%r3], 2;"), {1, 32},
                 {misuse, "test_wait", {0, 0, 0}, "", {}, "phase parity 2"});
  expect_failure(kernel("mov.u64 %rd5, 0;\nmbarrier.test_wait.shared.b64 %p1, [%r3], %rd5;"),
                 {1, 32},
                 {misuse, "test_wait", {0, 0, 0}, "", {}, "not of the current or the last phase"});
  expect_failure(
      kernel(
          "@!%p0 bra END;\nmbarrier.arrive.shared.b64 %rd5, [%r3];\nmbarrier.arrive.shared.b64 _, "
          "[%r3];\nmbarrier.test_wait.shared.b64 %p1, [%r3], %rd5;\nEND:"),
      {1, 32}, {misuse, "test_wait", {0, 0, 0}, "", {}, "not of the current or the last phase"});
  expect_failure(kernel("@%p0 mbarrier.expect_tx.shared.b64 [%r3], 0x100000;"), {1, 32},
                 {misuse, "expect_tx", {0, 0, 0}, "", {}, "leaves its range"});
  expect_failure(
      kernel("ld.shared.u64 %rd5, [%r3];"), {1, 32},
      {misuse, "ld.shared", {0, 0, 0}, "mbarrier.init", {0, 0, 0}, "part of an mbarrier"});
  expect_failure(kernel("st.shared.u32 [%r3+12], 0;"), {1, 1},
                 {misuse, "st.shared", {0, 0, 0}, "[%r3+8], 1", {0, 0, 0}, "part of an mbarrier"});
}

TEST_CASE("the initialisation of an mbarrier must be seen") {
  const auto text = [](const std::string& fence, const std::string& sync, const std::string& use) {
    return kernel_text(
        "u64 a, u64 b",
        "ld.param.u64 %rd0, [a]; mov.u32 %r0, %tid.x; mov.u32 %r2, tile; mov.u32 %r3, "
        "bar;\nsetp.eq.u32 %p0, %r0, 0;\nsetp.eq.u32 %p1, %r0, 32;\n"
        "@%p0 mbarrier.init.shared.b64 [%r3], 1;\n" +
            fence + sync + use,
        ".shared .align 1024 .b8 tile[4096];\n.shared .align 8 .b8 bar[64];");
  };
  const std::string copy =
      "@%p1 mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 16;\n@%p1 "
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0], 16, "
      "[%r3];\n";
  expect_failure(
      text("", "", "@%p1 mbarrier.arrive.shared.b64 _, [%r3];"), {1, 64},
      {ErrorKind::kRace, "arrive", {32, 0, 0}, "init", {0, 0, 0}, "nothing orders after"});
  expect_clean(text("", "bar.sync 0;\n", "@%p1 mbarrier.arrive.shared.b64 _, [%r3];"), {1, 64});
  expect_failure(
      text("", "bar.sync 0;\n", copy), {1, 64},
      {ErrorKind::kMissingFence, "cp.async", {32, 0, 0}, "init", {0, 0, 0}, "fence.mbarrier_init"});
  expect_clean(text("fence.mbarrier_init.release.cluster;\n", "bar.sync 0;\n", copy + wait(0, 0)),
               {1, 64});
}

TEST_CASE("bulk copies: alignment, bounds, and the end of the block") {
  const auto copy = [](const std::string& operands) {
    return kernel("@%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes " +
                  operands);
  };
  const std::string at = "cp.async.bulk";
  expect_failure(copy("[%r2], [%rd0], 24, [%r3];"), {1, 32},
                 {ErrorKind::kMisaligned, at, {0, 0, 0}, "", {}, "24 bytes"});
  expect_failure(copy("[%r2+8], [%rd0], 16, [%r3];"), {1, 32},
                 {ErrorKind::kMisaligned, at, {0, 0, 0}, "", {}, "shared address"});
  expect_failure(copy("[%r2], [%rd0+8], 16, [%r3];"), {1, 32},
                 {ErrorKind::kMisaligned, at, {0, 0, 0}, "", {}, "global address"});
  expect_failure(copy("[%r2], [%rd0+4080], 32, [%r3];"), {1, 32},
                 {ErrorKind::kOutOfBounds, at, {0, 0, 0}, "", {}, "past its end"});
  expect_failure(copy("[%r2+4096], [%rd0], 128, [%r3];"), {1, 32},
                 {ErrorKind::kOutOfBounds, at, {0, 0, 0}, "", {}, "shared address"});
  expect_failure(copy("[%r2], [%rd0], 16, [%r3+16];"), {1, 32},
                 {ErrorKind::kBarrierMisuse, at, {0, 0, 0}, "", {}, "no mbarrier"});
  expect_failure(copy("[%r2], [%rd0], 16, [%r3];"), {1, 32},
                 {ErrorKind::kMissingWait, at, {0, 0, 0}, "", {}, "the block ended with"});
}

TEST_CASE("deadlock on an mbarrier names it") {
  const ErrorKind kind = ErrorKind::kDeadlock;
  // More bytes are expected than ever come.
  expect_failure_always(
      kernel("@%p0 mbarrier.expect_tx.shared.b64 [%r3], 16;\n" + kCopy + wait(0, 0)), {1, 32},
      {kind, "try_wait", {0, 0, 0}, "", {}, "(phase 0: 0 of 1 arrivals and 16 transaction bytes"});
  // An arrival is missing.
  expect_failure_always(
      kernel("@%p0 mbarrier.arrive.shared.b64 _, [%r3];\n" + wait(0, 0), 2), {1, 64},
      {kind, "try_wait", {0, 0, 0}, "", {}, "warp 1 lanes 0xffffffff wait at line"});
  // The wrong phase.
  expect_failure_always(
      kernel("@%p0 mbarrier.arrive.shared.b64 _, [%r3];\n" + wait(0, 0) + wait(0, 1)), {1, 32},
      {kind, "], 1;\n@!p", {0, 0, 0}, "", {}, "(phase 1: 1 of 1"});
}

TEST_CASE("setmaxnreg moves registers between warpgroups") {
  const std::string split = "setp.ge.u32 %p1, %r0, 128;\n@%p1 bra CONSUMER;\n";
  const auto text = [&](const std::string& dec, const std::string& inc) {
    return with_maxntid(
        kernel(split + "setmaxnreg.dec.sync.aligned.u32 " + dec +
               ";\nbra END;\nCONSUMER:\nsetmaxnreg.inc.sync.aligned.u32 " + inc + ";\nEND:\n"),
        384);
  };
  expect_clean_always(text("24", "240"), {1, 384});
  expect_clean_always(text("40", "232"), {1, 384});
  expect_failure_always(text("40", "240"), {1, 384},
                        {ErrorKind::kDeadlock, "setmaxnreg.inc", {352, 0, 0}, "", {}, "registers"});
  expect_failure(text("24", "160"), {1, 384},
                 {ErrorKind::kBarrierMisuse, "setmaxnreg.inc", {352, 0, 0}, "", {}, "have 168"});
  expect_failure(kernel("setmaxnreg.dec.sync.aligned.u32 24;"), {1, 128},
                 {ErrorKind::kUnsupported, "setmaxnreg", {96, 0, 0}, "", {}, ".maxntid"});
  const std::string one = "setp.lt.u32 %p1, %r0, 32;\n@%p1 bra END;\n";
  expect_failure(
      with_maxntid(kernel(one + "setmaxnreg.dec.sync.aligned.u32 24;\nEND:\n"), 128), {1, 128},
      {ErrorKind::kDivergentCollective, "setmaxnreg", {0, 0, 0}, "", {}, "has not executed"});
  expect_failure(with_maxntid(kernel("@%p0 setmaxnreg.dec.sync.aligned.u32 24;"), 128), {1, 128},
                 {ErrorKind::kDivergentCollective, "setmaxnreg", {1, 0, 0}});
  for (const char* count : {"16", "100", "264"}) {
    CHECK_THROWS_AS(Program::parse(text(count, "240")), Error);
  }
}

TEST_CASE("spellings that are accepted, and what is refused when parsing") {
  const char* accepted[] = {
      "mbarrier.init.shared.b64 [%r3], %r0;",
      "mbarrier.arrive.release.cta.shared::cta.b64 %rd1, [%r3], 2;",
      "mbarrier.arrive.shared::cluster.b64 _, [%r3];",
      "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 %rd1, [%r3], %r0;",
      "mbarrier.arrive.noComplete.shared::cta.b64 %rd1, [%r3], 2;",
      "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p1, [%r3], 1, 1000;",
      "mbarrier.try_wait.shared::cta.b64 %p1, [%r3], %rd1;",
      "mbarrier.test_wait.parity.b64 %p1, [%rd1], %r0;",
      "cp.async.mbarrier.arrive.noinc.b64 [%rd1];",
      "fence.proxy.async.shared::cluster;",
      "fence.acq_rel.cta;",
      "fence.sc.gpu;",
      "elect.sync %r1|%p1, -1;",
      "elect.sync _|%p1, 0xffffffff;",
      "barrier.cta.sync.aligned 1, 128;",
      "barrier.cta.arrive 1, 128;",
      "bar.arrive %r0, 256;",
      "griddepcontrol.wait;",
      "griddepcontrol.launch_dependents;",
      "createpolicy.fractional.L2::evict_first.b64 %rd1, 1.0;",
      "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r2], [%rd0], 16, [%r3];",
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%r2], "
      "[%rd0], %r0, [%r3+8], %rd1;",
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0, "
      "{%r0, 1}], [%r3];",
      "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%rd0, {0, 1}];",
      "ldmatrix.sync.aligned.x4.m8n8.shared.b16 {%r5, %r6, %r7, %r8}, [%r2];",
  };
  for (const char* text : accepted) {
    INFO(text);
    CHECK_NOTHROW(Program::parse(kernel(text)));
  }
  const char* refused[] = {
      "mbarrier.arrive_drop.shared.b64 %rd1, [%r3];",
      "mbarrier.arrive.relaxed.cta.shared::cta.b64 %rd1, [%r3];",
      "mbarrier.try_wait.parity.relaxed.cta.shared::cta.b64 %p1, [%r3], 1;",
      "mbarrier.pending_count.b64 %r1, %rd1;",
      "mapa.shared::cluster.u32 %r1, %r2, 0;",
      "barrier.cluster.arrive.aligned;",
      "fence.proxy.tensormap::generic.release.gpu;",
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r2], "
      "[%rd0], 16, [%r3], %h1;",
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r2], [%r2], 16, "
      "[%r3];",
      "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd0], [%r2], 16;",
      "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%r2], "
      "[%rd0, {%r0, 1, 2}], [%r3], {%h1};",
      "cp.async.bulk.global.shared::cta.bulk_group [%rd0, {0}], [%r2], 16;",
      "setmaxnreg.inc.sync.aligned.u32 30;",
      "ldmatrix.sync.aligned.m8n8.m8n8.shared.b16 {%r5}, [%r2];",
  };
  for (const char* text : refused) {
    INFO(text);
    CHECK_THROWS_AS(Program::parse(kernel(text)), Error);
  }
}
