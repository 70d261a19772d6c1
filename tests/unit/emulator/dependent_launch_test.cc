// Launches that overlap by programmatic dependent launch: what is not waited for is not there.
#include "tests/support/catch.h"
#include "tests/unit/emulator/emulate.h"

using namespace sagejit::emulator;
using namespace sagejit::emulator::test;

namespace {

// %rd0 = data, %r0 = tid, %r1 = ctaid; s[64] in shared memory.
struct Step {
  std::string body;
  Shape shape = {};
  bool is_dependent = true;
};

const std::string kWait = "griddepcontrol.wait;\n";
const std::string kLaunch = "griddepcontrol.launch_dependents;\n";

// The kernels of a stream are called a, b, c.
std::string text_of(const Step& step, size_t number) {
  std::string text =
      kernel_text("u64 data",
                  "ld.param.u64 %rd0, [data];\nmov.u32 %r0, %tid.x;\nmov.u32 %r1, %ctaid.x;\n"
                  ".shared .align 16 .b8 s[64];\n" +
                      step.body);
  text[text.find(".entry k(") + 7] = static_cast<char>('a' + number);
  return text;
}

// What the launches leave in `data`, of 64 words that were 1.
std::vector<uint32_t> run_stream(const std::vector<Step>& steps, Options options = {}) {
  std::vector<uint32_t> data(64, 1);
  const MemoryRange memory[] = {range(data, "data")};
  const Params params(data);
  std::vector<QueuedLaunch> launches;
  for (const Step& step : steps) {
    const Program program = Program::parse(text_of(step, launches.size()));
    LaunchConfig config;
    config.kernel = program.kernels().at(0).name;
    config.grid[0] = step.shape.blocks;
    config.block[0] = step.shape.threads;
    config.params = params.bytes();
    config.memory = memory;
    config.options = options;
    config.is_dependent = step.is_dependent;
    launches.push_back({program, config});
  }
  run(launches);
  return data;
}

// Fails with `kind`, in the kernel that is called `kernel`, at the first line with `at`.
void expect_failure(const std::vector<Step>& steps, ErrorKind kind, const std::string& kernel,
                    const std::string& at, Options options = {}) {
  try {
    run_stream(steps, options);
    FAIL("no error");
  } catch (const Error& e) {
    INFO(e.what());
    CHECK(e.kind() == kind);
    CHECK(e.info().kernel == kernel);
    const size_t number = static_cast<size_t>(kernel[0] - 'a');
    CHECK(e.line() == line_of(text_of(steps[number], number), at));
  }
}

std::string store(int word, const std::string& value) {
  return "mov.u32 %r30, " + value + ";\nst.global.u32 [%rd0+" + std::to_string(4 * word) +
         "], %r30;\n";
}
std::string copy(int to, int from) {
  return "ld.global.u32 %r31, [%rd0+" + std::to_string(4 * from) + "];\n" + store(to, "%r31");
}
std::string count(int word) {
  return "red.release.gpu.global.add.u32 [%rd0+" + std::to_string(4 * word) + "], 1;\n";
}
// Until it has been counted that often.
std::string poll(int word, int times = 1) {
  return "W" + std::to_string(word) + ":\nld.acquire.gpu.global.b32 %r7, [%rd0+" +
         std::to_string(4 * word) + "];\nsetp.ne.u32 %p9, %r7, " + std::to_string(1 + times) +
         ";\n@%p9 bra W" + std::to_string(word) + ";\n";
}
std::string only(const std::string& condition, const std::string& body) {
  return "setp." + condition + ";\n@!%p1 bra SKIP;\n" + body + "SKIP:\n";
}
// One bulk copy from the first words of data.
std::string bulk_copy() {
  return "mov.u32 %r2, s;\nmov.u32 %r3, s;\nadd.u32 %r3, %r3, 32;\n"
         "mbarrier.init.shared::cta.b64 [%r3], 1;\nfence.mbarrier_init.release.cluster;\n"
         "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 16;\n"
         "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0], 16, "
         "[%r3];\n"
         "M:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0;\n@!%p2 bra M;\n"
         "ld.shared.u32 %r4, [%r2];\nst.global.u32 [%rd0+128], %r4;\n";
}

const Options kHabits[] = {
    {}, {.num_threads = 1}, {.seed = 1, .num_threads = 4}, {.async = AsyncOrder::kEarly}};

TEST_CASE("what a dependent launch reads before its wait is old, and behind it new") {
  const Step first{kWait + kLaunch + store(0, "7")};
  for (const Options& options : kHabits) {
    CHECK(run_stream({first, {copy(1, 0) + kWait}}, options)[1] == 1);
    CHECK(run_stream({first, {kWait + copy(1, 0)}}, options)[1] == 7);
    // Each thread waits for itself.
    const auto data =
        run_stream({first,
                    {only("eq.u32 %p1, %r0, 0", kWait + copy(1, 0)) +
                         "setp.eq.u32 %p1, %r0, 32;\n@!%p1 bra END;\n" + copy(2, 0) + "END:\n",
                     {1, 64}}},
                   options);
    CHECK(data[1] == 7);
    CHECK(data[2] == 1);
  }
}

TEST_CASE("a wait is for all blocks of the launch before") {
  const Step first{kWait + kLaunch + only("eq.u32 %p1, %r0, 0", count(0)), {200, 64}};
  for (const Options& options : kHabits) {
    CHECK(run_stream({first, {kWait + copy(1, 0), {8, 32}}}, options)[1] == 201);
  }
}

TEST_CASE("who may start before the launch before is complete") {
  const std::string last = store(0, "7");
  const Step reads{copy(1, 0) + kWait};
  // A launch that is not dependent, and one behind blocks that do not launch it.
  CHECK(run_stream({{kWait + kLaunch + last}, {copy(1, 0), {}, false}})[1] == 7);
  CHECK(run_stream({{kWait + last, {4, 32}}, reads})[1] == 7);
  CHECK(run_stream({{kWait + last + kLaunch}, reads})[1] == 7);
  // The third waits for the second alone: for the first too only if the second has done so.
  const Step second{kWait + kLaunch + copy(2, 0)};
  const Step hasty{kLaunch + kWait + copy(2, 0)};
  const Step third{copy(3, 0) + copy(4, 2) + kWait + copy(5, 2)};
  for (const Options& options : kHabits) {
    auto data = run_stream({{kLaunch + kWait + last}, second, third}, options);
    CHECK(std::vector(data.begin(), data.begin() + 6) == std::vector<uint32_t>{7, 1, 7, 7, 1, 7});
    data = run_stream({{kLaunch + kWait + last}, hasty, third}, options);
    CHECK(std::vector(data.begin(), data.begin() + 6) == std::vector<uint32_t>{7, 1, 7, 1, 1, 7});
  }
}

// Piece t of the first launch is in word 8 + t, and counted in word t.
TEST_CASE("pieces that are handed over by counters") {
  std::string pieces, waits, forgets;
  for (int t = 0; t < 4; ++t) {
    pieces += store(8 + t, std::to_string(100 + t)) + count(t);
    waits += poll(t) + copy(16 + t, 8 + t);
    forgets += (t == 2 ? "" : poll(t)) + copy(16 + t, 8 + t);
  }
  const auto copied = [](const std::vector<uint32_t>& data) {
    return std::vector(data.begin() + 16, data.begin() + 20);
  };
  for (const Options& options : kHabits) {
    const Step first{kWait + kLaunch + only("eq.u32 %p1, %r0, 0", pieces)};
    CHECK(copied(run_stream({first, {waits + kWait}}, options)) ==
          std::vector<uint32_t>{100, 101, 102, 103});
    CHECK(copied(run_stream({first, {forgets + kWait}}, options)) ==
          std::vector<uint32_t>{100, 101, 1, 103});
  }
  // Of many blocks, to many blocks.
  const Step counts{kWait + kLaunch + count(0), {50, 1}};
  const Step polls{poll(0, 50) + count(1) + kWait, {50, 1}};
  for (const Options& options : kHabits) CHECK(run_stream({counts, polls}, options)[1] == 51);
}

TEST_CASE("threads that spin on others of their block do not keep the launch before from ending") {
  const std::string body =
      "mov.u32 %r2, s;\nsetp.eq.u32 %p1, %r0, 0;\n@%p1 st.shared.u32 [%r2], 0;\nbar.sync 0;\n"
      "setp.lt.u32 %p1, %r0, 32;\n@%p1 bra WAITS;\n"
      "L:\nld.volatile.shared.u32 %r5, [%r2];\nsetp.eq.u32 %p2, %r5, 0;\n@%p2 bra L;\n" +
      copy(1, 0) + "bra END;\nWAITS:\n" + kWait +
      "mov.u32 %r6, 1;\nst.volatile.shared.u32 [%r2], %r6;\nEND:\n";
  CHECK(run_stream({{kWait + kLaunch + store(0, "7")}, {body, {1, 64}}},
                   {.check_races = false})[1] == 7);
}

TEST_CASE("each block of a dependent launch waits somewhere") {
  const Step first{kWait + kLaunch};
  const ErrorKind kind = ErrorKind::kMissingGridWait;
  expect_failure({first, {store(0, "7")}}, kind, "b", "ret;");
  expect_failure({{kLaunch}, {kWait}}, kind, "a", "ret;");
  expect_failure({first, {only("ne.u32 %p1, %r1, 3", kWait), {5, 32}}}, kind, "b", "ret;");
  CHECK_NOTHROW(run_stream({{kLaunch, {}, false}, {only("eq.u32 %p1, %r0, 9", kWait)}}));
}

TEST_CASE("a wait for what the launch before never counts ends") {
  const Options options = {.max_steps = 1 << 16};
  expect_failure({{kWait + kLaunch + count(1)}, {poll(0) + kWait}}, ErrorKind::kStepLimit, "b",
                 "ld.acquire", options);
  // Nor may a launch wait for one behind it.
  expect_failure({{kWait + kLaunch + poll(0)}, {kWait + count(0)}}, ErrorKind::kStepLimit, "a",
                 "ld.acquire", options);
}

TEST_CASE("an error in one launch ends all, and the first launch's is reported") {
  const Step fails{kWait + kLaunch + "trap;\n" + count(0)};
  const Step second{kWait + "trap;\n"};
  for (const Options& options : kHabits) {
    expect_failure({fails, {kWait}}, ErrorKind::kTrap, "a", "trap", options);
    expect_failure({fails, {poll(0) + kWait}, {kWait}}, ErrorKind::kTrap, "a", "trap", options);
    expect_failure({fails, {"trap;\n"}}, ErrorKind::kTrap, "a", "trap", options);
    expect_failure({{kWait + kLaunch}, second, second}, ErrorKind::kTrap, "b", "trap", options);
    expect_failure({{kWait + kLaunch + count(0), {200, 32}}, {"trap;\n"}}, ErrorKind::kTrap, "b",
                   "trap", options);
  }
}

TEST_CASE("a bulk copy reads what another launch wrote behind a fence between the proxies") {
  const Step first{kWait + kLaunch + only("eq.u32 %p1, %r0, 0", store(0, "7") + count(8)), {1, 1}};
  const auto second = [](const std::string& between) {
    return Step{poll(8) + between + bulk_copy() + kWait, {1, 1}};
  };
  for (const Options& options : kHabits) {
    CHECK(run_stream({first, second("fence.proxy.async.global;\n")}, options)[32] == 7);
    CHECK(run_stream({first, second("fence.proxy.async;\n")}, options)[32] == 7);
    CHECK(run_stream({first, second(kWait)}, options)[32] == 7);
    const std::string at = "cp.async.bulk";
    expect_failure({first, second("")}, ErrorKind::kMissingFence, "b", at, options);
    expect_failure({first, second("fence.proxy.async.shared::cta;\n")}, ErrorKind::kMissingFence,
                   "b", at, options);
    expect_failure(
        {first, second("fence.proxy.async.global;\nld.acquire.gpu.global.b32 %r8, [%rd0];\n")},
        ErrorKind::kMissingFence, "b", at, options);
  }
}

}  // namespace
