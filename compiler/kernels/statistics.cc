#include <algorithm>
#include <functional>
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
  kSum,      // in f32
  kAmax,     // the largest magnitude; this and the next exactly, in the type of the input
  kHighest,  // the largest element
  kLowest,   // the largest of the negated elements
};
struct Fold {
  FoldKind kind;
  std::string partial;  // the buffer that gets it, f32 [b, hkv, chunks, channels]
};
struct Statistic {
  std::string operand;  // "k", "v" or "q"
  DType input;
  int row_elements;  // of the tensor
  int columns;       // padded: of the codes
  int channels;      // of the result; those past row_elements fold nothing
  std::vector<Fold> folds;
  bool is_mean = false;  // sums are divided by the number of tokens
};

// Where a chunk lies: of which head of the operand, and as the how many-eth of all results.
struct ChunkPlace {
  Value batch, head;
  Value begin, end;  // tokens
  Value result;
};

std::vector<Fold> folds_of(const ValuePlan& v) {
  if (!v.subtract_mean) return {{FoldKind::kAmax, "v_partial_amax"}};
  return {{FoldKind::kSum, "v_partial_sums"},
          {FoldKind::kHighest, "v_partial_highest"},
          {FoldKind::kLowest, "v_partial_lowest"}};
}

bool takes_zeros(FoldKind kind) {
  return kind == FoldKind::kSum || kind == FoldKind::kAmax;
}
// What the result of a chunk starts from.
Value neutral(FoldKind kind) {
  return constant_f32(takes_zeros(kind) ? 0 : -std::numeric_limits<float>::infinity());
}
Value combine(Builder& b, FoldKind kind, Value x, Value y) {
  return kind == FoldKind::kSum ? b.fadd(x, y) : b.fmax(x, y);
}
// A pair of elements that changes no extreme.
Value neutral_pair(FoldKind kind, DType type) {
  if (takes_zeros(kind)) return constant(0);
  const uint32_t infinity = type == DType::kF16 ? 0x7c007c00 : 0x7f807f80;
  return constant(
      static_cast<int32_t>(kind == FoldKind::kLowest ? infinity : infinity | 0x80008000));
}

// sum / count; 0 if that is not finite.
Value finite_mean(Builder& b, Value sum, Value count) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Value mean = b.fdiv(sum, count);
  const Value is_finite =
      b.emit1(Op::kLtF32, {b.emit1(Op::kAbsF32, {mean}), constant_f32(kInfinity)});
  return b.select(is_finite, mean, constant_f32(0));
}

// A team folds a chunk of tokens of one (batch, head). Threads take rows as RowLanes says; what
// they have meets in shared memory and is folded in order of the threads, so that sums do not
// depend on timing.
class ChunkFold {
 public:
  ChunkFold(Builder& b, const KernelArgs& args, const Statistic& statistic, const ChunkPlace& place,
            Value shared)
      : b_(b),
        args_(args),
        statistic_(statistic),
        lanes_(b, statistic.columns),
        place_(place),
        shared_(shared) {}

  void run(const Meanwhile& meanwhile) {
    for (const Fold& fold : statistic_.folds) {
      const bool sums = fold.kind == FoldKind::kSum;
      const Value start = sums ? constant_f32(0) : neutral_pair(fold.kind, statistic_.input);
      folds_.emplace_back();
      for (int i = 0; i < (sums ? kLaneElements : kLaneElements / 2); ++i) {
        folds_.back().push_back(b_.var(start));
      }
    }
    fold_rows(meanwhile.loading);
    call(meanwhile.last_work);
    for (size_t f = 0; f < folds_.size(); ++f) {
      const std::vector<Value> found = elements(f);
      for (int i = 0; i < kLaneElements; ++i) {
        b_.emit(Op::kStSharedF32,
                {b_.add(shared_, b_.shl(b_.tid(), 2)),
                 constant((static_cast<int>(f) * kLaneElements + i) * kPlaneBytes), found[i]});
      }
    }
    b_.barrier();
    // A thread for each channel of a fold; the next fold's are other threads where there are such.
    const int threads = b_.team_threads(), channels = statistic_.channels;
    for (int f = 0; f < static_cast<int>(folds_.size()); ++f) {
      const int first = f * channels % threads;
      const int begin = first + channels <= threads ? first : 0;
      const Value channel = b_.sub(b_.tid(), constant(begin));
      const Value is_channel = b_.less(channel, constant(channels));
      b_.when(begin == 0 ? is_channel : b_.both(b_.less_equal(constant(0), channel), is_channel),
              [&] { store(f, channel); });
    }
  }

 private:
  static constexpr int kPlaneBytes = kFoldBytes / kLaneElements;  // element i of all threads

  // What this thread has found, by element.
  std::vector<Value> elements(size_t fold) {
    std::vector<Value> found;
    for (const Var& part : folds_[fold]) found.push_back(b_.get(part));
    const FoldKind kind = statistic_.folds[fold].kind;
    if (kind == FoldKind::kSum) return found;
    found = unpack(b_, statistic_.input, found);
    for (Value& x : found) {
      if (kind == FoldKind::kLowest) x = b_.fneg(x);
    }
    return found;
  }

  // Where a chunk is whole runs of rows, most exist, and where it matters are folded with no look
  // at each.
  void fold_rows(const std::function<void()>& loading) {
    const int run = kChunkPieces * lanes_.rows_per_pass;
    const bool matters = run <= kMinChunkTokens &&
                         std::any_of(statistic_.folds.begin(), statistic_.folds.end(),
                                     [](const Fold& fold) { return !takes_zeros(fold.kind); });
    const Value rows = constant(run);
    b_.loop(place_.begin, place_.end, rows, [&](Value first) {
      if (!matters) return fold_run(first, false, loading);
      b_.when_uniform(
          b_.less_equal(b_.add(first, rows), place_.end), [&] { fold_run(first, true, loading); },
          [&] { fold_run(first, false, loading); });
    });
  }

  // All rows of a thread are loaded before the first is folded.
  void fold_run(Value first, bool all_exist, const std::function<void()>& loading) {
    const std::string_view tokens = statistic_.operand == "q" ? "m" : "n";
    const Value in_row = lanes_.within(b_, statistic_.row_elements);
    const Value row = b_.add(first, lanes_.first_row(b_, kChunkPieces));
    const RowPlace place{place_.batch, place_.head, row};
    Value address = b_.address(row_address(b_, args_, statistic_.operand, tokens, place),
                               lanes_.first, bits_of(statistic_.input) / 8);
    const Pieces pieces(b_, kChunkPieces);
    std::vector<Value> exist;
    for (int i = 0; i < kChunkPieces; ++i) {
      if (i > 0) address = b_.add64(address, args_[statistic_.operand + "_pass_stride"]);
      const Value token = b_.add(row, constant(i * lanes_.pass_rows));
      exist.push_back(all_exist ? in_row : both_if_set(b_, b_.less(token, place_.end), in_row));
      pieces.load(i, address, exist.back());
    }
    call(loading);
    for (int i = 0; i < kChunkPieces; ++i) {
      for (size_t f = 0; f < folds_.size(); ++f) fold_row(f, pieces.pairs(i), exist[i]);
    }
  }

  // What is outside the chunk and its rows is zero, which changes neither a sum that starts at +0
  // nor a magnitude; other folds must know. `exists`, if unset, is true.
  void fold_row(size_t fold, const std::vector<Value>& pairs, Value exists) {
    const FoldKind kind = statistic_.folds[fold].kind;
    const DType type = statistic_.input;
    std::vector<Var>& folded = folds_[fold];
    if (kind == FoldKind::kSum) {
      const std::vector<Value> x = unpack(b_, type, pairs);
      for (size_t i = 0; i < x.size(); ++i) b_.set(folded[i], b_.fadd(b_.get(folded[i]), x[i]));
      return;
    }
    for (size_t i = 0; i < pairs.size(); ++i) {
      Value pair = kind == FoldKind::kAmax ? pair_abs(b_, pairs[i]) : pairs[i];
      if (exists && !takes_zeros(kind)) pair = b_.select(exists, pair, neutral_pair(kind, type));
      const auto extreme = kind == FoldKind::kLowest ? pair_min : pair_max;
      b_.set(folded[i], extreme(b_, type, b_.get(folded[i]), pair));
    }
  }

  void store(int number, Value channel) {
    const Fold& fold = statistic_.folds[static_cast<size_t>(number)];
    const Value plane =
        b_.add(b_.rem(channel, constant(kLaneElements)), constant(number * kLaneElements));
    const Value lane = b_.shl(b_.div(channel, constant(kLaneElements)), 2);
    const Value column = b_.add(b_.add(shared_, b_.mul(plane, constant(kPlaneBytes))), lane);
    Value total = neutral(fold.kind);
    for (int row = 0; row < lanes_.rows_per_pass; ++row) {
      const Value one =
          b_.emit1(Op::kLdSharedF32, {column, constant(row * lanes_.lanes_per_row * 4)});
      total = combine(b_, fold.kind, total, one);
    }
    if (statistic_.is_mean) {
      total = finite_mean(b_, total, b_.emit1(Op::kF32FromS32, {b_.sub(place_.end, place_.begin)}));
    }
    const Value row = b_.add64(args_[fold.partial],
                               b_.mul64(place_.result, b_.zext(constant(statistic_.channels * 4))));
    b_.emit(Op::kStGlobalF32, {b_.address(row, channel, 4), constant(0), total});
  }

  Builder& b_;
  const KernelArgs& args_;
  const Statistic& statistic_;
  RowLanes lanes_;
  ChunkPlace place_;
  Value shared_;
  std::vector<std::vector<Var>> folds_;  // [fold][element, or pair of them]
};

// A head's chunks together, a channel a thread: K's by the first threads, V's by the last.
class HeadFold {
 public:
  HeadFold(Builder& b, const KernelArgs& args, Value batch_head)
      : b_(b),
        args_(args),
        batch_head_(batch_head),
        num_tokens_(b.emit1(Op::kF32FromS32, {b.max(args["n"], constant(1))})) {}

  // k_mean = sum / n.
  void run(const QuantizePlan& k) {
    channel_ = b_.tid();
    b_.when(b_.less(channel_, constant(k.head_dim)), [&] {
      const Value sum = fold({{FoldKind::kSum, "k_partial_sums"}}, k.head_dim)[0];
      store("k_mean", k.head_dim, 0, b_.fdiv(sum, num_tokens_));
    });
  }

  // v_scales = amax / range and, behind them, the means; v_inverses = range / amax, or 0.
  void run(const ValuePlan& v) {
    channel_ = b_.sub(b_.tid(), constant(b_.team_threads() - v.columns));
    b_.when(b_.less_equal(constant(0), channel_), [&] {
      const std::vector<Value> folded = fold(folds_of(v), v.columns);
      const Value mean = v.subtract_mean ? finite_mean(b_, folded[0], num_tokens_) : Value{};
      const Value amax = mean ? amax_about(mean, folded[1], folded[2]) : folded[0];
      const Value range = constant_f32(v.range);
      const Value is_zero = b_.emit1(Op::kEqF32, {amax, constant_f32(0)});
      store("v_scales", v.scales(), 0, b_.fdiv(amax, range));
      if (mean) store("v_scales", v.scales(), v.columns, mean);
      store("v_inverses", v.columns, 0, b_.select(is_zero, constant_f32(0), b_.fdiv(range, amax)));
    });
  }

 private:
  // The largest magnitude of x - mean, that of an extreme.
  Value amax_about(Value mean, Value highest, Value lowest) {
    const Value amax = b_.fmax(b_.fsub(highest, mean), b_.fadd(lowest, mean));
    return b_.fmax(amax, constant_f32(0));
  }

  // Of this thread's channel, in order of the chunks. The loads of some chunks, of all folds, are
  // in flight together; where there are fewer chunks, the last one comes again and counts for
  // nothing.
  std::vector<Value> fold(const std::vector<Fold>& folds, int channels) {
    constexpr int kInFlight = 18;  // 24 are too many for the registers of some kernels
    const int step = kInFlight / static_cast<int>(folds.size());
    const Value num_chunks = args_["num_chunks"];
    const Value row_bytes = b_.zext(constant(channels * 4));
    const Value first_row = b_.mul64(b_.zext(batch_head_), b_.zext(num_chunks));
    const Value place =
        b_.add64(b_.mul64(first_row, row_bytes), b_.mul64(b_.zext(channel_), bytes(4)));
    std::vector<Var> totals;
    for (const Fold& fold : folds) totals.push_back(b_.var(neutral(fold.kind)));
    b_.loop(constant(0), num_chunks, constant(step), [&](Value first) {
      std::vector<std::vector<Value>> loaded(folds.size());
      for (int i = 0; i < step; ++i) {
        const Value chunk = b_.min(b_.add(first, constant(i)), b_.sub(num_chunks, constant(1)));
        const Value offset = b_.add64(place, b_.mul64(b_.zext(chunk), row_bytes));
        for (size_t f = 0; f < folds.size(); ++f) {
          loaded[f].push_back(
              b_.emit1(Op::kLdGlobalF32, {b_.add64(args_[folds[f].partial], offset), constant(0)}));
        }
      }
      for (size_t f = 0; f < folds.size(); ++f) {
        for (int i = 0; i < step; ++i) {
          const Value exists = b_.less(b_.add(first, constant(i)), num_chunks);
          const Value one = b_.select(exists, loaded[f][i], neutral(folds[f].kind));
          b_.set(totals[f], combine(b_, folds[f].kind, b_.get(totals[f]), one));
        }
      }
    });
    std::vector<Value> result;
    for (const Var& total : totals) result.push_back(b_.get(total));
    return result;
  }
  static Value bytes(int count) {
    return {Value::Kind::kConst, ir::Type::kI64, static_cast<uint64_t>(count)};
  }

  // Of this thread's channel, in a buffer f32 [b, hkv, row_elements].
  void store(const std::string& buffer, int row_elements, int first, Value value) {
    const Value row = b_.address(args_[buffer], batch_head_, row_elements * 4);
    b_.emit(Op::kStGlobalF32, {b_.address(row, channel_, 4), constant(first * 4), value});
  }

  Builder& b_;
  const KernelArgs& args_;
  Value batch_head_, num_tokens_;
  Value channel_;
};

}  // namespace

void fold_chunks(Builder& b, const KernelArgs& args, const ForwardPlan& plan, Value batch_head) {
  HeadFold fold(b, args, batch_head);
  if (plan.k.subtract_mean) fold.run(plan.k);
  if (plan.v.is_scaled) fold.run(plan.v);
}

namespace {

// In the order of a head's chunks: those of Q, whose number is another, come last.
std::vector<Statistic> statistics_of(const ForwardPlan& plan) {
  const QuantizePlan &k = plan.k, &q = plan.q;
  const ValuePlan& v = plan.v;
  std::vector<Statistic> all;
  const auto sums = [&](const QuantizePlan& x, std::string buffer) {
    return Statistic{x.operand,         x.input,    x.head_dim,
                     x.padded_head_dim, x.head_dim, {{FoldKind::kSum, std::move(buffer)}}};
  };
  if (k.subtract_mean) all.push_back(sums(k, "k_partial_sums"));
  if (v.is_scaled) {
    all.push_back({"v", v.input, v.value_head_dim, v.columns, v.columns, folds_of(v)});
  }
  if (q.subtract_mean) {
    all.push_back(sums(q, "q_mean"));
    all.back().is_mean = true;
  }
  return all;
}

// Chunk `chunk` of the tokens of K or V.
ChunkPlace key_chunk(Builder& b, const KernelArgs& args, const TilePlace& place, Value chunk) {
  const Value begin = b.mul(chunk, args["chunk_tokens"]);
  const Value end = b.min(b.add(begin, args["chunk_tokens"]), args["n"]);
  const Value head = b.mul64(b.zext(place.kv_batch_head), b.zext(args["num_chunks"]));
  return {place.batch, place.head, begin, end, b.add64(head, b.zext(chunk))};
}

// Block `block` of the queries that attend to a K head, head after head.
ChunkPlace query_block(Builder& b, const KernelArgs& args, const QuantizePlan& q,
                       const TilePlace& place, Value block) {
  const Value head_in_group = b.div(block, args["q_blocks"]);
  const Value in_head = b.sub(block, b.mul(head_in_group, args["q_blocks"]));
  const Value begin = b.mul(in_head, constant(q.mean_span));
  const Value end = b.min(b.add(begin, constant(q.mean_span)), args["m"]);
  const Value group_blocks = b.mul(args["group_heads"], args["q_blocks"]);
  const Value first = b.mul64(b.zext(place.kv_batch_head), b.zext(group_blocks));
  return {place.batch, b.add(b.mul(place.head, args["group_heads"]), head_in_group), begin, end,
          b.add64(first, b.zext(block))};
}

}  // namespace

void fold_tokens(Builder& b, const KernelArgs& args, const ForwardPlan& plan,
                 const TilePlace& place, Value scratch, const Meanwhile& meanwhile) {
  const std::vector<Statistic> all = statistics_of(plan);
  const auto run = [&](const Statistic& statistic, Value chunk) {
    const ChunkPlace at = statistic.operand == "q" ? query_block(b, args, plan.q, place, chunk)
                                                   : key_chunk(b, args, place, chunk);
    ChunkFold(b, args, statistic, at, scratch).run(meanwhile);
  };
  const std::function<void(size_t, Value)> run_from = [&](size_t first, Value chunk) {
    if (first + 1 == all.size()) return run(all[first], chunk);
    b.when_uniform(
        b.less(chunk, args["num_chunks"]), [&] { run(all[first], chunk); },
        [&] { run_from(first + 1, b.sub(chunk, args["num_chunks"])); });
  };
  run_from(0, place.tile);
}

ir::Function generate_statistics(const ForwardPlan& plan) {
  Builder b("statistics", kPrepareThreads, 3);
  const KernelArgs args(b, *plan.find_launch("statistics"));
  const Value head = b.emit1(Op::kBlockY, {}), batch = b.emit1(Op::kBlockZ, {});
  const TilePlace place{b.emit1(Op::kBlockX, {}), head, batch,
                        b.add(b.mul(batch, args["hkv"]), head)};
  fold_tokens(b, args, plan, place, b.smem("scratch", plan.scratch_bytes(), 128));
  return b.finish(plan.target->sm);
}

ir::Function generate_fold(const ForwardPlan& plan) {
  Builder b("fold", kPrepareThreads);
  const KernelArgs args(b, *plan.find_launch("fold"));
  fold_chunks(b, args, plan, b.emit1(Op::kBlockX, {}));
  return b.finish(plan.target->sm);
}

}  // namespace sagejit
