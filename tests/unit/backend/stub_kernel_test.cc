#include "compiler/backend/assemble/stub_kernel.h"

#include <fmt/format.h>

#include "compiler/backend/assemble/nvrtc_assembler.h"
#include "compiler/backend/assemble/report.h"
#include "compiler/backend/ptx/print_ptx.h"
#include "tests/support/catch.h"
#include "tests/unit/backend/find_nvrtc.h"
#include "tests/unit/backend/kernel_of_everything.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

constexpr std::string_view kModule = R"(// a module
.version 7.8
.target sm_80
.address_size 64

.extern .shared .align 128 .b8 smem[];

.visible .entry k(
  .param .b64 p_out, /* where */
  .param .b32 p_n)
.maxntid 64, 1, 1
.minnctapersm 2
{
  .reg .b32 %r<3>;
  // p_out {
  ld.param.b32 %r0, [p_n]; // of p_out
  mov.b32 %r1, smem+16;
  { add.s32 %r2, %r0, %r1; }
  ret;
}
)";

std::string replaced(std::string_view what, std::string_view with) {
  std::string text(kModule);
  const size_t at = text.find(what);
  REQUIRE(at != text.npos);
  return text.replace(at, what.size(), with);
}

}  // namespace

TEST_CASE("PTX travels in a kernel of the same name, parameters and bounds") {
  CHECK(stub_kernel(kModule) == R"(extern __shared__ __align__(128) unsigned char smem[];
extern "C" __global__ void __launch_bounds__(64, 2) k(unsigned long long p0, unsigned p1) {
asm volatile(R"ptx({
  .reg .b32 %%r<3>;
ld.param.b32 %%r0, [k_param_1];
mov.b32 %%r1, smem+16;
  { add.s32 %%r2, %%r0, %%r1; }
  ret;
})ptx" : : "l"(smem) : "memory");
}
)");
}

TEST_CASE("a kernel without parameters, shared memory and a second bound") {
  CHECK(stub_kernel(".version 7.0 .target sm_80 .address_size 64 .entry k() .maxntid 32 {ret;}") ==
        "extern \"C\" __global__ void __launch_bounds__(32) k() {\n"
        "asm volatile(R\"ptx({ret;})ptx\" : : \"n\"(0) : \"memory\");\n}\n");
}

TEST_CASE("what a stub cannot carry is refused by name") {
  struct Case {
    std::string ptx, message;
  };
  const Case cases[] = {
      {replaced(".visible", ".const .b8 table[4];\n.visible"), "a module with '.const'"},
      {replaced(".minnctapersm", ".maxnreg"), "a kernel with '.maxnreg'"},
      {replaced(".maxntid 64, 1, 1", ".maxntid 8, 8, 1"), "'8' where '1' is expected"},
      {replaced(".maxntid", ".reqntid"), "'.reqntid' where '.maxntid' is expected"},
      {replaced(".b32 p_n", ".b16 p_n"), "whose parameter 'p_n' is '.b16'"},
      {replaced("smem[]", "smem[64]"), "'64' where ']' is expected"},
      {std::string(kModule) + ".entry second() {ret;}", "more than kernel 'k'"},
  };
  for (const Case& c : cases) {
    INFO(c.message);
    const Error error = thrown_by([&] { stub_kernel(c.ptx); });
    CHECK(error.kind() == ErrorKind::kUnsupported);
    CHECK_THAT(error.message(), Catch::Contains(c.message) && Catch::Contains("--assembler ptxas"));
  }
  CHECK(thrown_by([&] { stub_kernel(kModule.substr(0, kModule.size() - 3)); }).kind() ==
        ErrorKind::kInternal);
}

TEST_CASE("NVRTC assembles printed PTX for every target") {
  const std::shared_ptr<const Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const auto assembler = make_nvrtc_assembler(nvrtc);
  CHECK(assembler->name() == nvrtc->version());
  for (const Target& target : all_targets()) {
    INFO(target.name);
    const ir::Function kernel = kernel_of_everything(target);
    MachineCode code;
    try {
      code = assembler->assemble(print_ptx(kernel, target), target);
    } catch (const Error& error) {
      FAIL(error.message() << '\n' << error.log());
    }
    CHECK_NOTHROW(check_machine_code(code, assembler->name()));
    REQUIRE(code.resources.size() == 1);
    CHECK(code.resources[0].kernel == kernel.name);
    CHECK_FALSE(code.cubin.empty());
  }
}

TEST_CASE("NVRTC's assembler refuses wrong PTX with its words") {
  const std::shared_ptr<const Nvrtc> nvrtc = find_nvrtc();
  if (!nvrtc) return;
  const Error error = thrown_by([&] {
    make_nvrtc_assembler(nvrtc)->assemble(replaced("ret;", "nonsense.b32;"), find_target("sm_80"));
  });
  CHECK(error.kind() == ErrorKind::kToolchain);
  CHECK_THAT(error.log(), Catch::Contains("nonsense"));
}

}  // namespace sagejit
