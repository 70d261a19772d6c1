#include "compiler/schedule/schedule.h"

#include <optional>

#include "compiler/sema/check.h"
#include "compiler/sema/resolve.h"
#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

Variant variant(std::string_view entries) {
  return resolve_variants("v.attn", fmt::format("v {{ {} }}", entries)).at(0);
}

// Why `changes` to the first schedule are refused for the variant on the target.
std::string limit_of(const Variant& v, std::string_view changes, std::string_view target) {
  const Schedule schedule = parse_schedule(changes);
  const Error error = thrown_by([&] { check_schedule(v, schedule, find_target(target)); });
  CHECK(error.kind() == ErrorKind::kUnsupported);
  const std::string start =
      fmt::format("schedule '{}' is not possible: ", print_schedule(schedule));
  REQUIRE(error.message().starts_with(start));
  return error.message().substr(start.size());
}

std::string parse_error(std::string_view line) {
  const Error error = thrown_by([&] { parse_schedule(line); });
  CHECK(error.kind() == ErrorKind::kArgument);
  return error.message();
}

}  // namespace

TEST_CASE("a schedule is one line that reads back") {
  CHECK(print_schedule({}) ==
        "wgmma=0 block_m=128 block_n=64 warps=4 stages=2 q_in_registers=1 blocks_per_sm=1 "
        "overlap=0 ping_pong=0 prepare_percent=50 int4_mma=0 pack_heads=0");
  const Schedule schedule{.block_m = 64,
                          .block_n = 32,
                          .num_warps = 2,
                          .stages = 5,
                          .q_in_registers = false,
                          .blocks_per_sm = 3,
                          .overlap = 1,
                          .ping_pong = true,
                          .prepare_percent = 30,
                          .int4_mma = true,
                          .pack_heads = true};
  CHECK(parse_schedule(print_schedule(schedule)) == schedule);
  CHECK(parse_schedule("") == Schedule{});
  CHECK(parse_schedule("  stages=3   warps=8 ") == Schedule{.num_warps = 8, .stages = 3});
  CHECK(parse_schedule("stages=4", schedule).block_m == 64);
  CHECK(parse_schedule("stages=4", schedule).stages == 4);
}

TEST_CASE("a schedule that cannot be read names the pair and what would be right") {
  const std::string known =
      "is not key=value with a known key; known keys: wgmma, block_m, block_n, warps, stages, "
      "q_in_registers, blocks_per_sm, overlap, ping_pong, prepare_percent, "
      "int4_mma, pack_heads";
  CHECK(parse_error("stages=2 tile=3") == "schedule: 'tile=3' " + known);
  CHECK(parse_error("block_m") == "schedule: 'block_m' " + known);
  CHECK(parse_error("=3") == "schedule: '=3' " + known);
  CHECK(parse_error("stages=two") ==
        "schedule: 'stages' needs a whole number from 0 to 4096, got 'two'");
  CHECK(parse_error("stages=") == "schedule: 'stages' needs a whole number from 0 to 4096, got ''");
  CHECK(parse_error("stages=2x") ==
        "schedule: 'stages' needs a whole number from 0 to 4096, got '2x'");
  CHECK(parse_error("block_m=-16") ==
        "schedule: 'block_m' needs a whole number from 0 to 4096, got '-16'");
  CHECK(parse_error("block_m=4097") ==
        "schedule: 'block_m' needs a whole number from 0 to 4096, got '4097'");
  CHECK(parse_error("q_in_registers=2") ==
        "schedule: 'q_in_registers' needs a whole number from 0 to 1, got '2'");
  CHECK(parse_error("prepare_percent=101") ==
        "schedule: 'prepare_percent' needs a whole number from 0 to 100, got '101'");
}

TEST_CASE("every limit of a schedule is named") {
  const Variant v = variant("head_dim = 64");
  CHECK_NOTHROW(check_schedule(v, {}, find_target("sm_86")));
  CHECK(limit_of(v, "warps=0", "sm_80") == "warps must be 1 to 16");
  CHECK(limit_of(v, "warps=17", "sm_80") == "warps must be 1 to 16");
  const std::string rows = "block_m must be a multiple of 16 rows for every warp";
  CHECK(limit_of(v, "block_m=96", "sm_80") == rows);
  CHECK(limit_of(v, "block_m=0", "sm_80") == rows);
  for (const char* block_n : {"block_n=0", "block_n=8", "block_n=48", "block_n=256"}) {
    CHECK(limit_of(v, block_n, "sm_80") == "block_n must be 16, 32, 64 or 128");
  }
  CHECK(limit_of(v, "warps=33", "sm_80") == "a block has at most 1024 threads, 33 warps are 1056");
  CHECK(limit_of(v, "block_m=256 warps=16 blocks_per_sm=4", "sm_86") ==
        "4 blocks of 512 threads exceed the 1536 of one SM of sm_86");
  CHECK(limit_of(v, "block_m=256 warps=16 blocks_per_sm=5", "sm_90") ==
        "5 blocks of 512 threads exceed the 2048 of one SM of sm_90");
  CHECK(limit_of(v, "stages=1", "sm_80") == "stages must be at least 2");
  CHECK(limit_of(v, "prepare_percent=0", "sm_80") == "prepare_percent must be 1 to 100");
  CHECK(limit_of(variant("head_dim = 64; smooth_q = mean"), "pack_heads=1", "sm_80") ==
        "pack_heads must be 0 where queries of one head share a mean");
  CHECK(limit_of(v, "int4_mma=1", "sm_80") == "int4_mma needs int4 Q and K");
  const Variant int4 = variant("head_dim = 64; q = int4");
  CHECK_NOTHROW(check_schedule(int4, parse_schedule("int4_mma=1"), find_target("sm_89")));
  CHECK(limit_of(int4, "int4_mma=1", "sm_120") == "sm_120 has no int4 tensor cores");
  CHECK(limit_of(variant("head_dim = 64; smooth_q = mean per block(64)"), "block_m=192", "sm_80") ==
        "the 48 rows of a warp must divide the 64 that share a mean of Q");
  CHECK(limit_of(v, "blocks_per_sm=0", "sm_80") == "blocks_per_sm must be at least 1");
  CHECK(limit_of(v, "blocks_per_sm=4", "sm_86") ==
        "4 blocks of 32768 bytes of shared memory exceed the 102400 of one SM of sm_86");
  CHECK(limit_of(variant("head_dim = 256"), "block_n=128 stages=4", "sm_86") ==
        "it needs 425984 bytes of shared memory, sm_86 allows 101376 to a block");
  const Variant two_level = variant("head_dim = 64; pv_accumulator = f16 + f32 every 64");
  CHECK(limit_of(two_level, "block_n=32", "sm_80") ==
        "block_n must be a multiple of the two-level accumulation interval, 64");
  CHECK_NOTHROW(check_schedule(two_level, parse_schedule("block_n=128"), find_target("sm_80")));
}

TEST_CASE("every limit of a schedule with warpgroups is named") {
  const Variant v = variant("head_dim = 128");
  const std::string start = "wgmma=1 q_in_registers=0 block_m=192 block_n=64 warps=12";
  const auto limit = [&](std::string_view changes, const Variant& variant) {
    return limit_of(variant, fmt::format("{} {}", start, changes), "sm_90a");
  };
  CHECK_NOTHROW(check_schedule(v, parse_schedule(start), find_target("sm_90a")));
  CHECK(limit_of(v, start, "sm_90") == "sm_90 has no wgmma instructions");
  const std::string warps = "warps must be 4, 8, 12 or 16: one to four warpgroups that compute";
  CHECK(limit("warps=20 block_m=320", v) == warps);
  CHECK(limit("warps=2 block_m=32", v) == warps);
  CHECK(limit("warps=16 block_m=256 block_n=160", v) ==
        "a product needs 106 registers at once, 16 warps and the loader start with 96 a thread");
  CHECK(limit("block_m=384", v) == "block_m must be 16 rows for every warp");
  CHECK(limit("blocks_per_sm=2", v) == "blocks_per_sm must be 1");
  CHECK(limit("q_in_registers=1", v) ==
        "q_in_registers must be 0: wgmma reads Q from shared memory");
  for (const char* block_n : {"block_n=0", "block_n=48", "block_n=288"}) {
    CHECK(limit(block_n, v) == "block_n must be a multiple of 32 up to 256");
  }
  CHECK(limit("block_n=224", v) ==
        "a product needs 138 registers at once, 12 warps and the loader start with 128 a thread");
  CHECK(limit("block_n=32", variant("head_dim = 256")) ==
        "a product needs 158 registers at once, 12 warps and the loader start with 128 a thread");
  CHECK(limit("stages=1", v) == "stages must be at least 2");
  CHECK_THAT(limit("block_n=128 stages=4", v),
             Catch::Matches("it needs 2[45][0-9]{4} bytes of shared memory, sm_90a allows 232448 "
                            "to a block"));
  const Variant two_level = variant("head_dim = 128; pv_accumulator = f32 + f32 every 64");
  CHECK(limit("block_n=96", two_level) ==
        "block_n must be a multiple of the two-level accumulation interval, 64");
  CHECK(limit("block_n=128 stages=2 overlap=1", two_level) ==
        "overlap needs the two-level accumulation interval, 64, to be a multiple of block_n");
  for (const char* changes : {" overlap=1", " block_n=32 overlap=1", " block_n=128"}) {
    CHECK_NOTHROW(
        check_schedule(two_level, parse_schedule(start + changes), find_target("sm_90a")));
  }
  CHECK(limit_of(v, "overlap=1", "sm_90a") == "overlap needs wgmma");
  CHECK(limit_of(v, "ping_pong=1", "sm_90a") == "ping_pong needs wgmma");
  CHECK(limit("warps=4 block_m=64 ping_pong=1", v) ==
        "ping_pong needs two or three computing warpgroups");
  CHECK_NOTHROW(check_schedule(v, parse_schedule(start + " ping_pong=1"), find_target("sm_90a")));
}

TEST_CASE("warpgroups share out the registers that their block starts with") {
  for (const int num_warps : {4, 8, 12}) {
    INFO(num_warps);
    const Schedule schedule{.wgmma = true, .num_warps = num_warps};
    const RoleRegisters registers = wgmma_registers_of_roles(schedule);
    const int consumers = num_warps / 4;
    CHECK(registers.start * (consumers + 1) * kWarpgroupThreads <= 65536);
    CHECK(registers.compute * consumers + registers.load <= registers.start * (consumers + 1));
    for (const int count : {registers.start, registers.compute, registers.load}) {
      CHECK(count % 8 == 0);  // as setmaxnreg takes them
      CHECK(count >= 24);
      CHECK(count <= 256);
    }
  }
}

TEST_CASE("tiles are as long as the padded head dimensions") {
  const Variant v = variant("head_dim = 72; value_head_dim = 40");
  const Schedule schedule{.block_m = 64, .block_n = 32, .num_warps = 4, .stages = 3};
  CHECK(q_tile(v, schedule).row_bytes() == 96);
  CHECK(k_tile(v, schedule).bytes() == 32 * 96);
  CHECK(v_tile(v, schedule).row_bytes() == 48 * 2);
  CHECK(attention_smem_bytes(v, schedule) == 64 * 96 + 3 * (32 * 96 + 32 * 96));
}

TEST_CASE("8-bit V has a row for each channel, and whole products of keys") {
  const Variant v = variant("head_dim = 72; value_head_dim = 40; v = e4m3");
  const Schedule schedule{.block_m = 64, .block_n = 64, .num_warps = 4, .stages = 3};
  CHECK(v_tile(v, schedule).rows == 48);
  CHECK(v_tile(v, schedule).bytes() == 48 * 64);
  CHECK(attention_smem_bytes(v, schedule) == 64 * 96 + 3 * (64 * 96 + 64 * 48));
  CHECK(limit_of(v, "block_n=16", "sm_89") ==
        "block_n must be a multiple of 32, the keys of one product, where P and V have 8 bits");
}

TEST_CASE("intervals of integers end with a key tile") {
  const std::string lines = "wgmma=1 q_in_registers=0 block_m=128 warps=8 ";
  for (const char* p : {"int8", "e4m3"}) {
    const bool is_float = std::string_view(p) == "e4m3";
    const Variant v = variant(std::string("head_dim = 64; p = ") + p + "; pv_accumulator = " +
                              (is_float ? "f32" : "s32") + " + f32 every 128");
    for (const char* tile : {"block_n=128", "block_n=128 overlap=1"}) {
      CHECK_NOTHROW(check_schedule(v, parse_schedule(lines + tile), find_target("sm_90a")));
    }
    for (const char* tile : {"block_n=64", "block_n=64 overlap=1"}) {
      if (is_float) {
        CHECK_NOTHROW(check_schedule(v, parse_schedule(lines + tile), find_target("sm_90a")));
      } else {
        CHECK(limit_of(v, lines + tile, "sm_90a") ==
              "block_n must be a multiple of the two-level accumulation interval, 128");
      }
    }
  }
}

TEST_CASE("both levels of wide int8 V do not fit a warpgroup's registers: mma.sync takes them") {
  const auto takes_wgmma = [](const char* entries) {
    return default_schedule(variant(entries), find_target("sm_90a")).wgmma;
  };
  CHECK(takes_wgmma("head_dim = 128; v = int8"));
  CHECK(!takes_wgmma("head_dim = 256; v = int8"));
  CHECK(takes_wgmma("head_dim = 256; v = e4m3"));
}

TEST_CASE("the default schedule is legal for every supported variant, or the limit is named") {
  const char* const accumulators[] = {"f32",
                                      "f16",
                                      "f16 + f32 every 16",
                                      "f16 + f32 every 32",
                                      "f16 + f32 every 64",
                                      "f16 + f32 every 128",
                                      "f32 + f32 every 128"};
  int num_refused = 0;
  for (int head_dim = 16; head_dim <= 256; head_dim += 8) {
    for (const char* accumulator : accumulators) {
      const Variant v =
          variant(fmt::format("head_dim = {}; pv_accumulator = {}", head_dim, accumulator));
      for (const Target& target : all_targets()) {
        INFO(head_dim << ", " << accumulator << ", " << target.name);
        check_supported(v, target);
        std::optional<Schedule> schedule;
        try {
          schedule = default_schedule(v, target);
        } catch (const Error& error) {
          ++num_refused;
          CHECK(error.kind() == ErrorKind::kUnsupported);
          // Tiles of a whole interval for one block of the smallest default size are beyond the
          // target.
          REQUIRE(v.pv_accumulator.interval >= 64);
          const Schedule smallest{.block_m = 64, .block_n = v.pv_accumulator.interval};
          CHECK(attention_smem_bytes(v, smallest) > target.smem_per_block);
        }
        if (schedule) CHECK_NOTHROW(check_schedule(v, *schedule, target));
      }
    }
  }
  CHECK(num_refused > 0);
}

TEST_CASE("int4 products where the target has them, bytes elsewhere") {
  const Variant int4 = variant("head_dim = 72; q = int4"), int8 = variant("head_dim = 72");
  for (const Target& target : all_targets()) {
    INFO(target.name);
    for (const Schedule& schedule : default_schedules(int4, target)) {
      CHECK(schedule.int4_mma == target.native_s4_mma);
      CHECK(padded_head_dim(int4, schedule) == (schedule.int4_mma ? 128 : 96));
      CHECK(qk_row_bytes(int4, schedule) == (schedule.int4_mma ? 64 : 96));
    }
    CHECK_FALSE(default_schedule(int8, target).int4_mma);
  }
}

// What was measured to be fastest on an H200 (tests/perf/NOTES.md).
TEST_CASE("the first schedules of Hopper") {
  const auto first = [](std::string_view entries) {
    return print_schedule(default_schedule(variant(entries), find_target("sm_90a")));
  };
  const std::string e4m3 = "p = e4m3; v = e4m3 per channel; pv_accumulator = f32; head_dim = ";
  CHECK(first(e4m3 + "64") ==
        "wgmma=1 block_m=192 block_n=128 warps=12 stages=8 q_in_registers=0 blocks_per_sm=1 "
        "overlap=1 ping_pong=1 prepare_percent=50 int4_mma=0 pack_heads=1");
  CHECK(first("rescale_threshold = 4; p = e4m3 range 28; v = e4m3; pv_accumulator = f32; head_dim "
              "= 64") ==
        "wgmma=1 block_m=192 block_n=128 warps=12 stages=8 q_in_registers=0 blocks_per_sm=1 "
        "overlap=1 ping_pong=1 prepare_percent=50 int4_mma=0 pack_heads=1");
  CHECK(first(e4m3 + "128") ==
        "wgmma=1 block_m=192 block_n=64 warps=12 stages=8 q_in_registers=0 blocks_per_sm=1 "
        "overlap=1 ping_pong=0 prepare_percent=50 int4_mma=0 pack_heads=1");
  CHECK(first("p = e4m3; v = e4m3; pv_accumulator = f32 + f32 every 64; head_dim = 128") ==
        "wgmma=1 block_m=192 block_n=128 warps=12 stages=5 q_in_registers=0 blocks_per_sm=1 "
        "overlap=0 ping_pong=1 prepare_percent=50 int4_mma=0 pack_heads=1");
  CHECK(first(e4m3 + "256") ==
        "wgmma=1 block_m=128 block_n=64 warps=8 stages=4 q_in_registers=0 blocks_per_sm=1 "
        "overlap=1 ping_pong=0 prepare_percent=50 int4_mma=0 pack_heads=1");
  CHECK(first("p = e4m3 range 16 direct; v = e4m3 per channel; pv_accumulator = f32; row_sum = "
              "quantized; rescale_threshold = 4; head_dim = 128") ==
        "wgmma=1 block_m=192 block_n=64 warps=12 stages=8 q_in_registers=0 blocks_per_sm=1 "
        "overlap=1 ping_pong=0 prepare_percent=50 int4_mma=0 pack_heads=1");
  CHECK(first("head_dim = 128; pv_accumulator = f32") ==
        "wgmma=1 block_m=192 block_n=128 warps=12 stages=3 q_in_registers=0 blocks_per_sm=1 "
        "overlap=0 ping_pong=1 prepare_percent=50 int4_mma=0 pack_heads=1");
  CHECK(first("head_dim = 128; pv_accumulator = f16") ==
        "wgmma=1 block_m=192 block_n=128 warps=12 stages=3 q_in_registers=0 blocks_per_sm=1 "
        "overlap=1 ping_pong=0 prepare_percent=50 int4_mma=0 pack_heads=1");
  CHECK(first("head_dim = 128; pv_accumulator = f16 + f32 every 64") ==
        "wgmma=1 block_m=192 block_n=64 warps=12 stages=7 q_in_registers=0 blocks_per_sm=1 "
        "overlap=0 ping_pong=0 prepare_percent=50 int4_mma=0 pack_heads=1");
}

// What spills (direct codes at head dim 256, 64 keys beside 32 rows of wide heads) is not tried
// first.
TEST_CASE("the first schedules of heads whose registers are short") {
  const auto first = [](std::string_view entries, const char* target) {
    return default_schedule(variant(entries), find_target(target));
  };
  const Schedule direct = first(
      "p = e4m3 range 16 direct; v = e4m3 per channel; pv_accumulator = f32; row_sum = quantized; "
      "rescale_threshold = 4; head_dim = 256",
      "sm_90a");
  CHECK(direct.num_warps == 8);
  CHECK(direct.block_n == 64);
  const Schedule f32 = first("head_dim = 96; pv_accumulator = f32", "sm_80");
  CHECK(f32.block_m == 128);
  CHECK(f32.block_n == 32);
  CHECK(f32.q_in_registers);
  const Schedule two_levels = first("head_dim = 96; pv_accumulator = f16 + f32 every 64", "sm_80");
  CHECK(two_levels.block_m == 64);
  CHECK(two_levels.blocks_per_sm == 3);
  CHECK(first("head_dim = 96; pv_accumulator = f16", "sm_80").block_n == 64);
  CHECK(first("head_dim = 128; pv_accumulator = f16", "sm_80").block_m == 128);
  CHECK(first("head_dim = 96; p = e4m3; v = e4m3 per channel; pv_accumulator = f32", "sm_89")
            .block_n == 64);
}

TEST_CASE("every default schedule is legal, and none comes without a reason") {
  for (const char* entries :
       {"head_dim = 64", "head_dim = 128; pv_accumulator = f16 + f32 every 64",
        "head_dim = 256; mask = causal(top_left)"}) {
    const Variant v = variant(entries);
    for (const Target& target : all_targets()) {
      INFO(entries << ", " << target.name);
      const std::vector<Schedule> schedules = default_schedules(v, target);
      REQUIRE_FALSE(schedules.empty());
      CHECK(schedules.front() == default_schedule(v, target));
      for (const Schedule& schedule : schedules) CHECK_NOTHROW(check_schedule(v, schedule, target));
    }
  }
}

TEST_CASE("an interval that no tile holds is refused on the targets that are too small for it") {
  const Variant v = variant("head_dim = 256; pv_accumulator = f16 + f32 every 64");
  CHECK_THROWS_AS(default_schedule(v, find_target("sm_86")), Error);
  CHECK_NOTHROW(default_schedule(v, find_target("sm_80")));
}

}  // namespace sagejit
