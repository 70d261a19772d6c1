// Shared by the kernels that prepare Q, K and V: how a team's threads (builder.h) are laid over
// rows of a tensor, and what they do with it.
#pragma once

#include <functional>
#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/ir/fragment.h"
#include "compiler/kernels/kernel_args.h"
#include "compiler/plan/forward_plan.h"

namespace sagejit {

inline constexpr int kLaneElements = kPieceBytes / 2;

// The team's threads as rows of `lanes_per_row` threads, a power of two, each with 8 elements of a
// row, that go over a tile of rows in passes. From pass to pass a thread's rows are 8 apart, or as
// many as a warp has, so that groups of rows that are congruent modulo 8 (scale_groups.h) stay
// within few warps.
struct RowLanes {
  RowLanes(ir::Builder& b, int row_elements);

  int lanes_per_row;
  int rows_per_pass;
  int pass_rows;     // from a thread's row to that of the next pass
  ir::Value number;  // of this thread's row among those of a pass
  ir::Value lane;    // this thread's place in the row
  ir::Value first;   // its first element of the row

  // This thread's row in the first of so many passes.
  ir::Value first_row(ir::Builder& b, int passes) const;
  // This thread's elements are among so many of a row; unset: every thread's are.
  ir::Value within(ir::Builder& b, int elements) const;
};

// Eight 16-bit elements at `address`, in pairs; where `valid`, if given, is false, each of them is
// `otherwise`, by default 0, and nothing is read.
std::vector<ir::Value> load_pairs(ir::Builder& b, ir::Value address, ir::Value valid = {},
                                  ir::Value otherwise = {});

// A pair of NaNs, f16 or bf16: what rows outside a tensor hold where maxima pass them over and
// their codes are 0.
inline constexpr int32_t kNanPair = 0x7fff7fff;

// What a thread has loaded: pieces of eight 16-bit elements, in pairs.
class Pieces {
 public:
  Pieces(ir::Builder& b, int count);
  void load(int piece, ir::Value address, ir::Value valid = {}, ir::Value otherwise = {}) const;
  std::vector<ir::Value> pairs(int piece) const;
  // What was made of them is made anew from here on: kept, it would take more registers.
  void forget() const;

 private:
  ir::Builder& b_;
  std::vector<std::vector<ir::Var>> words_;
};

// The elements of such pairs as f32; `type` is f16 or bf16.
std::vector<ir::Value> unpack(ir::Builder& b, DType type, const std::vector<ir::Value>& pairs);
// A word of numbers rounded to signed integers of 8 or 4 bits, to nearest even and saturating, the
// first lowest; a NaN is 0.
ir::Value pack_integers(ir::Builder& b, int bits, const std::vector<ir::Value>& x);
// A word of four numbers rounded to 8-bit floats, to nearest even and saturating, the first lowest;
// a NaN is 0x7f.
ir::Value pack_floats(ir::Builder& b, DType type, const std::vector<ir::Value>& x);
// Of such a word: the sign of a byte is set where a code is a NaN, and the word with those as 0.
inline constexpr auto kByteSigns = static_cast<int32_t>(0x80808080u);
ir::Value nan_flags(ir::Builder& b, ir::Value word);
ir::Value without_nans(ir::Builder& b, ir::Value word);
// Of each element of a pair; NaNs are passed over.
ir::Value pair_max(ir::Builder& b, DType type, ir::Value x, ir::Value y);
ir::Value pair_min(ir::Builder& b, DType type, ir::Value x, ir::Value y);
ir::Value pair_abs(ir::Builder& b, ir::Value x);

// A tile of rows of one (batch, head), numbered from the head's first; i32.
struct TilePlace {
  ir::Value tile, head, batch;
  ir::Value kv_batch_head;  // the (batch, K head) that it is of, or attends to
};

// b.tid(), read anew: compilers keep what follows from it alone in registers that the items need,
// from the kernel's beginning on, unless they cannot know that it does.
ir::Value tid_again(ir::Builder& b);

// Until the statistics of a (batch, K head) are there, where the launch counts that. Every thread
// that reads them waits itself.
void wait_for_statistics(ir::Builder& b, const KernelArgs& args, ir::Value batch_head);
// Until all tiles of a (batch, K head) are there, of the Q that attends to it too: for another
// launch, that runs beside `prepare`. Every thread that reads them waits itself.
void wait_for_tiles(ir::Builder& b, const KernelArgs& args, ir::Value batch_head);

// Eight f32 at `address`, which is a multiple of 16; zeros where `valid`, if given, is false.
std::vector<ir::Value> load_f32s(ir::Builder& b, ir::Value address, ir::Value valid = {});

// prepare_counters, in words: a ticket, then for each (batch, K head) what is done of it. Of
// statistics: chunks, and one more when they are folded.
inline constexpr int kItemsTaken = 0;
inline constexpr int kStatisticsDone = 1, kTilesDone = 2;  // of the first head
inline constexpr int kHeadCounters = 2;                    // from head to head
ir::Value head_counters(ir::Builder& b, const KernelArgs& args, ir::Value batch_head);

// `scratch`: shared memory, a multiple of 128, that nobody else uses between two barriers.

// What a team does beside an item, by all threads; may be none.
struct Meanwhile {
  // While loads are on their way, and before it waits for others; any number of times.
  std::function<void()> loading;
  // Exactly once: when nothing is left to wait for, with still some work to do.
  std::function<void()> last_work;
};

void call(const std::function<void()>& work);  // if there is any
// Both conditions; one that is unset is true.
ir::Value both_if_set(ir::Builder& b, ir::Value x, ir::Value y);

// Statistics of a head, first of its chunks: `place.tile` numbers those of K, where it is smoothed,
// then those of V, where it is scaled, then the blocks of the Q that attends to it, where that is
// smoothed: their means. Then of all its chunks together, when they are there.
void fold_tokens(ir::Builder& b, const KernelArgs& args, const ForwardPlan& plan,
                 const TilePlace& place, ir::Value scratch, const Meanwhile& meanwhile = {});
void fold_chunks(ir::Builder& b, const KernelArgs& args, const ForwardPlan& plan,
                 ir::Value batch_head);

// Quantizes tiles of Q or K, one after the other, with a barrier between them; one must stand
// before the first, too.
class RowQuantizer {
 public:
  RowQuantizer(ir::Builder& b, const KernelArgs& args, const QuantizePlan& plan, ir::Value scratch);
  void run(const TilePlace& place, const Meanwhile& meanwhile) const;

 private:
  void for_each_group(const std::function<void(ir::Value)>& visit) const;  // this thread's
  void quantize_with_one_scale(const class RowTile& tile) const;
  void store_single_scale(const RowTile& tile, ir::Value amax) const;
  void raise_largest_scale(const RowTile& tile, ir::Value scale) const;
  void quantize_groups_of_warps(const RowTile& tile) const;
  void quantize_groups(const RowTile& tile) const;
  void store_scales(const RowTile& tile) const;
  // Of the scales of a tile's head, the address of the group's, counted from the head's first.
  ir::Value scale_address(const RowTile& tile, ir::Value group) const;
  ir::Value maximum(ir::Value turn, ir::Value group) const;  // its place

  ir::Builder& b_;
  const KernelArgs& args_;
  const QuantizePlan& plan_;
  ir::Value scratch_;
  int num_groups_ = 0;  // of a tile, that meet in shared memory
  ir::Value maxima_;    // in shared memory, f32 by group, for two tiles in turn
  ir::Var turn_;        // whose, in bytes
};

// Quantizes a tile of V.
void prepare_values(ir::Builder& b, const KernelArgs& args, const ValuePlan& v,
                    const TilePlace& place, ir::Value scratch, const Meanwhile& meanwhile);

// A tile of the scores of Q's means.
void prepare_mean_scores(ir::Builder& b, const KernelArgs& args, const MeanScoresPlan& plan,
                         const TilePlace& place, ir::Value scratch, const Meanwhile& meanwhile);

// f(value, other) folded over the lanes of so many rows of a warp, side by side and a power of two;
// each of the lanes gets the result.
ir::Value reduce_rows(ir::Builder& b, const RowLanes& lanes, int rows, ir::Value value, ir::Op op);

}  // namespace sagejit
