#include "compiler/schedule/schedule.h"

#include <fmt/ranges.h>

#include <charconv>
#include <vector>

#include "compiler/layout/key_order.h"
#include "compiler/layout/scale_groups.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

// The text form, one row a field.
struct Field {
  std::string_view key;
  int max;
  int (*get)(const Schedule&);
  void (*set)(Schedule&, int);
};

#define SCHEDULE_FIELD(key, max, member)                                                  \
  {                                                                                       \
    key, max, [](const Schedule& s) { return static_cast<int>(s.member); },               \
        [](Schedule& s, int value) { s.member = static_cast<decltype(s.member)>(value); } \
  }
constexpr Field kFields[] = {
    SCHEDULE_FIELD("wgmma", 1, wgmma),
    SCHEDULE_FIELD("block_m", 4096, block_m),
    SCHEDULE_FIELD("block_n", 4096, block_n),
    SCHEDULE_FIELD("warps", 4096, num_warps),
    SCHEDULE_FIELD("stages", 4096, stages),
    SCHEDULE_FIELD("q_in_registers", 1, q_in_registers),
    SCHEDULE_FIELD("blocks_per_sm", 4096, blocks_per_sm),
    SCHEDULE_FIELD("overlap", 1, overlap),
    SCHEDULE_FIELD("ping_pong", 1, ping_pong),
    SCHEDULE_FIELD("prepare_percent", 100, prepare_percent),
    SCHEDULE_FIELD("int4_mma", 1, int4_mma),
    SCHEDULE_FIELD("pack_heads", 1, pack_heads),
};
#undef SCHEDULE_FIELD

std::string known_keys() {
  std::vector<std::string_view> keys;
  for (const Field& field : kFields) keys.push_back(field.key);
  return fmt::format("{}", fmt::join(keys, ", "));
}

void parse_pair(std::string_view pair, Schedule& schedule) {
  const size_t equals = pair.find('=');
  const std::string_view key = pair.substr(0, equals);
  for (const Field& field : kFields) {
    if (field.key != key || equals == std::string_view::npos) continue;
    const std::string_view text = pair.substr(equals + 1);
    int value = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc() || end != text.data() + text.size() || value < 0 || value > field.max) {
      fail(ErrorKind::kArgument, "schedule: '{}' needs a whole number from 0 to {}, got '{}'", key,
           field.max, text);
    }
    return field.set(schedule, value);
  }
  fail(ErrorKind::kArgument, "schedule: '{}' is not key=value with a known key; known keys: {}",
       pair, known_keys());
}

}  // namespace

std::string print_schedule(const Schedule& schedule) {
  std::string line;
  for (const Field& field : kFields) {
    line += fmt::format("{}{}={}", line.empty() ? "" : " ", field.key, field.get(schedule));
  }
  return line;
}

Schedule parse_schedule(std::string_view line, const Schedule& base) {
  Schedule schedule = base;
  while (!line.empty()) {
    const size_t end = std::min(line.find(' '), line.size());
    if (end > 0) parse_pair(line.substr(0, end), schedule);
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return schedule;
}

TileLayout q_tile(const Variant& variant, const Schedule& schedule) {
  return {schedule.block_m, qk_row_bytes(variant, schedule) / kChunkBytes};
}
TileLayout k_tile(const Variant& variant, const Schedule& schedule) {
  return {schedule.block_n, qk_row_bytes(variant, schedule) / kChunkBytes};
}
TileLayout v_tile(const Variant& variant, const Schedule& schedule) {
  const int channels = padded_value_head_dim(variant);
  const int bits = bits_of(variant.v.type);
  if (bits <= 8) return {channels, schedule.block_n * bits / 8 / kChunkBytes, true};
  return {schedule.block_n, channels * 2 / kChunkBytes};
}

int k_scale_tile_bytes(const Variant& variant, const Schedule& schedule) {
  return schedule.block_n * qk_scale_row_bytes(variant, schedule);
}
int v_scale_tile_bytes(const Variant& variant, const Schedule& schedule) {
  if (variant.v.type != DType::kE2M1) return 0;
  return schedule.block_n / kScaleWordElements * value_scale_columns(variant) * kScaleWordBytes;
}
int key_stage_bytes(const Variant& variant, const Schedule& schedule) {
  return k_tile(variant, schedule).bytes() + v_tile(variant, schedule).bytes() +
         k_scale_tile_bytes(variant, schedule) + v_scale_tile_bytes(variant, schedule);
}

namespace {

// Registers of a thread that one wgmma takes: its sums, S or O, and what the assembler wants beside
// them, more for P V with its P in registers. Error C7602 names the number; it is held against what
// the block starts with, not against what setmaxnreg brings.
int wgmma_product_registers(const Variant& variant, const Schedule& schedule) {
  constexpr int kBesideScores = 26, kBesideOutput = 30;
  const int score_sums = schedule.block_n / 2;
  const int output_sums =
      padded_value_head_dim(variant) / (variant.pv_accumulator.inner == DType::kF16 ? 4 : 2);
  return std::max(score_sums + kBesideScores, output_sums + kBesideOutput);
}

// The rings of the wgmma kernel, Q of each warpgroup and K and V tiles, as ir::BulkRing lays them
// out: pieces of data, words, barriers; and ones.
int wgmma_smem_bytes(const Variant& variant, const Schedule& schedule) {
  int end = 0;
  const auto add = [&](int bytes, int align) { end = (end + align - 1) / align * align + bytes; };
  const auto add_ring = [&](int stages, std::initializer_list<int> piece_bytes, int num_words) {
    for (const int bytes : piece_bytes) {
      if (bytes > 0) add(stages * bytes, 128);
    }
    if (num_words) add(stages * num_words * 4, 16);
    add(2 * stages * 8, 8);
  };
  const bool smooths_q = variant.smooth_q == Smoothing::kMean;
  const int value_bytes = padded_value_head_dim(variant) * bits_of(variant.v.type) / 8;
  add_ring(kQueryStages * schedule.block_m / kWarpgroupRows,
           {kWarpgroupRows * qk_row_bytes(variant, schedule)}, wgmma_query_words(variant));
  add_ring(schedule.stages,
           {schedule.block_n * qk_row_bytes(variant, schedule), schedule.block_n * value_bytes,
            smooths_q ? schedule.block_n * 4 * schedule.block_m / kWarpgroupRows : 0},
           schedule.block_n);
  if (wgmma_ones_bytes(variant)) add(wgmma_ones_bytes(variant), 128);
  return end;
}

}  // namespace

int attention_smem_bytes(const Variant& variant, const Schedule& schedule) {
  if (schedule.wgmma) return wgmma_smem_bytes(variant, schedule);
  return q_tile(variant, schedule).bytes() + schedule.stages * key_stage_bytes(variant, schedule);
}

namespace {

// Throws unless the condition holds: `limit` is what the schedule breaks.
class Requirements {
 public:
  explicit Requirements(const Schedule& schedule) : schedule_(schedule) {}
  void operator()(bool condition, std::string_view limit) const {
    if (!condition) {
      fail(ErrorKind::kUnsupported, "schedule '{}' is not possible: {}", print_schedule(schedule_),
           limit);
    }
  }

 private:
  const Schedule& schedule_;
};

void check_shared_memory(const Variant& variant, const Schedule& schedule, const Target& target,
                         const Requirements& require) {
  const int bytes = attention_smem_bytes(variant, schedule);
  require(bytes <= target.smem_per_block,
          fmt::format("it needs {} bytes of shared memory, {} allows {} to a block", bytes,
                      target.name, target.smem_per_block));
  constexpr int kReservedBytes = 1024;  // per resident block
  require(schedule.blocks_per_sm * (bytes + kReservedBytes) <= target.smem_per_sm,
          fmt::format("{} blocks of {} bytes of shared memory exceed the {} of one SM of {}",
                      schedule.blocks_per_sm, bytes, target.smem_per_sm, target.name));
}

void check_warpgroups(const Schedule& schedule, const Target& target, const Requirements& require) {
  require(target.wgmma, fmt::format("{} has no wgmma instructions", target.name));
  require(schedule.num_warps % 4 == 0 && schedule.num_warps >= 4 && schedule.num_warps <= 16,
          "warps must be 4, 8, 12 or 16: one to four warpgroups that compute");
  require(schedule.block_m == 16 * schedule.num_warps, "block_m must be 16 rows for every warp");
  require(schedule.blocks_per_sm == 1, "blocks_per_sm must be 1");
  require(!schedule.ping_pong || schedule.num_warps == 8 || schedule.num_warps == 12,
          "ping_pong needs two or three computing warpgroups");
  require(!schedule.q_in_registers, "q_in_registers must be 0: wgmma reads Q from shared memory");
}

void check_int4_products(const Variant& variant, const Schedule& schedule, const Target& target,
                         const Requirements& require) {
  require(target.native_s4_mma, fmt::format("{} has no int4 tensor cores", target.name));
  require(variant.q.type == DType::kS4, "int4_mma needs int4 Q and K");
  require(!schedule.wgmma, "int4_mma must be 0: wgmma has no int4 products");
}

void check_packed_heads(const Variant& variant, const Requirements& require) {
  require(variant.smooth_q == Smoothing::kNone,
          "pack_heads must be 0 where queries of one head share a mean");
  require(variant.q.type != DType::kE2M1,
          "pack_heads must be 0 with fp4: rows of Q lie with their scales, head by head");
}

}  // namespace

bool needs_largest_key_scale(const Variant& variant, const Schedule& schedule) {
  if (variant.q.type == DType::kE2M1) return false;
  const int run = scale_run(scale_groups_of_k(variant.k), schedule.block_n);
  return variant.qk_accumulator == DType::kS32 && run >= kLeastScaleRun &&
         variant.smooth_q == Smoothing::kNone;
}

void check_schedule(const Variant& variant, const Schedule& schedule, const Target& target) {
  const Requirements require(schedule);
  const int threads = schedule.num_warps * 32;
  require(threads <= kMaxThreadsPerBlock,
          fmt::format("a block has at most {} threads, {} warps are {}", kMaxThreadsPerBlock,
                      schedule.num_warps, threads));
  if (schedule.wgmma) check_warpgroups(schedule, target, require);
  if (schedule.int4_mma) check_int4_products(variant, schedule, target, require);
  if (schedule.pack_heads) check_packed_heads(variant, require);
  require(schedule.overlap == 0 || schedule.overlap == 1, "overlap must be 0 or 1");
  require(schedule.num_warps >= 1 && schedule.num_warps <= 16, "warps must be 1 to 16");
  require(schedule.prepare_percent >= 1, "prepare_percent must be 1 to 100");
  require(schedule.block_m > 0 && schedule.block_m % (16 * schedule.num_warps) == 0,
          "block_m must be a multiple of 16 rows for every warp");
  if (schedule.wgmma) {
    require(schedule.block_n > 0 && schedule.block_n % 32 == 0 && schedule.block_n <= 256,
            "block_n must be a multiple of 32 up to 256");
    require(wgmma_product_registers(variant, schedule) <= wgmma_registers_of_roles(schedule).start,
            fmt::format("a product needs {} registers at once, {} warps and the loader start with "
                        "{} a thread",
                        wgmma_product_registers(variant, schedule), schedule.num_warps,
                        wgmma_registers_of_roles(schedule).start));
  } else {
    require(schedule.block_n > 0 && schedule.block_n % 16 == 0 &&
                kScaleRunTokens % schedule.block_n == 0,
            "block_n must be 16, 32, 64 or 128");
    const int keys = variant.v.type == DType::kE2M1 ? 64 : bits_of(variant.v.type) == 8 ? 32 : 16;
    require(schedule.block_n % keys == 0,
            fmt::format("block_n must be a multiple of {}, the keys of one product, where P and V "
                        "have {} bits",
                        keys, bits_of(variant.v.type)));
    require(variant.q.type != DType::kE2M1 || schedule.block_n % kOrderedKeys == 0,
            "block_n must be a multiple of 32 with fp4 K");
    require(schedule.overlap == 0, "overlap needs wgmma");
    const int warp_rows = schedule.block_m / schedule.num_warps;
    require(variant.smooth_q == Smoothing::kNone || variant.smooth_q_span % warp_rows == 0,
            fmt::format("the {} rows of a warp must divide the {} that share a mean of Q",
                        warp_rows, variant.smooth_q_span));
    require(!schedule.ping_pong, "ping_pong needs wgmma");
  }
  require(schedule.stages >= 2, "stages must be at least 2");
  require(schedule.blocks_per_sm >= 1, "blocks_per_sm must be at least 1");
  require(schedule.blocks_per_sm * threads <= target.max_threads_per_sm,
          fmt::format("{} blocks of {} threads exceed the {} of one SM of {}",
                      schedule.blocks_per_sm, threads, target.max_threads_per_sm, target.name));
  const Accumulator& pv = variant.pv_accumulator;
  // Sums of integers cannot be rescaled with a tile's new maxima.
  const bool spans_tiles = pv.inner != DType::kS32 || pv.interval == schedule.block_n;
  const bool whole_tiles =
      pv.outer && schedule.wgmma && pv.interval % schedule.block_n == 0 && spans_tiles;
  require(!pv.outer || whole_tiles || schedule.block_n % pv.interval == 0,
          fmt::format("block_n must be a multiple of the two-level accumulation interval, {}",
                      pv.interval));
  require(!pv.outer || whole_tiles || !schedule.overlap,
          fmt::format("overlap needs the two-level accumulation interval, {}, to be a multiple of "
                      "block_n",
                      pv.interval));
  check_shared_memory(variant, schedule, target, require);
}

}  // namespace sagejit
