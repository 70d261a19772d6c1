#include "compiler/backend/assemble/report.h"

#include <fmt/format.h>

#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

// As ptxas 13.0 writes it, of a module with two kernels.
constexpr std::string_view kReport = R"(ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'plain' for 'sm_80'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
ptxas info    : Compile time = 3.084 ms
ptxas info    : Compiling entry function 'spilling' for 'sm_80'
ptxas info    : Function properties for spilling
    288 bytes stack frame, 352 bytes spill stores, 404 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 288 bytes cumulative stack size, 1024 bytes smem
)";

std::vector<uint8_t> bytes(std::string_view text) {
  return {text.begin(), text.end()};
}

}  // namespace

TEST_CASE("the report of ptxas, whoever carries it") {
  const std::vector<KernelResources> expected = {{.kernel = "plain", .registers = 10},
                                                 {.kernel = "spilling",
                                                  .registers = 32,
                                                  .spill_store_bytes = 352,
                                                  .spill_load_bytes = 404,
                                                  .stack_bytes = 288,
                                                  .static_smem_bytes = 1024}};
  CHECK(parse_ptxas_report(kReport) == expected);
  // The driver's log has no program's name in front.
  std::string log(kReport);
  for (size_t at = log.find("ptxas "); at != log.npos; at = log.find("ptxas ")) log.erase(at, 6);
  CHECK(parse_ptxas_report(log) == expected);
  CHECK(parse_ptxas_report("").empty());
  CHECK(parse_ptxas_report("ptxas info    : Used 12 registers\n").empty());
}

TEST_CASE("spills are a fault") {
  MachineCode code;
  code.resources = parse_ptxas_report(kReport);
  CHECK(find_assembly_fault(code) ==
        "the assembler spills 404 bytes of registers in kernel 'spilling'");
  code.resources.pop_back();
  CHECK(find_assembly_fault(code) == "");
}

TEST_CASE("warnings of serialized wgmma and ignored setmaxnreg are faults") {
  for (const char* warning : {"C7504", "C7508", "C7511", "C7512", "C7514", "C7520"}) {
    MachineCode code;
    code.log = fmt::format("ptxas info : ({}) Potential Performance Loss", warning);
    CHECK(find_assembly_fault(code) ==
          fmt::format("the assembler reports {}: the kernel runs serialized", warning));
  }
}

TEST_CASE("an assembler that returns nonsense is found out") {
  MachineCode code{bytes("\177ELF..."), {{.kernel = "k", .registers = 8}}, "what it said"};
  CHECK_NOTHROW(check_machine_code(code, "fake 1.0"));
  code.cubin.clear();  // the driver's leaves none
  CHECK_NOTHROW(check_machine_code(code, "fake 1.0"));
  code.cubin = bytes("<html>");
  const Error garbage = thrown_by([&] { check_machine_code(code, "fake 1.0"); });
  CHECK(garbage.kind() == ErrorKind::kToolchain);
  CHECK(garbage.message() ==
        "fake 1.0 returned what is no machine code; use another release of it, or another "
        "--assembler");
  CHECK(garbage.log() == "what it said");
  code.cubin.clear();
  code.resources[0].registers = 0;
  for (int i = 0; i < 2; ++i) {
    CHECK_THAT(thrown_by([&] { check_machine_code(code, "fake 1.0"); }).message(),
               Catch::StartsWith("fake 1.0 returned no report of the kernel's registers; "));
    code.resources.clear();
  }
}

}  // namespace sagejit
