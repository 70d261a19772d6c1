#include <algorithm>

#include "compiler/schedule/schedule.h"

namespace sagejit {
namespace {

constexpr int kMaxThreadRegisters = 255;
// Addresses, loop state and what the assembler needs to overlap loads: what no array accounts for.
constexpr int kOtherRegisters = 43;
constexpr int kRegistersPerRow = 5;  // maximum, sum, factor, bound, shrink

// Registers a thread must hold at once. A model, close enough to order candidates; the assembler
// decides.
int predicted_registers(const Variant& variant, const Schedule& schedule) {
  const int row_tiles = schedule.block_m / schedule.num_warps / 16;
  const bool packed_o =
      variant.pv_accumulator.inner == DType::kF16 && !variant.pv_accumulator.outer;
  const int o = row_tiles * padded_value_head_dim(variant) / 8 * (packed_o ? 2 : 4);
  const int s = row_tiles * schedule.block_n / 8 * 4;
  const int q = row_tiles * (schedule.q_in_registers ? padded_head_dim(variant) / 32 : 1) * 4;
  return o + s + q + 2 * row_tiles * kRegistersPerRow + kOtherRegisters;
}

bool is_legal(const Variant& variant, const Schedule& schedule, const Target& target) {
  try {
    check_schedule(variant, schedule, target);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

namespace {

// Three warpgroups of 64 rows hide each other's softmax best where O leaves the registers for it
// (168 a thread), two otherwise (240); as many stages as fit, up to four.
std::vector<Schedule> wgmma_schedules(const Variant& variant, const Target& target) {
  std::vector<Schedule> result;
  const int o_registers = padded_value_head_dim(variant) / 2;
  for (const auto& [warps, block_n] : {std::pair{12, 128}, {12, 64}, {8, 128}, {8, 64}, {4, 64}}) {
    const int budget = warps == 12 ? 160 : 240;
    if (o_registers + block_n / 2 + 16 > budget) continue;
    for (int stages = 4; stages >= 2; --stages) {
      const Schedule schedule = {.wgmma = true,
                                 .block_m = 16 * warps,
                                 .block_n = block_n,
                                 .num_warps = warps,
                                 .stages = stages,
                                 .q_in_registers = false,
                                 .blocks_per_sm = 1};
      if (!is_legal(variant, schedule, target)) continue;
      result.push_back(schedule);
      break;
    }
  }
  return result;
}

bool wants_wgmma(const Variant& variant, const Target& target) {
  return target.wgmma && !variant.pv_accumulator.outer &&
         variant.pv_accumulator.inner == DType::kF32 && variant.row_sum == RowSum::kExact;
}

}  // namespace

std::vector<Schedule> default_schedules(const Variant& variant, const Target& target) {
  if (wants_wgmma(variant, target)) return wgmma_schedules(variant, target);
  // Fastest first, as measured on an H100 at head dim 128 (tests/perf/NOTES.md): 32 rows a warp
  // halve the shared-memory reads per product, and two resident blocks let one's softmax hide the
  // other's products.
  const bool long_interval =
      variant.pv_accumulator.outer.has_value() && variant.pv_accumulator.interval > 64;
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
                                   .blocks_per_sm = blocks_per_sm};
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
                             .block_n = long_interval ? 128 : 32,
                             .num_warps = 4,
                             .stages = 2,
                             .q_in_registers = false,
                             .blocks_per_sm = 1};
  const Schedule for_interval = {.block_m = 64,
                                 .block_n = 64,
                                 .num_warps = 4,
                                 .stages = 2,
                                 .q_in_registers = false,
                                 .blocks_per_sm = 1};
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
