// The scores S = Q K^T of one warp for one key tile, from the sums of the tensor core to numbers:
// their bits, the scale factors of their rows and keys, the mask.
//
// Sums of e4m3 products are f32, and numbers as they are. A product of int8 or int4 vectors stays
// below 2^22 in magnitude (127^2 * 256), so accumulators that start at 0x4B400000 hold, read as
// f32, exactly 12582912 + s: no conversion is needed, the integers still order like the numbers,
// and the offset leaves with the fused multiply-add that scales the score.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/kernels/mask_regions.h"
#include "compiler/kernels/packed_heads.h"
#include "compiler/layout/key_order.h"
#include "compiler/plan/forward_plan.h"

namespace sagejit {

inline constexpr int kFragmentColumns = 8;  // of an accumulator tile of mma.sync and wgmma
inline constexpr int32_t kBiasedZero = 0x4B400000;
inline constexpr float kScoreBias = 12582912.0f;

// Rows of a warp that one thread holds: two for each 16-row tile; row r is elements 2 (r % 2) and
// 2 (r % 2) + 1 of row tile r / 2.
constexpr int rows_of_thread(int num_row_tiles) {
  return 2 * num_row_tiles;
}

// Whether the tensor core makes kScoreBias + s of a score s.
constexpr bool sums_are_biased(const Variant& variant) {
  return variant.qk_accumulator == DType::kS32;
}

// What a register of scores holds.
enum class ScoreForm {
  kNumber,  // the bits of the number as an f32
  kBiased,  // those of kScoreBias + s, comparable as integers
};

// What the sums of a variant are.
constexpr ScoreForm form_of_sums(const Variant& variant) {
  return sums_are_biased(variant) ? ScoreForm::kBiased : ScoreForm::kNumber;
}
// What the accumulators start from.
ir::Value score_zero(const Variant& variant);

// A register of Scores as the number that its bits are.
ir::Value get_score(ir::Builder& b, const ir::Var& score);
void set_score(ir::Builder& b, const ir::Var& score, ir::Value number);

// [16-row tile][8-key tile][element of the C fragment]: registers of the tensor core's type, i32
// where integers add up, else f32.
struct Scores {
  std::vector<std::vector<std::array<ir::Var, 4>>> tiles;
  ScoreForm form = ScoreForm::kBiased;
  KeyOrder keys = KeyOrder::kByColumn;  // which key each element is of

  // One tile's elements as f32.
  std::array<ir::Value, 4> elements(ir::Builder& b, int row_tile, int key_tile) const;
  // All registers, in the order of a warpgroup's accumulators.
  std::vector<ir::Var> registers() const;

  bool is_biased() const { return form == ScoreForm::kBiased; }
  int num_key_tiles() const { return static_cast<int>(tiles[0].size()); }
};

// How the scores of one key tile become numbers: x c, where c depends on the row and on a run of
// keys.
struct Dequantization {
  std::vector<ir::Value> row_factors;  // by row of the thread: scale log2(e) dq
  std::vector<ir::Value>
      key_factors;  // dk, one per run of key tiles; empty: already multiplied into x
};

// batch * heads + head
ir::Value batch_head_of(ir::Builder& b, const KernelArgs& args, ir::Value batch, ir::Value head);
ir::Value batch_kv_head_of(ir::Builder& b, const KernelArgs& args, const QueryTile& tile);

// The query rows that thread `tid` (counted from the tile's first) holds: warp w of the tile has
// rows [16 t w, 16 t (w + 1)) for t row tiles.
std::vector<ir::Value> rows_of_thread(ir::Builder& b, const QueryTile& tile, int num_row_tiles,
                                      ir::Value tid);
// scale log2(e) dq of a row; of one behind the last, that one's. With fp4 dq is part of the
// products.
ir::Value load_row_factor(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                          const QueryTile& tile, ir::Value row);

// The largest scale of the K head.
ir::Value load_largest_key_scale(ir::Builder& b, const KernelArgs& args, const QueryTile& tile);
// The largest factor that any key's score is scaled by, for each row's factor; a normal number or,
// of a key that is infinite, infinity.
std::vector<ir::Value> largest_factors(ir::Builder& b, const std::vector<ir::Value>& row_factors,
                                       ir::Value largest_key_scale);

class QueryRows {
 public:
  // tokens: i32, of the rows.
  QueryRows(ir::Builder& b, const MaskRegions& regions, const std::vector<ir::Value>& tokens,
            std::vector<ir::Value> factors);

  const std::vector<ir::Value>& factors() const { return factors_; }

  // Keys that a row does not see become -inf. first_key: i32, of the tile.
  void mask(Scores& s, ir::Value first_key) const;

 private:
  ir::Builder& b_;
  std::vector<ir::Value> factors_;           // scale log2(e) dq
  std::vector<MaskRegions::Bounds> bounds_;  // the keys that the rows see
};

// What smoothing took out of Q's scores (MeanScoresPlan), added to those of one key tile: they
// become base-2 logits.
//
//   t_j = (s_j dk_j) (scale log2(e) dq) + mean_scores_j
class MeanScores {
 public:
  // Brings the mean scores of two neighbouring keys: `key` is the first one's distance from the
  // first key that the thread holds of the tile that starts at `origin`.
  using Load = std::function<std::vector<ir::Value>(ir::Value origin, int key)>;
  MeanScores(ir::Builder& b, Load load) : b_(b), load_(std::move(load)) {}

  // From global memory, for rows from `first_row` on, all of one block; an origin is the tile's
  // first key.
  static MeanScores global(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                           const QueryTile& tile, ir::Value first_row);
  // From shared memory, one f32 for each key; an origin is the address of the first.
  static MeanScores shared(ir::Builder& b);

  // What is left to do to them.
  Dequantization add_to(Scores& s, const Dequantization& dequantization, ir::Value origin) const;

 private:
  ir::Builder& b_;
  Load load_;
};
// Address of the mean scores of a row's block; rows behind the last one have that one's.
ir::Value mean_scores_row(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                          ir::Value batch_head, ir::Value row);

// Scale of a key of the head; keys behind the last one have that one's.
ir::Value load_key_scale(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                         const QueryTile& tile, ir::Value key);

// The key scales of one key tile.
class KeyScales {
 public:
  // Brings the scales of one or two neighbouring keys: `key` is the first one's distance from the
  // first key that the thread holds of the tile that starts at `origin`.
  using Load = std::function<std::vector<ir::Value>(ir::Value origin, int key, int count)>;
  KeyScales(ir::Builder& b, const ScaleGroups& groups, int block_n, Load load)
      : b_(b), groups_(groups), block_n_(block_n), load_(std::move(load)) {}

  // From global memory; an origin is the tile's first key.
  static KeyScales global(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                          const QueryTile& tile, int block_n);
  // From shared memory, one f32 for each key; an origin is the address of the first.
  static KeyScales shared(ir::Builder& b, const ScaleGroups& groups, int block_n);

  // Factors of whole runs of keys; empty where a scale covers fewer keys than a run can have.
  std::vector<ir::Value> load(ir::Value origin) const;
  // Multiplies per-key scales into the scores where `load` gives none.
  void apply(Scores& s, ir::Value origin) const;

 private:
  int run_keys() const;
  bool has_runs() const;

  ir::Builder& b_;
  const ScaleGroups& groups_;
  int block_n_;
  Load load_;
};

}  // namespace sagejit
