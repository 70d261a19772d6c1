#include "compiler/kernels/prepare.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;
using ir::Var;

namespace {

constexpr int kWordBytes = 4, kVectorWords = 4;

// mean_scores = scale log2(e) q_mean . (K - k_mean) for kMeanScoreRows of Q's blocks and as many
// keys as a team has threads. The means lie in shared memory; a thread reads its key once, eight
// channels at a time, and multiplies them by all the means. Blocks are counted over the heads that
// attend to the K head.
class MeanScoresTile {
 public:
  MeanScoresTile(Builder& b, const KernelArgs& args, const MeanScoresPlan& plan,
                 const TilePlace& place, Value scratch)
      : b_(b),
        args_(args),
        plan_(plan),
        place_(place),
        means_(scratch),
        key_mean_(b.add(scratch, constant(kMeanScoreRows * row_bytes()))),
        num_blocks_(b.mul(args["group_heads"], args["q_blocks"])),
        row_tile_(b.div(place.tile, args["mean_key_tiles"])),
        first_block_(b.mul(row_tile_, constant(kMeanScoreRows))) {
    const Value key_tile = b.sub(place.tile, b.mul(row_tile_, args["mean_key_tiles"]));
    key_ = b.add(b.mul(key_tile, constant(kMeanScoreKeys)), b.tid());
  }

  void run(const Meanwhile& meanwhile) {
    call(meanwhile.loading);
    wait_for_statistics(b_, args_, place_.kv_batch_head);
    load_means();
    b_.barrier();
    call(meanwhile.last_work);
    std::vector<Var> sums;
    for (int row = 0; row < kMeanScoreRows; ++row) sums.push_back(b_.var(constant_f32(0)));
    add_products(sums);
    store(sums);
  }

 private:
  int row_bytes() const { return plan_.head_dim * kWordBytes; }

  // Of a block of the K head, counted over all heads of it.
  Value row_of(Value block) {
    return b_.add64(b_.mul64(b_.zext(place_.kv_batch_head), b_.zext(num_blocks_)), b_.zext(block));
  }

  // Rows past the last block hold that one's mean.
  void load_means() {
    const int vectors_of_row = plan_.head_dim / kVectorWords;
    const Value last = b_.sub(num_blocks_, constant(1));
    copy(kMeanScoreRows * vectors_of_row, means_, [&](Value vector) {
      const Value block =
          b_.min(b_.add(first_block_, b_.div(vector, constant(vectors_of_row))), last);
      const Value row =
          b_.add64(args_["q_mean"], b_.mul64(row_of(block), b_.zext(constant(row_bytes()))));
      return b_.address(row, b_.rem(vector, constant(vectors_of_row)), kVectorWords * kWordBytes);
    });
    if (!plan_.subtract_mean) return;
    const Value row = b_.address(args_["k_mean"], place_.kv_batch_head, row_bytes());
    copy(vectors_of_row, key_mean_,
         [&](Value vector) { return b_.address(row, vector, kVectorWords * kWordBytes); });
  }

  // `count` vectors to `shared`, by all threads.
  void copy(int count, Value shared, const std::function<Value(Value)>& source) {
    b_.loop(b_.tid(), constant(count), constant(b_.team_threads()), [&](Value vector) {
      std::vector<Value> operands = {b_.add(shared, b_.shl(vector, 4)), constant(0)};
      for (const Value word : b_.emit(Op::kLdGlobalV4, {source(vector), constant(0)})) {
        operands.push_back(word);
      }
      b_.emit(Op::kStSharedV4, operands);
    });
  }

  // Eight f32 of shared memory.
  std::vector<Value> load_shared(Value address, int offset_bytes) {
    std::vector<Value> values;
    for (const int offset : {offset_bytes, offset_bytes + kVectorWords * kWordBytes}) {
      for (const Value word : b_.emit(Op::kLdSharedV4, {address, constant(offset)})) {
        values.push_back(b_.emit1(Op::kF32Bits, {word}));
      }
    }
    return values;
  }

  // In the order of the channels.
  void add_products(const std::vector<Var>& sums) {
    const Value exists = b_.less(key_, args_["n"]);
    const Value key = row_address(b_, args_, "k", "n", {place_.batch, place_.head, key_});
    b_.loop(constant(0), constant(plan_.head_dim), constant(kLaneElements), [&](Value channel) {
      const Value source = b_.address(key, channel, bits_of(plan_.input) / 8);
      std::vector<Value> x = unpack(b_, plan_.input, load_pairs(b_, source, exists));
      const Value offset = b_.shl(channel, 2);
      if (plan_.subtract_mean) {
        const std::vector<Value> mean = load_shared(b_.add(key_mean_, offset), 0);
        for (int i = 0; i < kLaneElements; ++i) x[i] = b_.fsub(x[i], mean[i]);
      }
      const Value means = b_.add(means_, offset);
      for (int row = 0; row < kMeanScoreRows; ++row) {
        const std::vector<Value> mean = load_shared(means, row * row_bytes());
        Value sum = b_.get(sums[row]);
        for (int i = 0; i < kLaneElements; ++i) sum = b_.fma(mean[i], x[i], sum);
        b_.set(sums[row], sum);
      }
    });
  }

  void store(const std::vector<Var>& sums) {
    const Value stride = b_.zext(args_["mean_scores_stride"]);
    const Value first = b_.mul64(row_of(first_block_), stride);
    const Value mine = b_.add64(first, b_.zext(key_));
    Value address = b_.add64(args_["mean_scores"], b_.mul64(mine, b_.zext(constant(kWordBytes))));
    const Value row_bytes = b_.mul64(stride, b_.zext(constant(kWordBytes)));
    const Value exists = b_.less(key_, args_["n"]);
    const Value num_rows = b_.sub(num_blocks_, first_block_);
    for (int row = 0; row < kMeanScoreRows; ++row) {
      if (row > 0) address = b_.add64(address, row_bytes);
      b_.when(b_.both(exists, b_.greater(num_rows, constant(row))), [&] {
        const Value score = b_.fmul(b_.get(sums[row]), constant_f32(plan_.scale_log2));
        b_.emit(Op::kStGlobalF32, {address, constant(0), score});
      });
    }
  }

  Builder& b_;
  const KernelArgs& args_;
  const MeanScoresPlan& plan_;
  const TilePlace& place_;
  Value means_, key_mean_;  // shared addresses
  Value num_blocks_, row_tile_, first_block_;
  Value key_;  // this thread's
};

}  // namespace

void prepare_mean_scores(Builder& b, const KernelArgs& args, const MeanScoresPlan& plan,
                         const TilePlace& place, Value scratch, const Meanwhile& meanwhile) {
  MeanScoresTile(b, args, plan, place, scratch).run(meanwhile);
}

}  // namespace sagejit
