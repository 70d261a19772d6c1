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

// What is folded of K or V, over the tokens of a chunk and per channel.
struct Statistic {
  std::string operand;  // "k" or "v"
  std::string partial;  // the buffer that gets it, f32 [b, hkv, chunks, channels]
  DType input;
  int row_elements;  // of the tensor
  int channels;      // of the result; those past row_elements fold nothing
  bool is_sum;       // else the largest magnitude
};

// One block folds one chunk of tokens of one (batch, head). Threads take rows in turn; what they
// have meets in shared memory and is folded in order of the threads, so that sums do not depend on
// timing.
class ChunkFold {
 public:
  ChunkFold(Builder& b, const KernelArgs& args, const Statistic& statistic, Value shared)
      : b_(b),
        args_(args),
        statistic_(statistic),
        lanes_(b, statistic.channels),
        shared_(shared),
        head_(b.emit1(Op::kBlockY, {})),
        batch_(b.emit1(Op::kBlockZ, {})) {}

  void run(Value chunk) {
    for (int i = 0; i < kLaneElements; ++i) folds_.push_back(b_.var(constant_f32(0)));
    fold_rows(chunk);
    for (int i = 0; i < kLaneElements; ++i) {
      b_.emit(Op::kStSharedF32,
              {b_.add(shared_, b_.shl(b_.tid(), 2)), constant(i * kPlaneBytes), b_.get(folds_[i])});
    }
    b_.barrier();
    b_.when(b_.less(b_.tid(), constant(statistic_.channels)), [&] { store(chunk); });
  }

  static constexpr int shared_bytes() { return kLaneElements * kPlaneBytes; }

 private:
  // Element i of all threads is a plane. The gap lets 32 channels, 4 threads' elements, be read
  // from as many banks.
  static constexpr int kPlaneBytes = (kPrepareThreads + 4) * 4;
  static constexpr int kRowsInFlight = 8;  // of a thread

  Value fold(Value folded, Value x) {
    if (statistic_.is_sum) return b_.fadd(folded, x);
    return b_.fmax(folded, b_.emit1(Op::kAbsF32, {x}));
  }

  // Rows past the chunk's end are zeros, which change neither a sum that starts at +0 nor a
  // magnitude: all of a pass are loaded before the first is folded.
  void fold_rows(Value chunk) {
    const Value begin = b_.mul(chunk, args_["chunk_tokens"]);
    const Value end = b_.min(b_.add(begin, args_["chunk_tokens"]), args_["n"]);
    const Value in_row = b_.less(lanes_.first, constant(statistic_.row_elements));
    const Value base =
        b_.address(row_address(b_, args_, statistic_.operand, "n", {batch_, head_, constant(0)}),
                   lanes_.first, bits_of(statistic_.input) / 8);
    const Value stride = args_[statistic_.operand + "_stride_n"];
    const int step = kRowsInFlight * lanes_.rows_per_pass;
    b_.loop(begin, end, constant(step), [&](Value first) {
      std::vector<std::vector<Value>> rows;
      for (int i = 0; i < kRowsInFlight; ++i) {
        const Value token = b_.add(b_.add(first, lanes_.row), constant(i * lanes_.rows_per_pass));
        const Value address = b_.add64(base, b_.mul64(b_.zext(token), stride));
        rows.push_back(load_pairs(b_, address, b_.both(b_.less(token, end), in_row)));
      }
      for (const std::vector<Value>& pairs : rows) {
        const std::vector<Value> x = unpack(b_, statistic_.input, pairs);
        for (int i = 0; i < kLaneElements; ++i) {
          b_.set(folds_[i], fold(b_.get(folds_[i]), x[i]));
        }
      }
    });
  }

  // This thread's channel.
  void store(Value chunk) {
    const Value plane = b_.mul(b_.rem(b_.tid(), constant(kLaneElements)), constant(kPlaneBytes));
    const Value lane = b_.shl(b_.div(b_.tid(), constant(kLaneElements)), 2);
    const Value column = b_.add(b_.add(shared_, plane), lane);
    Value total = constant_f32(0);
    for (int row = 0; row < lanes_.rows_per_pass; ++row) {
      total = fold(total,
                   b_.emit1(Op::kLdSharedF32, {column, constant(row * lanes_.lanes_per_row * 4)}));
    }
    const Value block_head = b_.add(b_.mul(batch_, args_["hkv"]), head_);
    const Value slot =
        b_.add64(b_.mul64(b_.zext(block_head), b_.zext(args_["num_chunks"])), b_.zext(chunk));
    const Value row = b_.add64(args_[statistic_.partial],
                               b_.mul64(slot, b_.zext(constant(statistic_.channels * 4))));
    b_.emit(Op::kStGlobalF32, {b_.address(row, b_.tid(), 4), constant(0), total});
  }

  Builder& b_;
  const KernelArgs& args_;
  const Statistic& statistic_;
  RowLanes lanes_;
  Value shared_, head_, batch_;
  std::vector<Var> folds_;
};

}  // namespace

ir::Function generate_statistics(const ForwardPlan& plan) {
  const QuantizePlan& k = plan.k;
  const ValuePlan& v = plan.v;
  const Statistic sums{"k", "k_partial_sums", k.input, k.head_dim, k.head_dim, true};
  const Statistic maxima{"v", "v_partial_amax", v.input, v.value_head_dim, v.columns, false};
  Builder b("statistics", kPrepareThreads, 4);
  const KernelArgs args(b, *plan.find_launch("statistics"));
  const Value shared = b.smem("folds", ChunkFold::shared_bytes());
  const Value block = b.emit1(Op::kBlockX, {});
  const auto run = [&](const Statistic& statistic, Value chunk) {
    ChunkFold(b, args, statistic, shared).run(chunk);
  };
  if (!v.is_scaled) {
    run(sums, block);
  } else if (!k.subtract_mean) {
    run(maxima, block);
  } else {
    b.when_uniform(
        b.less(block, args["num_chunks"]), [&] { run(sums, block); },
        [&] { run(maxima, b.sub(block, args["num_chunks"])); });
  }
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
