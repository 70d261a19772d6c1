// Every shipped variant, assembled for every target: no spills, nothing the assembler serialized,
// registers and shared memory within what the schedule counts on.
//
//   SAGEJIT_RESOURCES=all     every instance; otherwise the targets take turns as covered() says
//   SAGEJIT_RESOURCES=wgmma   of the targets sm_90a alone, where the masks take turns, too
//   SAGEJIT_TEST_BACKEND, SAGEJIT_TEST_ASSEMBLER   tests/support/toolchain_choice.h
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/toolchain.h"
#include "compiler/compile.h"
#include "compiler/kernels/generators.h"
#include "compiler/plan/forward_plan.h"
#include "compiler/sema/check.h"
#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "tests/reference/parallel.h"
#include "tests/support/catch.h"
#include "tests/support/shipped_variants.h"
#include "tests/support/toolchain_choice.h"

namespace sagejit {
namespace {

constexpr std::string_view kTargets[] = {"sm_80",  "sm_86",   "sm_89",  "sm_90",
                                         "sm_90a", "sm_100a", "sm_120", "sm_120a"};

struct Job {
  Variant variant;
  const Target* target;
  // Results.
  std::vector<std::string> failures;
  std::string schedule;   // empty: unsupported
  bool is_first = false;  // the first of the default schedules
  int registers = 0;      // of attention
};

// Null, and a warning in the test's output, where it is not here.
const Toolchain* find_toolchain() {
  static LazyToolchain toolchain(test::toolchain_options());
  try {
    return &toolchain.get(true);
  } catch (const Error& error) {
    WARN("skipped: no toolchain\n" << error.what());
    return nullptr;
  }
}

// LLVM 19, say, has never heard of sm_120.
bool knows(const Toolchain& toolchain, const Target& target) {
  try {
    toolchain.compile(ir::parse("kernel @k() threads 32 min_blocks 1 {\n}\n"), target, false);
    return true;
  } catch (const Error& error) {
    REQUIRE(error.kind() == ErrorKind::kUnsupported);
    fmt::print("{}: not covered: {}\n", target.name, error.message());
    return false;
  }
}

// sm_120a has what sm_120 has, and fp4.
bool is_covered(const Variant& v, const Target& target) {
  return !target.fp4_mma || v.q.type == DType::kE2M1;
}

// sm_90a, where the fast kernels are, gets every variant, head dim and mask, the others every
// variant and head dim; what is left of the sweep takes turns from one to the next, so that every
// target meets every value.
std::vector<Job> covered(const Toolchain& toolchain) {
  const char* chosen = std::getenv("SAGEJIT_RESOURCES");
  const std::string_view which = chosen ? chosen : "";
  std::vector<Job> jobs;
  for (size_t t = 0; t < std::size(kTargets); ++t) {
    const Target& target = find_target(kTargets[t]);
    if (which == "wgmma" && !target.wgmma) continue;
    if (!knows(toolchain, target)) continue;
    const auto key = [&](const Variant& v) {
      if (which == "all") return v.name;
      std::string text = fmt::format("{} {}", family_of(v), v.head_dim);
      const bool with_mask = target.wgmma && which != "wgmma";
      return with_mask ? fmt::format("{} {}", text, static_cast<int>(v.mask.kind)) : text;
    };
    std::vector<Variant> variants = shipped_variants(SAGEJIT_ROOT);
    std::erase_if(variants, [&](const Variant& v) { return !is_covered(v, target); });
    for (Variant& v : taking_turns(variants, key, t)) {
      jobs.push_back({std::move(v), &target, {}, "", false, 0});
    }
  }
  return jobs;
}

// An unsupported variant is said to be, with lines that mend it.
void check_unsupported(Job& job, const Error& error) {
  if (error.kind() != ErrorKind::kUnsupported) {
    job.failures.push_back(fmt::format("{}\n{}", error.what(), error.log()));
    return;
  }
  const Variant nearest = nearest_supported(job.variant, *job.target);
  const bool is_told = error.message().find(
                           "the nearest variant that is supported has these lines "
                           "instead:") != std::string::npos;
  if (!is_told || nearest == job.variant || nearest_supported(nearest, *job.target) != nearest) {
    job.failures.push_back(fmt::format("unsupported without a way out: {}", error.message()));
  }
}

int most_registers(const Artifact& artifact, const KernelLaunch& launch, const Target& target) {
  constexpr int kMost = 255, kStep = 8;
  const Schedule schedule = parse_schedule(artifact.schedule_text);
  const int blocks = launch.kernel == "attention" ? schedule.blocks_per_sm : 1;
  return std::min(kMost, target.regs_per_sm / (launch.block_threads * blocks) / kStep * kStep);
}

void check_launch(Job& job, const Artifact& artifact, const KernelLaunch& launch) {
  const auto fail_job = [&](const std::string& what) {
    job.failures.push_back(fmt::format("{}: {}", launch.kernel, what));
  };
  const auto it = std::find_if(artifact.resources.begin(), artifact.resources.end(),
                               [&](const auto& r) { return r.kernel == launch.kernel; });
  if (it == artifact.resources.end()) return fail_job("the assembler reports no such kernel");
  if (launch.kernel == "attention") job.registers = it->registers;
  const int budget = most_registers(artifact, launch, *job.target);
  if (it->registers < 1 || it->registers > budget) {
    fail_job(fmt::format("{} registers, the schedule leaves {}", it->registers, budget));
  }
  const Schedule schedule = parse_schedule(artifact.schedule_text);
  const bool moves = launch.kernel == "attention" && moves_registers(schedule);
  // Warpgroups move registers within what the block starts with; were it less, they would wait for
  // ever.
  if (moves && it->registers != wgmma_registers_of_roles(schedule).start) {
    fail_job(fmt::format("{} registers, of which warpgroups take more", it->registers));
  }
  if (it->stack_bytes != 0) fail_job(fmt::format("a stack of {} bytes", it->stack_bytes));
  if (it->static_smem_bytes != 0) fail_job("static shared memory, which no plan counts");
  if (launch.dynamic_smem_bytes > job.target->smem_per_block) {
    fail_job(fmt::format("{} bytes of shared memory, {} allows {}", launch.dynamic_smem_bytes,
                         job.target->name, job.target->smem_per_block));
  }
}

// The plan's shared memory is what the kernels reserve, and what the schedule was chosen by.
void check_shared_memory(Job& job, const Artifact& artifact) {
  const Schedule schedule = parse_schedule(artifact.schedule_text);
  const ForwardPlan plan = make_forward_plan(job.variant, schedule, *job.target);
  const std::vector<ir::Function> kernels = generate_kernels(plan);
  for (size_t i = 0; i < kernels.size(); ++i) {
    const KernelLaunch& launch = artifact.plan.launches.at(i);
    const int bytes = kernels[i].smem_bytes();
    if (launch.kernel != kernels[i].name || launch.dynamic_smem_bytes != bytes) {
      job.failures.push_back(
          fmt::format("{}: a launch gives {} bytes of shared memory, {} reserves {}", launch.kernel,
                      launch.dynamic_smem_bytes, kernels[i].name, bytes));
    }
    if (launch.kernel != "attention") continue;
    const int predicted = attention_smem_bytes(job.variant, schedule);
    if (bytes != predicted) {
      job.failures.push_back(fmt::format(
          "attention reserves {} bytes of shared memory, predicted were {}", bytes, predicted));
    }
  }
}

void run(Job& job, const Toolchain& toolchain) {
  CompileRequest request;
  request.variant = job.variant;
  request.target = job.target;
  try {
    const Artifact artifact = compile(request, toolchain);
    job.schedule = artifact.schedule_text;
    const Schedule first = default_schedule(job.variant, *job.target);
    job.is_first = job.schedule == print_schedule(first);
    // A warpgroup alone has nobody to hide its softmax behind.
    if (parse_schedule(job.schedule).num_warps == 4 && first.wgmma && first.num_warps > 4) {
      job.failures.push_back(
          fmt::format("'{}', the first choice, has a fault", print_schedule(first)));
    }
    const std::string fault = find_assembly_fault({{}, artifact.resources, artifact.assembler_log});
    if (!fault.empty()) job.failures.push_back(fault);
    for (const KernelModule& module : artifact.modules) {
      if (module.cubin.empty()) job.failures.push_back(module.kernel + " has no machine code");
    }
    for (const KernelLaunch& launch : artifact.plan.launches) check_launch(job, artifact, launch);
    check_shared_memory(job, artifact);
  } catch (const Error& error) {
    check_unsupported(job, error);
  }
}

// What was covered, a line a target; and where the first choice was not the best.
void report(const std::vector<Job>& jobs) {
  for (const std::string_view name : kTargets) {
    size_t num_compiled = 0, num_unsupported = 0;
    int registers = 0;
    std::set<std::string> schedules;
    for (const Job& job : jobs) {
      if (job.target->name != name) continue;
      if (job.schedule.empty()) {
        ++num_unsupported;
        continue;
      }
      ++num_compiled;
      schedules.insert(job.schedule);
      registers = std::max(registers, job.registers);
    }
    fmt::print(
        "{}: {} variants assembled with {} schedules, at most {} registers in attention; {} "
        "unsupported\n",
        name, num_compiled, schedules.size(), registers, num_unsupported);
  }
  for (const Job& job : jobs) {
    if (job.schedule.empty() || job.is_first) continue;
    fmt::print("note: {} on {}: the first default schedule has a fault, '{}' is taken\n",
               job.variant.name, job.target->name, job.schedule);
  }
  std::fflush(stdout);
}

TEST_CASE("shipped variants assemble as their schedules predict", "[resources]") {
  const Toolchain* toolchain = find_toolchain();
  if (!toolchain) return;
  std::vector<Job> jobs = covered(*toolchain);
  reference::parallel_for(static_cast<int64_t>(jobs.size()),
                          [&](int64_t i) { run(jobs[static_cast<size_t>(i)], *toolchain); });
  report(jobs);
  for (const Job& job : jobs) {
    INFO(job.variant.name << " on " << job.target->name << ": " << job.schedule);
    CHECK(job.failures == std::vector<std::string>{});
  }
}

// The largest products of one to three warpgroups assemble; larger ones are refused by the
// schedule, not by the assembler.
TEST_CASE("schedules at the edge of the registers of products", "[resources]") {
  const Toolchain* toolchain = find_toolchain();
  if (!toolchain) return;
  struct Edge {
    int head_dim, num_warps, block_n;
    bool fits;
  };
  const Edge edges[] = {{32, 4, 256, true},   {32, 8, 256, true},   {32, 12, 192, true},
                        {192, 12, 32, true},  {256, 8, 32, true},   {32, 12, 224, false},
                        {32, 12, 256, false}, {208, 12, 32, false}, {256, 12, 32, false}};
  const Target& target = find_target("sm_90a");
  for (const Edge& edge : edges) {
    const std::string text = fmt::format(
        "edge {{ head_dim = {}; q = int8 per block(64); k = int8 "
        "per block(64); p = f16; v = f16 }}",
        edge.head_dim);
    const Variant variant = resolve_variants("<test>", text).front();
    Schedule schedule = default_schedule(variant, target);
    schedule.num_warps = edge.num_warps;
    schedule.block_m = 16 * edge.num_warps;
    schedule.block_n = edge.block_n;
    schedule.stages = 2;
    schedule.overlap = schedule.ping_pong = false;
    INFO(print_schedule(schedule));
    bool fits = true;
    try {
      check_schedule(variant, schedule, target);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::kUnsupported);
      fits = false;
    }
    CHECK(fits == edge.fits);
    if (fits) CHECK_NOTHROW(compile({variant, &target, schedule, true}, *toolchain));
  }
}

TEST_CASE("a kernel whose registers its warpgroups cannot share out is refused") {
  const Schedule three{.wgmma = true, .num_warps = 12}, one{.wgmma = true, .num_warps = 4};
  const auto with = [](int registers) {
    return std::vector<KernelResources>{{.kernel = "prepare", .registers = 64},
                                        {.kernel = "attention", .registers = registers}};
  };
  CHECK_NOTHROW(check_register_pool(three, with(128)));
  CHECK_NOTHROW(check_register_pool(one, with(70)));
  CHECK_NOTHROW(check_register_pool({.num_warps = 12}, with(70)));
  const auto message = [&](const std::vector<KernelResources>& resources) {
    try {
      check_register_pool(three, resources);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::kToolchain);
      return error.message();
    }
    return std::string();
  };
  CHECK_THAT(message(with(120)), Catch::Contains("share out 128 registers a thread, the assembler "
                                                 "gave it 120"));
  CHECK_THAT(message({}), Catch::Contains("does not say how many"));
}

}  // namespace
}  // namespace sagejit
