#include "compiler/backend/cuda/print_cuda.h"

#include <fmt/format.h>

#include "compiler/backend/assemble/report.h"
#include "tests/support/catch.h"
#include "tests/unit/backend/find_nvrtc.h"
#include "tests/unit/backend/kernel_of_everything.h"

namespace sagejit {
namespace {

using ir::Op;

// The CUDA C++ of `lines` in a kernel with parameters x, n, shared memory s at 64, and one register
// of each type: r0 i64, r1 and r2 i32, r3 f32, r4 bool. One string a line, without the kernel's
// own.
std::vector<std::string> body_of(std::string_view lines) {
  const ir::Function function = ir::parse(
      fmt::format("kernel @k(x: i64, n: i32) threads 128 min_blocks 3 {{\n"
                  "smem @first offset 0 bytes 64\nsmem @s offset 64 bytes 64\n"
                  "%0:i64 = param @x\n%1:i32 = param @n\n%2:i32 = smem @s\n%3:f32 = f32.s32 %1\n"
                  "%4:pred = lt.s32 %1, 8\n{}}}\n",
                  lines));
  std::string text = print_cuda(function);
  constexpr std::string_view kStart =
      "// Every fused multiply-add is written out: compile with --fmad=false.\n"
      "extern __shared__ __align__(128) unsigned char smem[];\n"
      "\n"
      "extern \"C\" __global__ void __launch_bounds__(128, 3) k(unsigned long long p_x, unsigned "
      "p_n) {\n"
      "  const unsigned long long r0 = p_x;\n"
      "  const unsigned r1 = p_n;\n"
      "  const unsigned r2 = (unsigned)__cvta_generic_to_shared(smem) + 64u;\n"
      "  const float r3 = __int2float_rn((int)r1);\n"
      "  const bool r4 = (int)r1 < (int)8u;\n";
  REQUIRE(text.starts_with(kStart));
  REQUIRE(text.ends_with("}\n"));
  text = text.substr(kStart.size(), text.size() - kStart.size() - 2);
  std::vector<std::string> result;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    result.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return result;
}

std::string line_of(std::string_view line) {
  const std::vector<std::string> lines = body_of(std::string(line) + "\n");
  REQUIRE(lines.size() == 1);
  return lines[0];
}

}  // namespace

TEST_CASE("operations with a native spelling are printed as C++") {
  CHECK(line_of("%5:i32 = add.i32 %1, -1") == "  const unsigned r5 = r1 + 4294967295u;");
  CHECK(line_of("%5:f32 = mul.f32 %3, %3") == "  const float r5 = r3 * r3;");
  CHECK(line_of("%5:f32 = fma.f32 %3, %3, 0f3f800000") ==
        "  const float r5 = __fmaf_rn(r3, r3, __uint_as_float(0x3f800000u));");
  CHECK(line_of("%5:i64 = mul.i64 %0, -2L") ==
        "  const unsigned long long r5 = r0 * 18446744073709551614ull;");
  CHECK(line_of("%5:f32 = select.f32 %4, %3, 0f00000000") ==
        "  const float r5 = r4 ? r3 : __uint_as_float(0x00000000u);");
  CHECK(line_of("%5:i32 = tid") == "  const unsigned r5 = threadIdx.x;");
  CHECK(line_of("%5:pred = vote.any %4") == "  const bool r5 = __any_sync(0xffffffffu, r4) != 0;");
}

TEST_CASE(
    "hardware operations are printed as assembly, volatile and clobbering as their effect says") {
  // pure: may be moved and removed
  CHECK(line_of("%5:f32 = ex2.approx %3") ==
        R"(  float r5; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r5) : "f"(r3));)");
  CHECK(
      line_of("%5:f32, %6:f32 = unpack.f16x2 %1") ==
      R"(  float r5; float r6; asm("{ .reg .b16 lo, hi; mov.b32 {lo, hi}, %2; cvt.f32.f16 %0, lo; )"
      R"(cvt.f32.f16 %1, hi; }" : "=f"(r5), "=f"(r6) : "r"(r1));)");
  // read: keeps its place among volatile ones
  CHECK(
      line_of("%5:i32 = ld.shared.b32 %2, 12") ==
      R"(  unsigned r5; asm volatile("ld.shared.b32 %0, [%1+%2];" : "=r"(r5) : "r"(r2), "n"(12));)");
  // write: also tells the compiler about memory
  CHECK(
      line_of("st.global.b32 %0, -4, %1") ==
      R"(  asm volatile("st.global.b32 [%0+%1], %2;" : : "l"(r0), "n"(-4), "r"(r1) : "memory");)");
  CHECK(
      line_of("cp.async %2, 0, %0, 16, %1") ==
      R"(  asm volatile("cp.async.cg.shared.global [%0+%1], [%2+%3], 16, %4;" : : "r"(r2), "n"(0), )"
      R"("l"(r0), "n"(16), "r"(r1) : "memory");)");
  // sync: with neither, without results, with both
  CHECK(line_of("barrier") == R"(  asm volatile("bar.sync 0;" : : : "memory");)");
  CHECK(line_of("cp.async.wait 1") ==
        R"(  asm volatile("cp.async.wait_group %0;" : : "n"(1) : "memory");)");
  CHECK(
      line_of("%5:f32 = shfl.xor.f32 %3, 4") ==
      R"(  float r5; asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, -1;" : "=f"(r5) : "f"(r3), )"
      R"("n"(4) : "memory");)");
}

TEST_CASE("a percent sign of the instruction is doubled, those of operands are not") {
  CHECK(line_of("%5:i32 = tid.again") ==
        R"(  unsigned r5; asm volatile("mov.u32 %0, %%tid.x;" : "=r"(r5));)");
}

TEST_CASE("a tensor-core product is one instruction over whole fragments") {
  CHECK(
      line_of("%5:i32, %6:i32 = mma.f16.f16 %1, %1, %1, %1, %2, %2, %1, %2") ==
      R"(  unsigned r5; unsigned r6; asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, )"
      R"({%2, %3, %4, %5}, {%6, %7}, {%8, %9};" : "=r"(r5), "=r"(r6) : "r"(r1), "r"(r1), "r"(r1), )"
      R"("r"(r1), "r"(r2), "r"(r2), "r"(r1), "r"(r2));)");
}

TEST_CASE(
    "a product of a warpgroup writes its variables in place, behind its fence if it has one") {
  const std::string vars = "$5:i32 = var 0\n$6:i32 = var 0\n";
  const auto last_line = [&](std::string_view line) {
    return body_of(fmt::format("{}{}\n", vars, line)).back();
  };
  CHECK(
      last_line("wgmma.f16.f16 $5, $6, %0, %0, 0, 1") ==
      R"(  asm volatile("wgmma.fence.sync.aligned; wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 )"
      R"({%0, %1}, %2, %3, 0, 1, 1, 0, 1;" : "+r"(x5), "+r"(x6) : "l"(r0), "l"(r0) : "memory");)");
  CHECK(last_line("wgmma.f16.f16 $5, $6, %1, %1, %2, %2, %0, 1, 0") ==
        R"(  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 {%0, %1}, )"
        R"({%2, %3, %4, %5}, %6, 1, 1, 1, 1;" : "+r"(x5), "+r"(x6) : "r"(r1), "r"(r1), "r"(r2), )"
        R"("r"(r2), "l"(r0) : "memory");)");
  CHECK(last_line("wgmma.wait 1, $5, $6") ==
        R"(  asm volatile("wgmma.wait_group.sync.aligned 1;" : "+r"(x5), "+r"(x6) : : "memory");)");
  CHECK(last_line("wgmma.commit") ==
        R"(  asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");)");
  // Nothing but a place that the values must have been computed before.
  CHECK(last_line("tie $5, $6") == R"(  asm volatile("" : "+r"(x5), "+r"(x6));)");
}

TEST_CASE("integer and 8-bit products have no layout of B to choose") {
  const std::string vars =
      "$5:i32 = var 0\n$6:i32 = var 0\n$7:i32 = var 0\n$8:i32 = var 0\n"
      "$9:f32 = var %3\n$10:f32 = var %3\n$11:f32 = var %3\n$12:f32 = var %3\n";
  const auto has = [&](std::string_view line, std::string_view part) {
    const std::string text = body_of(fmt::format("{}{}\n", vars, line)).back();
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  has("wgmma.s8 $5, $6, $7, $8, %0, %0, 0, 1",
      "m64n8k32.s32.s8.s8 {%0, %1, %2, %3}, %4, %5, 0;\" : \"+r\"(x5)");
  has("wgmma.e4m3.f32 $9, $10, $11, $12, %1, %1, %1, %1, %0, 1, 1",
      "m64n8k32.f32.e4m3.e4m3 {%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, 1, 1, 1;\" : \"+f\"(x9)");
  has("wgmma.bf16.f32 $9, $10, $11, $12, %1, %1, %1, %1, %0, 1, 1", "%8, 1, 1, 1, 1;\"");
}

TEST_CASE("barriers of sm_90 loop until their phase is complete") {
  CHECK(
      line_of("mbarrier.wait %2, %1") ==
      R"(  asm volatile("{ .reg .pred done; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], )"
      R"(%1; @!done bra AGAIN; }" : : "r"(r2), "r"(r1) : "memory");)");
  CHECK(
      line_of("mbarrier.init %2, 4") ==
      R"(  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(r2), "n"(4) : "memory");)");
  CHECK(line_of("mbarrier.arrive %2") ==
        R"(  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(r2) : "memory");)");
}

TEST_CASE("structural operations are printed as C++") {
  CHECK(body_of("$5:f32 = var %3\n# sums\nfor %6:i32 = 0 to %1 step 2 {\nif %4 {\n%7:f32 = get $5\n"
                "set $5, %7\n} else {\nset $5, %3\n}\n}\n") ==
        std::vector<std::string>{"  float x5 = r3;", "  // sums", "  #pragma unroll 1",
                                 "  for (unsigned r6 = 0u; (int)r6 < (int)r1; r6 += 2u) {",
                                 "    if (r4) {", "      const float r7 = x5;", "      x5 = r7;",
                                 "    } else {", "      x5 = r3;", "    }", "  }"});
}

TEST_CASE("a loop while a variable is not 0 is never unrolled") {
  CHECK(body_of("$5:i32 = var %1\nwhile $5 {\nset $5, 0\n}\n") ==
        std::vector<std::string>{"  unsigned x5 = r1;", "  #pragma unroll 1", "  while (x5) {",
                                 "    x5 = 0u;", "  }"});
}

TEST_CASE("percent signs in assembly stand for operands or are doubled") {
  const ir::Function function = kernel_of_everything(find_target("sm_90a"));
  const std::string text = print_cuda(function);
  for (size_t at = text.find("asm"); at != std::string::npos; at = text.find("asm", at + 1)) {
    const size_t begin = text.find('"', at), end = text.find('"', begin + 1);
    const std::string instruction = text.substr(begin + 1, end - begin - 1);
    INFO(instruction);
    CHECK(instruction.find('$') == std::string::npos);
    for (size_t i = instruction.find('%'); i != std::string::npos;
         i = instruction.find('%', i + 2)) {
      REQUIRE(i + 1 < instruction.size());
      CHECK(
          (instruction[i + 1] == '%' || (instruction[i + 1] >= '0' && instruction[i + 1] <= '9')));
    }
  }
}

TEST_CASE("every operation is accepted by the compiler and the assembler") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  for (const char* name : {"sm_80", "sm_90a"}) {
    INFO(name);
    const Target& target = find_target(name);
    const ir::Function function = kernel_of_everything(target);
    const NvrtcOutput output = nvrtc->compile(print_cuda(function), target, /*assemble=*/true);
    CHECK_FALSE(output.cubin.empty());
    for (int i = 0; i < static_cast<int>(Op::kParam); ++i) {
      const ir::OpInfo& row = info(static_cast<Op>(i));
      if (!row.cuda.empty() || !has(target, static_cast<Op>(i))) continue;
      const std::string_view instruction = row.ptx.substr(0, row.ptx.find_first_of(" ;"));
      INFO(row.name);
      CHECK(output.ptx.find(instruction) != std::string::npos);
    }
  }
}

TEST_CASE("every product of a warpgroup is accepted by the compiler and the assembler") {
  const std::unique_ptr<Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const ir::Function function = kernel_of_every_warpgroup_product();
  const NvrtcOutput output =
      nvrtc->compile(print_cuda(function), find_target("sm_90a"), /*assemble=*/true);
  CHECK_FALSE(output.cubin.empty());
  CHECK(find_assembly_fault({{}, parse_ptxas_report(output.log), output.log}) == "");
  for (int i = static_cast<int>(Op::kWgmmaWait) + 1; i < static_cast<int>(Op::kCount); ++i) {
    const ir::WgmmaInfo& row = *ir::find_wgmma(static_cast<Op>(i));
    CHECK(output.ptx.find(fmt::format("m64n32k{}.{} ", row.k, row.types)) != std::string::npos);
  }
}

}  // namespace sagejit
