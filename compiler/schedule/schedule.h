// Schedule: every choice about how a variant is computed that does not change what it computes.
//
// One line of text, `key=value` pairs in fixed order; parse(print(s)) == s. The line is a log
// entry, a command-line argument, a tuned row and part of the cache key at once.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/layout/tile_layout.h"
#include "compiler/sema/variant.h"
#include "compiler/target/target.h"

namespace sagejit {

// Choices for the attention kernel, and for what runs beside it.
struct Schedule {
  bool wgmma = false;  // the warpgroup kernel of sm_90a (workspace operands as core_matrix.h says),
                       // else the mma.sync kernel of every target
  int block_m =
      128;  // query rows of a block; block_m / num_warps of them, a multiple of 16, per warp
  int block_n = 64;  // keys per iteration
  int num_warps = 4;
  int stages = 2;              // depth of the ring of K and V tiles in shared memory
  bool q_in_registers = true;  // Q's fragments are loaded once, not once per key tile
  int blocks_per_sm = 1;       // resident blocks that the register budget is set for
  // wgmma: 0: products and softmax of a key tile in order; 1: P V of a tile runs beside the softmax
  // of the next.
  int overlap = 0;
  bool ping_pong = false;    // wgmma: warpgroups take turns with their exponentials
  int prepare_percent = 50;  // wgmma: of the multiprocessors, where `prepare` runs beside attention
  bool int4_mma = false;     // int4 Q and K lie two to a byte, as int4 tensor cores read them; else
                             // one to a byte, and int8 products give the same scores
  bool pack_heads = false;   // query heads that share K and V are packed into the same tiles, where
                             // their queries are few (packed_heads.h)
  bool operator==(const Schedule&) const = default;
};

std::string print_schedule(const Schedule& schedule);

// Pairs that are missing keep the values of `base`. Throws Error{kArgument} naming the bad pair and
// the known keys.
Schedule parse_schedule(std::string_view line, const Schedule& base = {});

// The schedules to take when nobody chooses, best first; all legal. The first is predicted to fit
// the register budget; should the assembler spill all the same, the next is tried (compile.h).
// Throws Error{kUnsupported} for the few variants whose two-level interval demands more keys of K
// and V at a time than the target's shared memory holds.
std::vector<Schedule> default_schedules(const Variant& variant, const Target& target);
Schedule default_schedule(const Variant& variant, const Target& target);  // the first

// Throws Error{kUnsupported} naming the broken limit (divisibility, shared memory, threads).
void check_schedule(const Variant& variant, const Schedule& schedule, const Target& target);

// Bits of an element of Q or K as attention reads it.
constexpr int qk_code_bits(const Variant& v, const Schedule& s) {
  return v.q.type == DType::kE2M1 || s.int4_mma ? 4 : 8;
}
// What the tensor core takes them as: without products of int4, its codes are int8.
constexpr DType qk_operand_type(const Variant& v, const Schedule& s) {
  return v.q.type == DType::kS4 && !s.int4_mma ? DType::kS8 : v.q.type;
}
// Head dims as the tensor-core products need them: zero-padded to whole steps, of 32 bytes for Q
// and K.
inline constexpr int kQkStepBytes = 32;
constexpr int padded_head_dim(const Variant& v, const Schedule& s) {
  const int step = kQkStepBytes * 8 / qk_code_bits(v, s);
  return (v.head_dim + step - 1) / step * step;
}
constexpr int qk_row_bytes(const Variant& v, const Schedule& s) {
  return padded_head_dim(v, s) * qk_code_bits(v, s) / 8;
}
constexpr int padded_value_head_dim(const Variant& v) {
  return (v.value_head_dim + 15) / 16 * 16;
}

// The e4m3 scales of fp4, one for every kGroupElements along the sum of a product, and a word of
// four for what one product takes of a row.
inline constexpr int kGroupElements = 16, kScaleWordBytes = 4;
inline constexpr int kScaleWordElements = kGroupElements * kScaleWordBytes;
// Of a row of Q or K, bytes; 0 where they are not fp4.
constexpr int qk_scale_row_bytes(const Variant& v, const Schedule& s) {
  return v.q.type == DType::kE2M1 ? padded_head_dim(v, s) / kGroupElements : 0;
}
// Channels that V's scales are kept for: four 8-column tiles take theirs from the threads of a
// quad.
constexpr int value_scale_columns(const Variant& v) {
  return (padded_value_head_dim(v) + 31) / 32 * 32;
}

inline constexpr int kWarpgroupRows = 64;  // rows of a warpgroup's products
inline constexpr int kWarpgroupThreads = 128;

// Registers of a thread of the wgmma kernel once its roles are taken: what the threads start with,
// evenly, goes to those that compute, as far as they can use it, and the loader gets the rest, at
// least what it needs for the scales of tiles of 128 keys: with 24 it spills.
// setmaxnreg only moves registers within a block: to ask for more than it started with would wait
// for ever.
struct RoleRegisters {
  int start;    // of every thread
  int compute;  // after setmaxnreg.inc
  int load;     // after setmaxnreg.dec
};
constexpr RoleRegisters wgmma_registers_of_roles(const Schedule& schedule) {
  constexpr int kStep = 8, kMostUsed = 240, kLeastForLoading = 32;
  const int consumers = schedule.num_warps / 4;
  const int start = 65536 / ((consumers + 1) * kWarpgroupThreads) / kStep * kStep;
  const int pool = start * (consumers + 1);
  const int compute = std::min(kMostUsed, (pool - kLeastForLoading) / consumers / kStep * kStep);
  return {start, compute, std::min(kMostUsed, pool - consumers * compute)};
}
// Two to four computing warpgroups move registers. One has more than a thread can use from the
// start; setmaxnreg.inc must not take any away.
constexpr bool moves_registers(const Schedule& schedule) {
  return schedule.wgmma && schedule.num_warps > 4;
}
inline constexpr int kQueryStages = 2;  // Q tiles of a warpgroup in shared memory
// Words of 4 bytes that 8-bit V has in all for a head: a scale and, if it is smoothed, a mean for
// each channel.
constexpr int value_scale_words(const Variant& v) {
  if (bits_of(v.v.type) != 8) return 0;
  return padded_value_head_dim(v) * (v.v.smoothing == Smoothing::kMean ? 2 : 1);
}
// Ones that P is multiplied by where rows are summed by the tensor core: 8 columns, 32 bytes along
// the keys.
constexpr int wgmma_ones_bytes(const Variant& v) {
  return v.row_sum == RowSum::kQuantized ? 8 * 32 : 0;
}
// Words that come with a Q tile: its place, the factors of its rows, V's scales, K's largest scale.
constexpr int wgmma_query_words(const Variant& v) {
  constexpr int kVector = 4;  // what they are a multiple of
  return kVector + kWarpgroupRows + value_scale_words(v) + kVector;
}
// Whether attention must know the largest scale of a K head (online_softmax.h): scores are integers
// until they become exponents.
bool needs_largest_key_scale(const Variant& variant, const Schedule& schedule);

// The tiles of the mma.sync attention kernel in shared memory: codes of Q and K, a row a token; V
// of 16 bits likewise, of 8 bits a row a channel, chunk by chunk.
TileLayout q_tile(const Variant& variant, const Schedule& schedule);
TileLayout k_tile(const Variant& variant, const Schedule& schedule);
TileLayout v_tile(const Variant& variant, const Schedule& schedule);
// And the scales of fp4 K and V that come with a tile, bytes, multiples of 128; 0 for other types.
int k_scale_tile_bytes(const Variant& variant, const Schedule& schedule);
int v_scale_tile_bytes(const Variant& variant, const Schedule& schedule);
// All that a key tile takes.
int key_stage_bytes(const Variant& variant, const Schedule& schedule);

// Shared memory of the attention kernel, bytes.
int attention_smem_bytes(const Variant& variant, const Schedule& schedule);

}  // namespace sagejit
