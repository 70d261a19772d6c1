// What back ends cost where it counts: registers, spills and machine instructions of the main loops
// (main_loops.h) of attention, by back end, all assembled by the same ptxas.
//
//   SAGEJIT_RESOURCES=all     every shipped variant; otherwise those that covered() says
//   SAGEJIT_MAIN_LOOPS=FILE   the report goes there, too
#include "tests/unit/backend/main_loops.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <fstream>
#include <numeric>
#include <optional>

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/cuda/cuda_backend.h"
#include "compiler/backend/ptx/ptx_backend.h"
#include "compiler/compile.h"
#include "compiler/kernels/generators.h"
#include "compiler/plan/forward_plan.h"
#include "compiler/support/error.h"
#include "runtime/toolchain/nvdisasm.h"
#include "runtime/toolchain/search.h"
#include "tests/reference/parallel.h"
#include "tests/support/shipped_variants.h"
#include "tests/unit/backend/find_llvm.h"
#include "tests/unit/backend/find_nvrtc.h"
#include "tests/unit/backend/find_ptxas.h"

namespace sagejit {
namespace {

constexpr std::string_view kTargets[] = {"sm_80", "sm_89", "sm_90a", "sm_120"};
constexpr std::array<std::string_view, 3> kBackends = {"ptx", "llvm", "cuda"};
constexpr size_t kPrinted = 0, kCuda = 2;

// Of instructions in the main loops together, over those of CUDA C++'s: 0.97 to 1.015 were seen
// with CUDA 13.0 and LLVM 19. What goes wrong (an invariant in the loop, a wait serialized) costs
// more.
constexpr double kMargin = 1.03;

struct Cell {
  KernelResources resources;
  std::string fault;
  std::vector<int> loops;  // instructions

  int instructions() const { return std::accumulate(loops.begin(), loops.end(), 0); }
};

struct Row {
  Variant variant;
  const Target* target;
  std::string schedule = {};                                     // empty: unsupported
  std::array<std::optional<Cell>, kBackends.size()> cells = {};  // none: not known to that back end
  std::string error = {};
};

// The tools of this machine.
struct Tools {
  std::array<std::shared_ptr<const Backend>, kBackends.size()> backends;
  std::shared_ptr<const Assembler> ptxas;
  std::string nvdisasm;
};

// None, and a warning in the test's output, where one is missing that there must be.
std::optional<Tools> find_tools() {
  const SearchResult nvdisasm = search_nvdisasm(SearchOptions::from(Environment::read()));
  if (nvdisasm.file.empty()) WARN("skipped: " << nvdisasm_failure(nvdisasm));
  std::shared_ptr<const Assembler> ptxas = find_ptxas();
  std::shared_ptr<const Nvrtc> nvrtc = find_nvrtc();
  if (nvdisasm.file.empty() || !ptxas || !nvrtc) return std::nullopt;
  return Tools{
      {make_ptx_backend(), find_llvm(), make_cuda_backend(nvrtc)}, std::move(ptxas), nvdisasm.file};
}

// sm_90a gets every family of variants at every head dim, the others every family; what is left of
// the sweeps takes turns. Of these every sixteenth, as each is compiled three times.
std::vector<Row> covered() {
  const char* chosen = std::getenv("SAGEJIT_RESOURCES");
  const bool all = chosen && std::string_view(chosen) == "all";
  std::vector<Row> rows;
  for (size_t t = 0; t < std::size(kTargets); ++t) {
    const Target& target = find_target(kTargets[t]);
    const auto key = [&](const Variant& v) {
      if (all) return v.name;
      return target.wgmma ? fmt::format("{} {}", family_of(v), v.head_dim) : family_of(v);
    };
    for (Variant& v : taking_turns(shipped_variants(SAGEJIT_ROOT), key, t)) {
      rows.push_back({std::move(v), &target});
    }
  }
  constexpr size_t kShare = 16;
  if (all) return rows;
  std::vector<Row> share;
  for (size_t i = 0; i < rows.size(); i += kShare) share.push_back(std::move(rows[i]));
  return share;
}

ir::Function attention_of(const Row& row, const Schedule& schedule) {
  const ForwardPlan plan = make_forward_plan(row.variant, schedule, *row.target);
  for (ir::Function& kernel : generate_kernels(plan)) {
    if (kernel.name == "attention") return std::move(kernel);
  }
  fail(ErrorKind::kInternal, "a plan without attention");
}

// None for a back end that is not here, or does not know the target or an instruction.
std::optional<Cell> compile_with(const Backend* backend, const ir::Function& kernel,
                                 const Target& target, const Tools& tools) {
  if (!backend) return std::nullopt;
  std::string ptx;
  try {
    ptx = backend->to_ptx(kernel, target);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnsupported) throw;
    return std::nullopt;
  }
  const MachineCode code = tools.ptxas->assemble(ptx, target);
  check_machine_code(code, tools.ptxas->name());
  Cell cell{code.resources.at(0), find_assembly_fault(code), {}};
  for (const auto& loop : main_loops(disassemble(tools.nvdisasm, code.cubin))) {
    cell.loops.push_back(static_cast<int>(loop.size()));
  }
  return cell;
}

// The schedule that compile() takes for printed PTX: the first without a fault.
void run(Row& row, const Tools& tools) {
  try {
    for (const Schedule& schedule : schedules_of({row.variant, row.target, {}, true})) {
      const ir::Function kernel = attention_of(row, schedule);
      row.schedule = print_schedule(schedule);
      row.cells[kPrinted] =
          compile_with(tools.backends[kPrinted].get(), kernel, *row.target, tools);
      if (!row.cells[kPrinted]->fault.empty()) continue;
      for (size_t i = 1; i < kBackends.size(); ++i) {
        row.cells[i] = compile_with(tools.backends[i].get(), kernel, *row.target, tools);
      }
      return;
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnsupported) row.error = error.what();
  }
}

// "168 regs, 612 + 715", the loops in the order of the code
std::string text_of(const std::optional<Cell>& cell) {
  if (!cell) return "-";
  const int spills = cell->resources.spill_store_bytes + cell->resources.spill_load_bytes;
  return fmt::format("{} regs, {}{}", cell->resources.registers, fmt::join(cell->loops, " + "),
                     spills ? fmt::format(", {} B of spills", spills) : "");
}

std::string report(const std::vector<Row>& rows) {
  std::string text = "| target | variant | schedule |";
  for (const std::string_view name : kBackends) text += fmt::format(" {} |", name);
  text += " ptx / cuda | llvm / cuda |\n|---|---|---|---|---|---|---|---|\n";
  for (const Row& row : rows) {
    if (!row.cells[kCuda]) continue;
    text += fmt::format("| {} | {} | {} |", row.target->name, row.variant.name, row.schedule);
    for (const auto& cell : row.cells) text += fmt::format(" {} |", text_of(cell));
    for (size_t i = 0; i < kCuda; ++i) {
      const double ratio = row.cells[i] ? static_cast<double>(row.cells[i]->instructions()) /
                                              row.cells[kCuda]->instructions()
                                        : 0;
      text += row.cells[i] ? fmt::format(" {:.3f} |", ratio) : " - |";
    }
    text += '\n';
  }
  return text;
}

void check(const Row& row) {
  CHECK(row.error == "");
  if (!row.cells[kCuda]) return;
  const Cell& cuda = *row.cells[kCuda];
  CHECK(!cuda.loops.empty());
  for (size_t i = 0; i < kCuda; ++i) {
    if (!row.cells[i]) continue;
    CAPTURE(kBackends[i]);
    const Cell& cell = *row.cells[i];
    CHECK(cell.loops.size() == cuda.loops.size());
    CHECK(cell.instructions() <= kMargin * cuda.instructions());
  }
}

}  // namespace

TEST_CASE("main loops are as short by way of PTX and of LLVM as by way of CUDA C++",
          "[resources]") {
  const std::optional<Tools> tools = find_tools();
  if (!tools) return;
  std::vector<Row> rows = covered();
  reference::parallel_for(static_cast<int64_t>(rows.size()),
                          [&](int64_t i) { run(rows[static_cast<size_t>(i)], *tools); });
  const std::string text = report(rows);
  fmt::print("{}", text);
  if (const char* file = std::getenv("SAGEJIT_MAIN_LOOPS")) std::ofstream(file) << text;
  for (const Row& row : rows) {
    INFO(row.variant.name << " on " << row.target->name << ": " << row.schedule);
    check(row);
  }
}

TEST_CASE("main loops: innermost, with products, and with what comes back to them") {
  const auto loops = main_loops(R"(
.text.attention:
        /*0000*/                   MOV R1, 0x1 ;
.L_x_0:
        /*0010*/                   IMMA.16832.S8.S8 R4, R8.ROW, R6.COL, RZ ;
.L_x_1:
        /*0020*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR36], R11 ;
        /*0030*/              @!P0 BRA `(.L_x_4) ;
.L_x_2:
        /*0040*/                   BSSY B0, `(.L_x_3) ;
        /*0050*/                   HMMA.16816.F32 R4, R8, R6, R4 ;
.L_x_3:
        /*0060*/                   BRA.U UP1, `(.L_x_1) ;
.L_x_5:
        /*0070*/                   FADD R1, R1, R1 ;
        /*0080*/               @P1 BRA `(.L_x_5) ;
        /*0090*/               @P2 BRA `(.L_x_0) ;
        /*00a0*/                   EXIT ;
.L_x_4:
        /*00b0*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR36], R11 ;
        /*00c0*/              @!P0 BRA `(.L_x_4) ;
        /*00d0*/                   BRA `(.L_x_2) ;
.L_x_6:
        /*00e0*/                   BRA `(.L_x_6) ;
        /*00f0*/                   NOP ;
)");
  REQUIRE(loops.size() == 1);
  CHECK(loops[0] == std::vector<std::string>{
                        "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR36], R11", "@!P0 BRA `(.L_x_4)",
                        "BSSY B0, `(.L_x_3)", "HMMA.16816.F32 R4, R8, R6, R4",
                        "BRA.U UP1, `(.L_x_1)", "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR36], R11",
                        "@!P0 BRA `(.L_x_4)", "BRA `(.L_x_2)"});
  CHECK(main_loops("").empty());
}

}  // namespace sagejit
