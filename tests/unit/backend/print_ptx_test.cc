#include "compiler/backend/ptx/print_ptx.h"

#include <fmt/format.h>

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/common/ptx_version.h"
#include "tests/support/catch.h"
#include "tests/unit/backend/find_ptxas.h"
#include "tests/unit/backend/kernel_of_everything.h"

namespace sagejit {
namespace {

using Lines = std::vector<std::string>;

ir::Function function_of(std::string_view lines) {
  return ir::parse(
      fmt::format("kernel @k(x: i64, n: i32) threads 128 min_blocks 3 {{\n"
                  "smem @first offset 0 bytes 64\nsmem @s offset 64 bytes 64\n"
                  "%0:i64 = param @x\n%1:i32 = param @n\n%2:i32 = smem @s\n%3:f32 = f32.s32 %1\n"
                  "%4:pred = lt.s32 %1, 8\n{}}}\n",
                  lines));
}

// The PTX of `lines` in a kernel with parameters x, n, shared memory s at 64, and registers of each
// type: x is %d0; n, the address of s and a number of type f32 are %r0 to %r2; %p0.
Lines body_of(std::string_view lines) {
  std::string text = print_ptx_verbatim(function_of(lines), find_target("sm_90a"));
  constexpr std::string_view kStart =
      "  ld.param.b64 %d0, [p_x];\n"
      "  ld.param.b32 %r0, [p_n];\n"
      "  mov.b32 %r1, smem+64;\n"
      "  cvt.rn.f32.s32 %r2, %r0;\n"
      "  setp.lt.s32 %p0, %r0, 8;\n";
  constexpr std::string_view kEnd = "  ret;\n}\n";
  const size_t start = text.find(kStart);
  REQUIRE(start != std::string::npos);
  REQUIRE(text.ends_with(kEnd));
  text = text.substr(start + kStart.size());
  text.resize(text.size() - kEnd.size());
  Lines result;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    result.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return result;
}

std::string line_of(std::string_view line) {
  const Lines lines = body_of(std::string(line) + "\n");
  REQUIRE(lines.size() == 1);
  return lines[0];
}

}  // namespace

TEST_CASE("a module says what it needs of target, launch and shared memory") {
  const std::string text = print_ptx_verbatim(function_of(""), find_target("sm_90a"));
  CHECK_THAT(text, Catch::StartsWith(R"(.version 8.0
.target sm_90a
.address_size 64

.extern .shared .align 128 .b8 smem[];

.visible .entry k(
  .param .b64 p_x,
  .param .b32 p_n)
.maxntid 128
.minnctapersm 3
{
  .reg .pred %p<1>;
  .reg .b32 %r<3>;
  .reg .b64 %d<1>;
)"));
  CHECK_THAT(print_ptx_verbatim(function_of(""), find_target("sm_89")),
             Catch::StartsWith(".version 8.0\n.target sm_89\n"));
  const ir::Function none = ir::parse("kernel @k() threads 32 min_blocks 1 {\n}\n");
  CHECK(print_ptx_verbatim(none, find_target("sm_120")) ==
        ".version 8.7\n.target sm_120\n.address_size 64\n\n"
        ".visible .entry k()\n.maxntid 32\n.minnctapersm 1\n{\n  ret;\n}\n");
}

TEST_CASE("arithmetic takes its constants as immediates") {
  CHECK(line_of("%5:i32 = add.i32 %1, -1") == "  add.s32 %r3, %r0, -1;");
  CHECK(line_of("%5:f32 = fma.f32 %3, %3, 0f3f800000") ==
        "  fma.rn.f32 %r3, %r2, %r2, 0f3F800000;");
  CHECK(line_of("%5:i64 = mul.i64 %0, -2L") == "  mul.lo.s64 %d1, %d0, -2;");
  CHECK(line_of("%5:i32 = select.i32 %4, 3, %1") == "  selp.b32 %r3, 3, %r0, %p0;");
  CHECK(line_of("%5:i32 = prmt %1, %2, 21554") == "  prmt.b32 %r3, %r0, %r1, 21554;");
  CHECK(line_of("%5:pred = vote.any %4") == "  vote.sync.any.pred %p1, %p0, -1;");
}

TEST_CASE("hardware operations take constants from registers, but for those of the instruction") {
  CHECK(line_of("%5:i32 = ld.shared.b32 %2, 12") == "  ld.shared.b32 %r3, [%r1+12];");
  CHECK(line_of("st.global.b32 %0, -4, %1") == "  st.global.b32 [%d0+-4], %r0;");
  CHECK(line_of("cp.async %2, 0, %0, 16, %1") ==
        "  cp.async.cg.shared.global [%r1+0], [%d0+16], 16, %r0;");
  // One register for both, set where the kernel starts.
  const std::string text = print_ptx_verbatim(function_of("st.shared.v4.b32 %2, 0, 7, %1, 7, 1\n"),
                                              find_target("sm_90a"));
  CHECK_THAT(text, Catch::Contains("  mov.b32 %r4, 1;\n  mov.b32 %r3, 7;\n  ld.param"));
  CHECK_THAT(text, Catch::Contains("  st.shared.v4.b32 [%r1+0], {%r3, %r0, %r3, %r4};\n"));
}

TEST_CASE("variables are registers that are written in place") {
  CHECK(
      body_of("$5:f32 = var 0f00000000\n%6:f32 = get $5\n%7:f32 = add.f32 %6, %3\nset $5, %7\n") ==
      Lines{"  mov.b32 %r3, 0f00000000;", "  add.rn.f32 %r3, %r3, %r2;"});
  CHECK(body_of("$5:i32 = var %1\n%6:i32 = get $5\nset $5, 0\nst.global.b32 %0, 0, %6\n") ==
        Lines{"  mov.b32 %r3, %r0;", "  mov.b32 %r4, %r3;", "  mov.b32 %r3, 0;",
              "  st.global.b32 [%d0+0], %r4;"});
}

TEST_CASE("a number and its bits are one register") {
  CHECK(body_of("%5:i32 = bits.f32 %3\nst.global.b32 %0, 0, %5\n") ==
        Lines{"  st.global.b32 [%d0+0], %r2;"});
  CHECK(line_of("%5:f32 = f32.bits -1") == "  mov.b32 %r3, -1;");
}

TEST_CASE("loops test at their end and are never unrolled") {
  CHECK(body_of("for %5:i32 = 0 to %1 step 2 {\nst.global.b32 %0, 0, %5\n}\n") ==
        Lines{"  mov.b32 %r3, 0;", "  setp.ge.s32 %p1, %r3, %r0;", "  @%p1 bra END0;", "LOOP0:",
              "  .pragma \"nounroll\";", "  st.global.b32 [%d0+0], %r3;", "  add.s32 %r3, %r3, 2;",
              "  setp.lt.s32 %p1, %r3, %r0;", "  @%p1 bra LOOP0;", "END0:"});
  CHECK(body_of("$5:i32 = var %1\nwhile $5 {\nset $5, 0\n}\n") ==
        Lines{"  mov.b32 %r3, %r0;", "  setp.eq.s32 %p1, %r3, 0;", "  @%p1 bra END0;",
              "LOOP0:", "  .pragma \"nounroll\";", "  mov.b32 %r3, 0;",
              "  setp.ne.s32 %p1, %r3, 0;", "  @%p1 bra LOOP0;", "END0:"});
}

TEST_CASE("an if jumps over what is not taken") {
  CHECK(body_of("if %4 {\nbarrier\n}\n") == Lines{"  @!%p0 bra END0;", "  bar.sync 0;", "END0:"});
  CHECK(body_of("if.uniform %4 {\nbarrier\n} else {\nif %4 {\nwarp.sync\n}\n}\n") ==
        Lines{"  @%p0 bra THEN0;", "  @!%p0 bra END1;", "  bar.warp.sync -1;",
              "END1:", "  bra END0;", "THEN0:", "  bar.sync 0;", "END0:"});
}

TEST_CASE("products of a warpgroup write their variables in place") {
  CHECK(body_of("$5:i32 = var 0\n$6:i32 = var 0\n"
                "wgmma.f16.f16 $5, $6, %0, %0, 0, 1\ntie $5, $6\nwgmma.commit\n"
                "wgmma.wait 1, $5, $6\n") ==
        Lines{"  mov.b32 %r3, 0;", "  mov.b32 %r4, 0;",
              "  wgmma.fence.sync.aligned; wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 "
              "{%r3, %r4}, %d0, %d0, 0, 1, 1, 0, 1;",
              "  wgmma.commit_group.sync.aligned;", "  wgmma.wait_group.sync.aligned 1;"});
}

TEST_CASE("a kernel is simplified before it is printed") {
  const std::string text = print_ptx(function_of("$5:i32 = var 8\n%6:i32 = get $5\n"
                                                 "%7:i64 = zext.i64 %6\n%8:i64 = add.i64 %0, %7\n"
                                                 "tie $5\nst.global.b32 %8, 4, %1\n"),
                                     find_target("sm_80"));
  CHECK_THAT(text, Catch::EndsWith("{\n  .reg .b32 %r<1>;\n  .reg .b64 %d<1>;\n"
                                   "  ld.param.b64 %d0, [p_x];\n  ld.param.b32 %r0, [p_n];\n"
                                   "  st.global.b32 [%d0+12], %r0;\n  ret;\n}\n"));
}

TEST_CASE("every operation is accepted by the assembler, in the PTX version of each target") {
  const auto ptxas = find_ptxas();
  if (!ptxas) return;
  for (const Target& target : all_targets()) {
    INFO(target.name);
    const MachineCode code =
        verdict(*ptxas, print_ptx_verbatim(kernel_of_everything(target), target), target);
    INFO(code.log);
    CHECK_FALSE(code.cubin.empty());
  }
}

// Each at the version that it is printed in, and refused at the one before, where the target has
// that.
TEST_CASE("a kernel is printed in the least PTX version that has its instructions") {
  struct Row {
    const char *target, *version, *before;
    ir::Op op;
  };
  const auto ptxas = find_ptxas();
  for (const Row& row : {Row{"sm_89", "8.0", nullptr, ir::Op::kMmaS8},
                         {"sm_89", "8.1", "8.0", ir::Op::kPackE4M3},
                         {"sm_90", "8.0", nullptr, ir::Op::kPackE4M3},
                         {"sm_89", "8.4", "8.3", ir::Op::kMmaE4M3F32},
                         {"sm_89", "8.7", "8.6", ir::Op::kMmaE4M3F16},
                         {"sm_120", "8.7", "8.6", ir::Op::kMmaS8},
                         {"sm_90a", "8.0", nullptr, ir::Op::kWgmmaE4M3F32},
                         {"sm_90a", "8.4", "8.3", ir::Op::kWgmmaU8S8}}) {
    CAPTURE(row.target, row.version);
    const Target& target = find_target(row.target);
    std::string text = print_ptx_verbatim(kernel_of(row.op, target), target);
    const std::string version = fmt::format(".version {}\n", row.version);
    CHECK_THAT(text, Catch::StartsWith(version));
    if (!ptxas) continue;
    CHECK_FALSE(verdict(*ptxas, text, target).cubin.empty());
    if (!row.before) continue;
    text.replace(0, version.size(), fmt::format(".version {}\n", row.before));
    const MachineCode refused = verdict(*ptxas, text, target);
    CHECK(refused.cubin.empty());
    CHECK_THAT(refused.log, Catch::Contains("version", Catch::CaseSensitive::No) ||
                                Catch::Contains("requires .target"));
  }
}

TEST_CASE("PTX versions: of CUDA releases, and what is beyond them") {
  CHECK(ptx_version_of_cuda(11, 8) == 0);
  CHECK(ptx_version_of_cuda(12, 0) == 80);
  CHECK(ptx_version_of_cuda(12, 6) == 85);
  CHECK(ptx_version_of_cuda(12, 8) == 87);
  CHECK(ptx_version_of_cuda(13, 0) == 90);
  CHECK(ptx_version_of_cuda(99, 0) >= 91);
  CHECK(ptx_version_for_any_kernel(find_target("sm_80")) == 80);
  CHECK(ptx_version_for_any_kernel(find_target("sm_89")) == 87);
  CHECK(ptx_version_for_any_kernel(find_target("sm_90a")) == 84);
  CHECK(kernels_beyond(88) == "");
  CHECK(kernels_beyond(87) == "sm_103a takes PTX 8.8 (CUDA 12.9)");
  CHECK(kernels_beyond(80, find_target("sm_86")) == "");
  CHECK(
      kernels_beyond(84) ==
      "some kernels for sm_89 take PTX 8.7 (CUDA 12.8), sm_100a takes PTX 8.6 (CUDA 12.7), "
      "sm_103a takes PTX 8.8 (CUDA 12.9), sm_120 takes PTX 8.7 (CUDA 12.8), sm_120a takes PTX 8.7 "
      "(CUDA 12.8)");
}

TEST_CASE("every product of a warpgroup is accepted by the assembler, none is serialized") {
  const auto ptxas = find_ptxas();
  if (!ptxas) return;
  const Target& target = find_target("sm_90a");
  const MachineCode code =
      verdict(*ptxas, print_ptx_verbatim(kernel_of_every_warpgroup_product(), target), target);
  INFO(code.log);
  CHECK_FALSE(code.cubin.empty());
  CHECK(find_assembly_fault(code) == "");
}

}  // namespace sagejit
