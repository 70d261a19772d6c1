#include <limits>

#include "compiler/kernels/generators.h"
#include "compiler/kernels/prepare.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;
using ir::Var;

namespace {

// What is folded, over the tokens of a chunk and per channel.
enum class FoldKind {
  kSum,
  kAmax,     // the largest magnitude
  kHighest,  // the largest element
  kLowest,   // the largest of the negated elements
};
struct Fold {
  FoldKind kind;
  std::string partial;  // the buffer that gets it, f32 [b, hkv, chunks, channels]
};
struct Statistic {
  std::string operand;  // "k" or "v"
  DType input;
  int row_elements;  // of the tensor
  int channels;      // of the result; those past row_elements fold nothing
  std::vector<Fold> folds;
};

bool takes_zeros(FoldKind kind) {
  return kind == FoldKind::kSum || kind == FoldKind::kAmax;
}
// What a fold starts from.
Value neutral(FoldKind kind) {
  return constant_f32(takes_zeros(kind) ? 0 : -std::numeric_limits<float>::infinity());
}

// A block folds a chunk of tokens of one (batch, head). Threads take rows in turn; what they have
// meets in shared memory and is folded in order of the threads, so that sums do not depend on
// timing.
class ChunkFold {
 public:
  ChunkFold(Builder& b, const KernelArgs& args, const Statistic& statistic, const TilePlace& place,
            Value shared)
      : b_(b),
        args_(args),
        statistic_(statistic),
        lanes_(b, statistic.channels),
        place_(place),
        shared_(shared) {}

  void run() {
    for (const Fold& fold : statistic_.folds) {
      folds_.emplace_back();
      for (int i = 0; i < kLaneElements; ++i) folds_.back().push_back(b_.var(neutral(fold.kind)));
    }
    fold_rows();
    for (size_t f = 0; f < folds_.size(); ++f) {
      if (f > 0) b_.barrier();  // the fold before has been read
      for (int i = 0; i < kLaneElements; ++i) {
        b_.emit(Op::kStSharedF32, {b_.add(shared_, b_.shl(b_.tid(), 2)), constant(i * kPlaneBytes),
                                   b_.get(folds_[f][i])});
      }
      b_.barrier();
      b_.when(b_.less(b_.tid(), constant(statistic_.channels)),
              [&] { store(statistic_.folds[f]); });
    }
  }

  static constexpr int shared_bytes() { return kLaneElements * kPlaneBytes; }

 private:
  // Element i of all threads is a plane. The gap lets 32 channels, 4 threads' elements, be read
  // from as many banks.
  static constexpr int kPlaneBytes = (kPrepareThreads + 4) * 4;
  // Of a thread: as many as registers hold beside the folds.
  int rows_in_flight() const { return statistic_.folds.size() > 1 ? 4 : 8; }

  // Of an element as a fold takes it. Rows past the chunk's end are zeros, which change neither a
  // sum that starts at +0 nor a magnitude; other folds must know.
  Value element(FoldKind kind, Value x, Value exists) {
    if (kind == FoldKind::kSum) return x;
    if (kind == FoldKind::kAmax) return b_.emit1(Op::kAbsF32, {x});
    return b_.select(exists, kind == FoldKind::kLowest ? b_.fneg(x) : x, neutral(kind));
  }
  Value combine(FoldKind kind, Value a, Value b) {
    return kind == FoldKind::kSum ? b_.fadd(a, b) : b_.fmax(a, b);
  }

  // All rows of a pass are loaded before the first is folded.
  void fold_rows() {
    const Value begin = b_.mul(place_.tile, args_["chunk_tokens"]);
    const Value end = b_.min(b_.add(begin, args_["chunk_tokens"]), args_["n"]);
    const Value in_row = b_.less(lanes_.first, constant(statistic_.row_elements));
    const Value base = b_.address(
        row_address(b_, args_, statistic_.operand, "n", {place_.batch, place_.head, constant(0)}),
        lanes_.first, bits_of(statistic_.input) / 8);
    const Value stride = args_[statistic_.operand + "_stride_n"];
    const int step = rows_in_flight() * lanes_.rows_per_pass;
    b_.loop(begin, end, constant(step), [&](Value first) {
      std::vector<std::vector<Value>> rows;
      std::vector<Value> exist;
      for (int i = 0; i < rows_in_flight(); ++i) {
        const Value token = b_.add(b_.add(first, lanes_.row), constant(i * lanes_.rows_per_pass));
        const Value address = b_.add64(base, b_.mul64(b_.zext(token), stride));
        exist.push_back(b_.both(b_.less(token, end), in_row));
        rows.push_back(load_pairs(b_, address, exist.back()));
      }
      for (size_t row = 0; row < rows.size(); ++row) {
        fold_row(unpack(b_, statistic_.input, rows[row]), exist[row]);
      }
    });
  }

  void fold_row(const std::vector<Value>& x, Value exists) {
    for (size_t f = 0; f < folds_.size(); ++f) {
      const FoldKind kind = statistic_.folds[f].kind;
      for (int i = 0; i < kLaneElements; ++i) {
        const Var& folded = folds_[f][i];
        b_.set(folded, combine(kind, b_.get(folded), element(kind, x[i], exists)));
      }
    }
  }

  // This thread's channel.
  void store(const Fold& fold) {
    const Value plane = b_.mul(b_.rem(b_.tid(), constant(kLaneElements)), constant(kPlaneBytes));
    const Value lane = b_.shl(b_.div(b_.tid(), constant(kLaneElements)), 2);
    const Value column = b_.add(b_.add(shared_, plane), lane);
    Value total = neutral(fold.kind);
    for (int row = 0; row < lanes_.rows_per_pass; ++row) {
      const Value one =
          b_.emit1(Op::kLdSharedF32, {column, constant(row * lanes_.lanes_per_row * 4)});
      total = combine(fold.kind, total, one);
    }
    const Value batch_head = b_.add(b_.mul(place_.batch, args_["hkv"]), place_.head);
    const Value slot =
        b_.add64(b_.mul64(b_.zext(batch_head), b_.zext(args_["num_chunks"])), b_.zext(place_.tile));
    const Value row =
        b_.add64(args_[fold.partial], b_.mul64(slot, b_.zext(constant(statistic_.channels * 4))));
    b_.emit(Op::kStGlobalF32, {b_.address(row, b_.tid(), 4), constant(0), total});
  }

  Builder& b_;
  const KernelArgs& args_;
  const Statistic& statistic_;
  RowLanes lanes_;
  TilePlace place_;
  Value shared_;
  std::vector<std::vector<Var>> folds_;  // [fold][element]
};

}  // namespace

void fold_tokens(Builder& b, const KernelArgs& args, const ForwardPlan& plan,
                 const TilePlace& place) {
  const QuantizePlan& k = plan.k;
  const ValuePlan& v = plan.v;
  const Statistic of_k{"k", k.input, k.head_dim, k.head_dim, {{FoldKind::kSum, "k_partial_sums"}}};
  Statistic of_v{"v", v.input, v.value_head_dim, v.columns, {}};
  if (v.subtract_mean) {
    of_v.folds = {{FoldKind::kSum, "v_partial_sums"},
                  {FoldKind::kHighest, "v_partial_highest"},
                  {FoldKind::kLowest, "v_partial_lowest"}};
  } else {
    of_v.folds = {{FoldKind::kAmax, "v_partial_amax"}};
  }
  const Value shared = b.smem("folds", ChunkFold::shared_bytes());
  const auto run = [&](const Statistic& statistic, Value chunk) {
    ChunkFold(b, args, statistic, {chunk, place.head, place.batch}, shared).run();
  };
  if (!v.is_scaled) {
    run(of_k, place.tile);
  } else if (!k.subtract_mean) {
    run(of_v, place.tile);
  } else {
    b.when_uniform(
        b.less(place.tile, args["num_chunks"]), [&] { run(of_k, place.tile); },
        [&] { run(of_v, b.sub(place.tile, args["num_chunks"])); });
  }
}

ir::Function generate_statistics(const ForwardPlan& plan) {
  Builder b("statistics", kPrepareThreads, 4);
  const KernelArgs args(b, *plan.find_launch("statistics"));
  fold_tokens(b, args, plan,
              {b.emit1(Op::kBlockX, {}), b.emit1(Op::kBlockY, {}), b.emit1(Op::kBlockZ, {})});
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
