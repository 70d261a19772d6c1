#include <algorithm>
#include <array>
#include <optional>

#include "compiler/layout/scale_groups.h"
#include "compiler/schedule/schedule.h"

namespace sagejit {
namespace {

constexpr int kMaxThreadRegisters = 255;
// Addresses, loop state and what the assembler needs to overlap loads: what no array accounts for.
constexpr int kOtherRegisters = 43;
// P of fp4 in the making: the scores of a group are free only when all of it is coded. As
// ptxas 13.0 has it for sm_120a.
constexpr int kGroupRegisters = 14;
constexpr int kRegistersPerRow = 5;  // maximum, sum, factor, bound, shrink
// 16-bit P of 32 rows and 64 keys, beside its scores: without, ptxas 13.0 spilled on sm_80 at head
// dims 80 to 160. It needs none with 32 or 128 keys, nor where P has 8 bits.
constexpr int kRegistersOfWideP = 32;

// Registers a thread must hold at once. A model, close enough to order candidates; the assembler
// decides.
int predicted_registers(const Variant& variant, const Schedule& schedule) {
  const int row_tiles = schedule.block_m / schedule.num_warps / 16;
  const bool packed_o =
      variant.pv_accumulator.inner == DType::kF16 && !variant.pv_accumulator.outer;
  const int o = row_tiles * padded_value_head_dim(variant) / 8 * (packed_o ? 2 : 4);
  const int s = row_tiles * schedule.block_n / 8 * 4;
  const int q = row_tiles *
                (schedule.q_in_registers ? qk_row_bytes(variant, schedule) / kQkStepBytes : 1) * 4;
  const int steps = padded_head_dim(variant, schedule) / kScaleWordElements;
  const int scales = variant.q.type == DType::kE2M1 ? steps + kGroupRegisters : 0;
  const bool wide_p = row_tiles > 1 && schedule.block_n == 64 && bits_of(variant.p.type) == 16;
  return o + s + q + scales + (wide_p ? kRegistersOfWideP : 0) + 2 * row_tiles * kRegistersPerRow +
         kOtherRegisters;
}

bool is_legal(const Variant& variant, const Schedule& schedule, const Target& target) {
  try {
    check_schedule(variant, schedule, target);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

bool packs_heads(const Variant& variant) {
  return variant.smooth_q == Smoothing::kNone && variant.q.type != DType::kE2M1;
}

// Two rows' sums, and a product of 8 columns.
constexpr int kRowSumRegisters = 2 + 4;

// Registers of a computing thread of the wgmma kernel: O, the inner accumulator, scores, P, and
// sums of rows by products with ones. In order, the scores of a tile are gone when its products
// begin, and an inner accumulator that lives within the tile takes their place (not one of
// integers, whose P takes more work). The larger numbers of others, addresses and loop state, are
// where the assembler was seen to spill with less; so are those of scores that are f32 sums, or
// scaled key by key.
int wgmma_registers(const Variant& variant, const Schedule& schedule) {
  const Accumulator& pv = variant.pv_accumulator;
  const int columns = padded_value_head_dim(variant);
  const auto accumulator = [&](DType type) { return columns / (type == DType::kF16 ? 4 : 2); };
  const int o = accumulator(pv.outer.value_or(pv.inner));
  const int inner = pv.outer ? accumulator(pv.inner) : 0;
  const int p = schedule.block_n * bits_of(variant.p.type) / 64;
  const int scores = schedule.block_n / 2;
  const int row_sums = variant.row_sum == RowSum::kQuantized ? kRowSumRegisters : 0;
  const int others = schedule.num_warps > 8 ? 32 : 24;
  if (schedule.overlap) return o + inner + scores + p + row_sums + others;
  const bool has_runs = scale_run(scale_groups_of_k(variant.k), schedule.block_n) >= kLeastScaleRun;
  const int of_scores = variant.qk_accumulator == DType::kS32 && has_runs ? 0 : 8;
  const bool lives_within_tile =
      pv.outer && pv.interval <= schedule.block_n && pv.inner != DType::kS32;
  if (!lives_within_tile) {
    return o + inner + scores + row_sums + others + of_scores;
  }
  constexpr int kBesideProducts = 16;
  return o + std::max(scores + others, inner + p + kBesideProducts) + row_sums + of_scores;
}

// The deepest ring that fits, up to a depth beyond which nothing was gained.
std::optional<Schedule> with_most_stages(Schedule schedule, const Variant& variant,
                                         const Target& target) {
  constexpr int kMostStages = 8;
  for (schedule.stages = kMostStages; schedule.stages >= 2; --schedule.stages) {
    if (is_legal(variant, schedule, target)) return schedule;
  }
  return std::nullopt;
}

// Measured on an H200 (tests/perf/NOTES.md), with printed PTX:
// - Three warpgroups of 64 rows hide each other's softmax best where the accumulators leave the
//   registers for it, two otherwise.
// - P V beside the next softmax pays with tiles of 64 keys at head dim 128, where they also waste
//   less under a causal mask, and with 128 keys where a score takes fewer products.
// - 16-bit P and V at head dim 128 take long tiles: their products are long. In f16, whose sums
//   leave the registers for it, beside the softmax; in f32 in order.
// - Two levels with short intervals leave little to run beside the softmax: in order, with long
//   tiles, or, of 16-bit P, whose conversions bind, short ones.
// - Turns (ping_pong) pay with tiles of 128 keys, in order or with short rows.
class WgmmaSchedules {
 public:
  WgmmaSchedules(const Variant& variant, const Target& target)
      : variant_(variant), target_(target) {}

  // Best first.
  std::vector<Schedule> list() {
    const Accumulator& pv = variant_.pv_accumulator;
    const bool short_intervals = pv.outer && pv.interval < 128;
    const bool prefers_long = has_short_rows() || (pv.outer && !(short_intervals && is_16_bit()));
    const auto sizes = prefers_long ? std::array{128, 96, 64} : std::array{64, 96, 128};
    if (is_16_bit() && !has_short_rows() && !pv.outer) {
      consider(12, 128, pv.inner == DType::kF16 ? 1 : 0);
    }
    for (const int block_n : sizes) {
      for (const int warps : kWarps) {
        if (short_intervals) consider(warps, block_n, 0);
      }
    }
    for (const int overlap : {1, 0}) {
      for (const int warps : kWarps) {
        for (const int block_n : sizes) consider(warps, block_n, overlap);
      }
    }
    for (const int warps : kWarps) consider(warps, 32, 1);
    for (const int warps : kWarps) consider(warps, 32, 0);
    return std::move(list_);
  }

 private:
  static constexpr std::array kWarps = {12, 8, 4};

  bool has_short_rows() const {
    return padded_head_dim(variant_, {}) + padded_value_head_dim(variant_) <= 128;
  }
  bool is_16_bit() const { return bits_of(variant_.p.type) == 16; }

  bool takes_turns(int warps, int block_n, int overlap) const {
    return warps > 4 && block_n >= 128 && (overlap == 0 || has_short_rows());
  }

  void consider(int warps, int block_n, int overlap) {
    const Schedule schedule = {.wgmma = true,
                               .block_m = 16 * warps,
                               .block_n = block_n,
                               .num_warps = warps,
                               .q_in_registers = false,
                               .overlap = overlap,
                               .ping_pong = takes_turns(warps, block_n, overlap),
                               .pack_heads = packs_heads(variant_)};
    if (wgmma_registers(variant_, schedule) > wgmma_registers_of_roles(schedule).compute) return;
    const std::optional<Schedule> legal = with_most_stages(schedule, variant_, target_);
    if (legal) list_.push_back(*legal);
  }

  const Variant& variant_;
  const Target& target_;
  std::vector<Schedule> list_;
};

}  // namespace

std::vector<Schedule> default_schedules(const Variant& variant, const Target& target) {
  if (target.wgmma) {
    std::vector<Schedule> schedules = WgmmaSchedules(variant, target).list();
    if (!schedules.empty()) return schedules;
  }
  // Fastest first, as measured on an H100 at head dim 128 (tests/perf/NOTES.md): 32 rows a warp
  // halve the shared-memory reads per product, and two resident blocks let one's softmax hide the
  // other's products.
  const bool long_interval =
      variant.pv_accumulator.outer.has_value() && variant.pv_accumulator.interval > 64;
  const bool is_fp4 = variant.p.type == DType::kE2M1;
  const bool int4_mma = variant.q.type == DType::kS4 && target.native_s4_mma;
  std::vector<Schedule> result;
  for (const auto& [block_m, blocks_per_sm] : {std::pair{128, 2}, {64, 3}, {64, 2}, {64, 1}}) {
    for (const int block_n : {64, 32, 128}) {
      if (long_interval != (block_n == 128)) continue;
      for (const bool q_in_registers : {true, false}) {
        const Schedule schedule = {.block_m = block_m,
                                   .block_n = block_n,
                                   .num_warps = 4,
                                   .stages = 2,
                                   .q_in_registers = q_in_registers,
                                   .blocks_per_sm = blocks_per_sm,
                                   .int4_mma = int4_mma,
                                   .pack_heads = packs_heads(variant)};
        const int budget = std::min(kMaxThreadRegisters,
                                    target.regs_per_sm / (schedule.num_warps * 32 * blocks_per_sm));
        if (is_legal(variant, schedule, target) &&
            predicted_registers(variant, schedule) <= budget) {
          result.push_back(schedule);
        }
      }
    }
  }
  // The least demanding one closes the list, whatever the model says of it.
  const Schedule smallest = {.block_m = 64,
                             .block_n = long_interval ? 128
                                        : is_fp4      ? 64
                                                      : 32,
                             .num_warps = 4,
                             .stages = 2,
                             .q_in_registers = false,
                             .blocks_per_sm = 1,
                             .int4_mma = int4_mma,
                             .pack_heads = packs_heads(variant)};
  const Schedule for_interval = {.block_m = 64,
                                 .block_n = 64,
                                 .num_warps = 4,
                                 .stages = 2,
                                 .q_in_registers = false,
                                 .blocks_per_sm = 1,
                                 .int4_mma = int4_mma,
                                 .pack_heads = packs_heads(variant)};
  for (const Schedule& last : {for_interval, smallest}) {
    if (is_legal(variant, last, target)) result.push_back(last);
  }
  if (result.empty()) check_schedule(variant, smallest, target);  // throws, naming the limit
  return result;
}

Schedule default_schedule(const Variant& variant, const Target& target) {
  return default_schedules(variant, target).front();
}

}  // namespace sagejit
