// What must not be done around a wgmma in flight, planted once each; and what may be done.
#include <fstream>
#include <sstream>

#include "tests/unit/emulator/planted.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

const std::string kFence = "wgmma.fence.sync.aligned;\n";
const std::string kCommit = "wgmma.commit_group.sync.aligned;\n";
const std::string kWait = "wgmma.wait_group.sync.aligned 0;\n";
const std::string kProxy = "fence.proxy.async;\n";
const std::string kBar = "bar.sync 0;\n";

// Operands A (64 x 32 bytes) at s, B (16 x 32 bytes) at s + 2048, both of zeros, written by all 128
// threads; %rd7, %rd8 are their descriptors; %r2 = s, %r5 = s + 4 * tid. %d0-7 are 0, %a0-3 too.
// `publish` follows the stores.
std::string kernel(const std::string& body, const std::string& publish = kProxy + kBar) {
  return kernel_text(
      "u64 a, u64 b",
      ".reg .b32 %d<16>; .reg .b32 %a<4>;\nld.param.u64 %rd0, [a]; mov.u32 %r0, %tid.x; mov.u32 "
      "%r2, "
      "s; mov.u32 %r3, bar;\nshl.b32 %r4, %r0, 2; add.u32 %r5, %r2, %r4; setp.eq.u32 %p0, %r0, 0;\n"
      "mov.b32 %d0, 0; mov.b32 %d1, 0; mov.b32 %d2, 0; mov.b32 %d3, 0; mov.b32 %d4, 0; mov.b32 "
      "%d5, "
      "0; mov.b32 %d6, 0; mov.b32 %d7, 0;\n"
      "mov.b32 %d8, 0; mov.b32 %d9, 0; mov.b32 %d10, 0; mov.b32 %d11, 0;\n"
      "mov.b32 %a0, 0; mov.b32 %a1, 0; mov.b32 %a2, 0; mov.b32 %a3, 0;\n"
      "@%p0 mbarrier.init.shared.b64 [%r3], 1;\n@%p0 "
      "fence.mbarrier_init.release.cluster;\nbar.sync 0;\n"
      "st.shared.u32 [%r5], 0; st.shared.u32 [%r5+512], 0; st.shared.u32 [%r5+1024], 0;\n"
      "st.shared.u32 [%r5+1536], 0;\nst.shared.u32 [%r5+2048], 0;\n" +
          publish +
          "shr.u32 %r6, %r2, 4; cvt.u64.u32 %rd6, %r6;\n"
          "or.b64 %rd7, %rd6, 0x800400000; add.u64 %rd6, %rd6, 128; or.b64 %rd8, %rd6, "
          "0x800100000;\n" +
          body,
      ".shared .align 1024 .b8 s[2560];\n.shared .align 8 .b8 bar[8];");
}

const std::string kD = "{%d0, %d1, %d2, %d3, %d4, %d5, %d6, %d7}";
const std::string kMma =
    "wgmma.mma_async.sync.aligned.m64n16k32.s32.s8.s8 " + kD + ", %rd7, %rd8, 1;\n";
const std::string kMmaAgain =  // the same, told apart by its text
    "wgmma.mma_async.sync.aligned.m64n16k32.s32.s8.s8 " + kD + ", %rd7,%rd8, 1;\n";
const std::string kMmaRegisters =
    "wgmma.mma_async.sync.aligned.m64n16k32.s32.s8.s8 " + kD + ", {%a0, %a1, %a2, %a3}, %rd8, 1;\n";
const std::string kOther =  // another shape on some of the same registers
    "wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 {%d0, %d1, %d2, %d3}, %rd7, %rd8, 1;\n";
const Shape kShape{1, 128};

const AsyncOrder kOrders[] = {AsyncOrder::kLate, AsyncOrder::kEarly, AsyncOrder::kRandom};

void clean(const std::string& text, Shape shape = kShape) {
  for (AsyncOrder order : kOrders) {
    for (uint64_t seed : {0, 1}) {
      Options o;
      o.async = order;
      o.seed = seed;
      expect_clean(text, shape, o);
    }
  }
}
// Whatever thread finds it first.
void fails(const std::string& text, ErrorKind kind, const std::string& at, const std::string& says,
           Shape shape = kShape) {
  for (AsyncOrder order : kOrders) {
    Options o;
    o.async = order;
    std::vector<uint32_t> data(1024, 1);
    const MemoryRange memory[] = {range(data, "data")};
    try {
      run_text(text, shape, Params(data, data), memory, o);
      FAIL("no error for: " << at);
    } catch (const Error& e) {
      INFO(e.what());
      CHECK(e.kind() == kind);
      CHECK(e.line() == line_of(text, at));
      CHECK(std::string(e.what()).find(says) != std::string::npos);
    }
  }
}

}  // namespace

TEST_CASE("wgmma: what is allowed") {
  clean(kernel(kFence + kMma + kCommit + kWait + "add.u32 %d0, %d0, 1;"));
  // A chain on the same accumulators needs no fence; other registers may be used meanwhile.
  clean(kernel(kFence + kMma + kMma + kCommit + "add.u32 %d8, %d9, 1;\n" + kMma + kCommit +
               "add.u32 %d8, %d9, 1;\n" + kWait + "add.u32 %d0, %d0, 1;"));
  // An older group is complete, a newer one is not.
  clean(kernel(
      kFence + kOther + kCommit +
      "wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 {%d4, %d5, %d6, %d7}, %rd7, %rd8, 1;\n" +
      kCommit + "wgmma.wait_group.sync.aligned 1;\nadd.u32 %d0, %d0, 1;\n" + kWait +
      "add.u32 %d4, %d4, 1;"));
  clean(kernel(kFence + kMmaRegisters + kCommit + kWait + "mov.b32 %a0, 1;\n" + kFence +
               kMmaRegisters + kCommit + kWait));
  // Accumulators need no value where they are overwritten.
  clean(kernel(
      ".reg .b32 %u<4>;\n" + kFence +
      "wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 {%u0, %u1, %u2, %u3}, %rd7, %rd8, 0;\n" +
      kCommit + kWait + "add.u32 %d0, %u0, 1;"));
  // Each warp's own rows of A, fenced and ordered within the warp.
  clean(kernel(
      kFence + kMma + kCommit + kWait +
      "mov.u32 %r7, %laneid; shr.u32 %r8, %r0, 5; shl.b32 %r8, %r8, 8; shl.b32 %r7, %r7, 2;\n"
      "add.u32 %r7, %r7, %r8; add.u32 %r7, %r7, %r2;\n" +
      kBar +
      "st.shared.u32 [%r7], 1; st.shared.u32 [%r7+128], 1;\nst.shared.u32 [%r7+1024], 1; "
      "st.shared.u32 [%r7+1152], 1;\n" +
      kProxy + "bar.warp.sync -1;\n" + kFence + kMma + kCommit + kWait));
}

TEST_CASE("wgmma: registers in flight") {
  const ErrorKind kind = ErrorKind::kMissingWait;
  const std::string flight = kernel(kFence + kMma + kCommit);
  const auto behind = [&](const std::string& group, const std::string& touch) {
    return kernel(kFence + group + touch + kCommit + kWait);
  };
  fails(behind(kMma, "add.u32 %d9, %d3, 1;\n"), kind, "add.u32 %d9",
        "is an accumulator of a wgmma");
  fails(behind(kMma + kCommit, "mov.b32 %d9, %d3;\n"), kind, "mov.b32 %d9, %d3",
        "no wgmma.wait_group");
  fails(behind(kMma + kCommit, "mov.b32 %d3, 77;\n"), kind, "77", "is an accumulator of a wgmma");
  fails(behind(kMma + kCommit + "wgmma.wait_group.sync.aligned 1;\n", "mov.b32 %d9, %d3;\n"), kind,
        "mov.b32 %d9, %d3", "no wgmma.wait_group");
  fails(behind(kMmaRegisters + kCommit, "mov.b32 %a2, 77;\n"), kind, "77", "is a fragment of A");
  fails(behind(kMmaRegisters + kCommit, "mov.b32 %d9, %a2;\n"), kind, "mov.b32 %d9, %a2",
        "is a fragment of A");
  // As A of the next one, or as accumulators of another shape.
  fails(behind(kMma + kCommit,
               kFence + "wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 {%d8, %d9, %d10, %d11}, "
                        "{%d0, %d1, %d2, %d3}, %rd8, 1;\n"),
        kind, "m64n8k32", "is an accumulator of a wgmma of another kind");
  fails(behind(kMma + kCommit, kFence + kOther), kind, "m64n8k32",
        "is an accumulator of a wgmma of another kind");
  fails(kernel(kFence + kMma + kCommit), kind, "wgmma.mma_async",
        "ended with this wgmma in flight");
  fails(kernel(kFence + kMma), kind, "wgmma.mma_async", "ended with this wgmma in flight");
  fails(kernel(kFence + kMma + kWait + "add.u32 %d9, %d3, 1;\n"), kind, "add.u32 %d9",
        "no wgmma.wait_group");  // never committed
}

TEST_CASE("wgmma: the register fence") {
  const ErrorKind kind = ErrorKind::kMissingFence;
  fails(kernel(kMma + kCommit + kWait), kind, "wgmma.mma_async",
        "before the first wgmma.mma_async");
  fails(kernel(kFence + "mov.b32 %d2, 1;\n" + kMma + kCommit + kWait), kind, "wgmma.mma_async",
        "accumulator 3 was accessed");
  fails(kernel(kFence + "mov.b32 %a2, 1;\n" + kMmaRegisters + kCommit + kWait), kind,
        "wgmma.mma_async", "fragment of A 3 was accessed");
  fails(kernel(kFence + kMma + kCommit + kWait + "add.u32 %d9, %d3, 1;\n" + kMmaAgain + kCommit +
               kWait),
        kind, "%rd7,%rd8", "was accessed by another instruction");
  fails(kernel(kFence + kMma + kCommit + kWait + kOther + kCommit + kWait), kind, "m64n8k32",
        "another shape since the last wgmma.fence");
}

TEST_CASE("wgmma: shared memory in flight") {
  const std::string use = kFence + kMma + kCommit + kWait;
  // Written by others before the wait, or before all others have waited.
  fails(kernel(kFence + kMma + kCommit + kBar + "st.shared.u32 [%r5+0], 1;\n" + kWait),
        ErrorKind::kRace, "[%r5+0]", "which a wgmma reads");
  clean(kernel(use + "st.shared.u32 [%r5+0], 1;\n"));
  // Read again while in flight: harmless.
  clean(kernel(kFence + kMma + kCommit + kBar + "ld.shared.u32 %r9, [%r5+0];\n" + kWait));
  const std::string copy =
      "@%p0 mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 16;\n"
      "@%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0], 16, "
      "[%r3];\n";
  const std::string done =
      "{\n.reg .pred p;\nW:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%r3], 0;\n@!p bra "
      "W;\n}\n";
  fails(kernel(kFence + kMma + kCommit + kBar + copy + kWait + done), ErrorKind::kRace,
        "cp.async.bulk", "which a wgmma reads");
  clean(kernel(use + copy + done));
  // Bytes on their way in.
  clean(kernel(copy + done + use));
  fails(kernel(copy + use + done), ErrorKind::kMissingWait, "wgmma.mma_async", "bulk copy");
  fails(kernel(copy + "@!%p0 bra HERE;\n" + done + "HERE:\n" + use), ErrorKind::kMissingWait,
        "wgmma.mma_async", "bulk copy");
}

TEST_CASE("wgmma: generic writes must be fenced and ordered") {
  const std::string use = kFence + kMma + kCommit + kWait;
  const ErrorKind kind = ErrorKind::kMissingFence;
  clean(kernel(use, kProxy + kBar));
  clean(kernel(use, "fence.proxy.async.shared::cta;\n" + kBar));
  fails(kernel(use, kBar), kind, "wgmma.mma_async", "without a fence.proxy.async");
  fails(kernel(use, kBar + kProxy), kind, "wgmma.mma_async", "without a fence.proxy.async");
  fails(kernel(use, "@%p0 fence.proxy.async;\n" + kBar), kind, "wgmma.mma_async",
        "without a fence.proxy.async");
  fails(kernel(use, "fence.proxy.async.global;\n" + kBar), kind, "wgmma.mma_async",
        "without a fence.proxy.async");
  fails(kernel("st.shared.u32 [%r5+2048], 0;\n" + kProxy + "bar.warp.sync -1;\n" + use),
        ErrorKind::kRace, "wgmma.mma_async", "not ordered after its last write");
}

TEST_CASE("wgmma: all warps of a warpgroup together") {
  const ErrorKind kind = ErrorKind::kDivergentCollective;
  const std::string use = kFence + kMma + kCommit + kWait;
  const std::string first = "setp.lt.u32 %p1, %r0, 32;\n";
  fails(kernel(use), kind, "wgmma.fence", "no whole warpgroup", {1, 96});
  fails(kernel("@%p0 " + kFence), kind, "wgmma.fence", "lanes 0xfffffffe are missing");
  fails(kernel(kFence + first + "@%p1 bra END;\n" + kMma + kCommit + kWait + "END:\n"),
        ErrorKind::kDeadlock, "wgmma.wait_group", "warp 0 has not executed that of line");
  fails(kernel(kFence + first + "@%p1 add.u64 %rd7, %rd7, 1;\n" + kMma + kCommit + kWait), kind,
        "wgmma.mma_async", "different wgmma.mma_async: descriptors");
  fails(kernel(kFence + first + "@%p1 bra HERE;\n" + kMma + "bra THERE;\nHERE:\n" + kMmaAgain +
               "THERE:\n" + kCommit + kWait),
        kind, "%rd7,%rd8", "the others executed line");
  fails(kernel(kFence + "@%p0 add.u64 %rd7, %rd7, 1;\n" + kMma + kCommit + kWait), kind,
        "wgmma.mma_async", "a matrix descriptor is");
  fails(kernel(kFence + "wgmma.mma_async.sync.aligned.m64n16k32.s32.s8.s8 " + kD +
               ", %rd7, %rd8, %p0;\n" + kCommit + kWait),
        kind, "wgmma.mma_async", "scale-d is true in lanes 0x00000001 only");
}

TEST_CASE("wgmma: descriptors and forms that are refused") {
  fails(kernel(kFence + "or.b64 %rd7, %rd7, 0x2000000000000;\n" + kMma + kCommit + kWait),
        ErrorKind::kUnsupported, "wgmma.mma_async", "with a base offset");
  fails(kernel(kFence + "mov.u64 %rd8, 0;\n" + kMma + kCommit + kWait), ErrorKind::kOutOfBounds,
        "wgmma.mma_async", "shared address 0x0");
  for (const char* form :
       {"m64n16k32.s32.s8.s8 {%d0,%d1,%d2,%d3,%d4,%d5,%d6,%d7}, %rd7, %rd8, 1, 1, 1;",
        "m64n16k16.f32.f16.f16 {%d0,%d1,%d2,%d3,%d4,%d5,%d6,%d7}, %rd7, %rd8, 1, 1, 1, 0;",
        "m64n16k32.f32.e4m3.e4m3 {%d0,%d1,%d2,%d3,%d4,%d5,%d6,%d7}, %rd7, %rd8, 1, 2, 1;",
        "m64n40k32.s32.s8.s8 {%d0,%d1,%d2,%d3}, %rd7, %rd8, 1;",
        "m64n16k32.s32.s8.s8 {%d0,%d1,%d2,%d3}, %rd7, %rd8, 1;",
        "m64n16k8.f32.tf32.tf32 {%d0,%d1,%d2,%d3,%d4,%d5,%d6,%d7}, %rd7, %rd8, 1, 1, 1;"}) {
    INFO(form);
    CHECK_THROWS_AS(Program::parse(kernel("wgmma.mma_async.sync.aligned." + std::string(form))),
                    Error);
  }
}
