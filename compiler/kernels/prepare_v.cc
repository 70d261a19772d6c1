// Preparation of V for the wgmma kernel.
#include <limits>

#include "compiler/kernels/generators.h"
#include "compiler/kernels/prepare.h"
#include "compiler/layout/core_matrix.h"

namespace sagejit {

using ir::Builder;
using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;
using ir::Var;

namespace {

constexpr int kElementBytes = 2;   // of V in memory
constexpr int kPairTokens = 2;     // a 32-bit word of codes holds two pairs of tokens,
constexpr int kPairStride = 8;     // so far apart (token_at_position)
constexpr int kWordsPerGroup = 4;  // 16 positions of a channel

// `tile_tokens` tokens of V of one (batch, head), and where their codes go.
class ValueTile {
 public:
  ValueTile(Builder& b, const KernelArgs& args, const ValuePlan& plan, const TilePlace& place)
      : b_(b),
        args_(args),
        plan_(plan),
        batch_head_(b.add(b.mul(place.batch, args["hkv"]), place.head)),
        first_token_(b.mul(place.tile, constant(plan.tile_tokens))),
        head_address_(row_address(b, args, "v", "n", {place.batch, place.head, constant(0)})) {}

  Value first_token() const { return first_token_; }
  Value batch_head() const { return batch_head_; }

  Value exists(Value token, Value channel) const {
    return b_.both(b_.less(token, args_["n"]), b_.less(channel, constant(plan_.value_head_dim)));
  }
  // Eight channels of a token, in pairs; zeros outside the tensor.
  std::vector<Value> load(Value token, Value channel, Value valid) const {
    const Value row = b_.add64(head_address_, b_.mul64(b_.zext(token), args_["v_stride_n"]));
    return load_pairs(b_, b_.address(row, channel, kElementBytes), valid);
  }

  // The tile's codes are one range of memory: the address of its first.
  Value codes() const {
    const int token_bytes = plan_.columns * bits_of(plan_.type) / 8;
    const Value first =
        b_.add64(b_.mul64(b_.zext(batch_head_), b_.zext(args_["padded_n"])), b_.zext(first_token_));
    return b_.add64(args_["v_codes"], b_.mul64(first, b_.zext(constant(token_bytes))));
  }

 private:
  Builder& b_;
  const KernelArgs& args_;
  const ValuePlan& plan_;
  Value batch_head_, first_token_, head_address_;
};

// The block's threads go over `count` items in passes, neighbours together. visit(item, in_range);
// in_range is unset where every thread has an item.
template <typename Visit>
void for_each_item(Builder& b, int count, Visit visit) {
  for (int first = 0; first < count; first += b.block_threads()) {
    const Value item = b.add(b.tid(), constant(first));
    const bool whole = first + b.block_threads() <= count;
    visit(item, whole ? Value{} : b.less(item, constant(count)));
  }
}

Value both_if_set(Builder& b, Value condition, Value optional) {
  return optional ? b.both(condition, optional) : condition;
}

// Two elements of type `from` to two of type `to`.
Value convert_pair(Builder& b, DType from, DType to, Value pair) {
  if (from == to) return pair;
  const std::vector<Value> elements = unpack(b, from, {pair});
  return b.emit1(to == DType::kF16 ? Op::kPackF16 : Op::kPackBF16, {elements[0], elements[1]});
}

// A 16-byte piece of a row is a row of a core matrix, and the pieces of a tile, in the order of
// their place in the codes, are numbered (token / 8, piece of the row, token % 8): stores are
// contiguous, loads are of 64 bytes a row.
void convert_values(Builder& b, const KernelArgs& args, const ValuePlan& v,
                    const TilePlace& place) {
  const ValueTile tile(b, args, v, place);
  const int row_pieces = v.columns / kLaneElements;
  struct Piece {
    std::vector<Value> pairs;
    Value stored, offset;
  };
  std::vector<Piece> pieces;
  for_each_item(b, v.tile_tokens * row_pieces, [&](Value item, Value in_range) {
    const Value band = b.div(item, constant(row_pieces * kCoreRows));
    const Value in_tile = b.add(b.mul(band, constant(kCoreRows)), b.rem(item, constant(kCoreRows)));
    const Value token = b.add(tile.first_token(), in_tile);
    const Value piece = b.rem(b.div(item, constant(kCoreRows)), constant(row_pieces));
    const Value channel = b.mul(piece, constant(kLaneElements));
    const Value valid = both_if_set(b, tile.exists(token, channel), in_range);
    const Value stored = both_if_set(b, b.less(token, args["padded_n"]), in_range);
    pieces.push_back({tile.load(token, channel, valid), stored, item});
  });
  const Value codes = tile.codes();
  for (const Piece& piece : pieces) {
    b.when(piece.stored, [&] {
      std::vector<Value> operands = {b.address(codes, piece.offset, kCoreRowBytes), constant(0)};
      for (const Value pair : piece.pairs) {
        operands.push_back(convert_pair(b, v.input, v.type, pair));
      }
      b.emit(Op::kStGlobalV4, operands);
    });
  }
}

// Quantizes a tile and turns it: threads load 16 bytes along the channels of four tokens whose
// codes are neighbours, which makes a word of each of eight channels; the words meet in shared
// memory as they will lie in the codes, and leave it 16 bytes at a time.
//
// Shared memory holds columns of 16 bytes, 16 positions of a channel; those of eight channels fill
// all banks. Column c of group g lies at c ^ (g % 8): eight threads that write the same channel of
// eight groups then meet different banks.
class ValueQuantizer {
 public:
  ValueQuantizer(Builder& b, const KernelArgs& args, const ValuePlan& plan, const TilePlace& place)
      : b_(b),
        args_(args),
        plan_(plan),
        tile_(b, args, plan, place),
        groups_per_row_(plan.columns / kLaneElements),
        num_groups_(plan.tile_tokens / kCoreRowBytes * groups_per_row_),
        codes_(b.smem("v_codes", plan.tile_tokens * plan.columns, 128)),
        inverses_(b.smem("v_inverses", plan.columns * 4)) {
    if (plan.subtract_mean) means_ = b.smem("v_means", plan.columns * 4);
  }

  void run() {
    std::vector<Item> items;
    for_each_item(b_, num_groups_ * kWordsPerGroup,
                  [&](Value item, Value in_range) { items.push_back(load(item, in_range)); });
    scale_channels();
    b_.barrier();
    for (const Item& item : items) quantize(item);
    b_.barrier();
    store();
  }

 private:
  // Four tokens, in the order of their positions, of the eight channels of a group.
  struct Item {
    Value in_range;
    Value group, quad, first_channel;
    std::vector<std::vector<Value>> tokens;
    Value kept;  // of a word of four codes, the bytes of tokens that exist; only with a mean
  };

  // Eight groups in a row, then the next of their four words: a warp reads 128 bytes of a token
  // where it has that many.
  Item load(Value index, Value in_range) {
    Item item;
    item.in_range = in_range;
    item.group = b_.add(b_.mul(b_.div(index, constant(8 * kWordsPerGroup)), constant(8)),
                        b_.rem(index, constant(8)));
    item.quad = b_.rem(b_.div(index, constant(8)), constant(kWordsPerGroup));
    item.first_channel =
        b_.mul(b_.rem(item.group, constant(groups_per_row_)), constant(kLaneElements));
    const Value sixteen = b_.div(item.group, constant(groups_per_row_));
    const Value in_tile =
        b_.add(b_.mul(sixteen, constant(kCoreRowBytes)), b_.mul(item.quad, constant(kPairTokens)));
    const Value token = b_.add(tile_.first_token(), in_tile);
    if (plan_.subtract_mean) item.kept = constant(0);
    uint32_t byte = 0xff;
    for (const int distance : {0, 1, kPairStride, kPairStride + 1}) {
      const Value t = b_.add(token, constant(distance));
      const Value valid = both_if_set(b_, tile_.exists(t, item.first_channel), in_range);
      item.tokens.push_back(tile_.load(t, item.first_channel, valid));
      if (item.kept) {
        const Value mask = constant(static_cast<int32_t>(byte));
        item.kept = b_.bit_or(item.kept, b_.select(valid, mask, constant(0)));
      }
      byte <<= 8;
    }
    return item;
  }

  Value fold(const std::string& partial, Op op, float neutral = 0) {
    return fold_chunks(b_, args_, partial, plan_.columns, {tile_.batch_head(), b_.tid()}, op,
                       neutral);
  }

  // Of this thread's channel: the mean over the tokens, 0 if it is not finite, and the largest
  // magnitude of x - mean, which is that of an extreme.
  struct Channel {
    Value mean, amax;
  };
  Channel channel() {
    wait_for_statistics(b_, args_, tile_.batch_head());
    if (!plan_.subtract_mean) return {{}, fold("v_partial_amax", Op::kMaxF32)};
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    const Value count = b_.emit1(Op::kF32FromS32, {b_.max(args_["n"], constant(1))});
    const Value quotient = b_.fdiv(fold("v_partial_sums", Op::kAddF32), count);
    const Value is_finite =
        b_.emit1(Op::kLtF32, {b_.emit1(Op::kAbsF32, {quotient}), constant_f32(-kNone)});
    const Value mean = b_.select(is_finite, quotient, constant_f32(0));
    const Value above = b_.fsub(fold("v_partial_highest", Op::kMaxF32, kNone), mean);
    const Value below = b_.fadd(fold("v_partial_lowest", Op::kMaxF32, kNone), mean);
    return {mean, b_.fmax(b_.fmax(above, below), constant_f32(0))};
  }

  // inverse = range / amax into shared memory, 0 where amax is, and the mean; the head's first
  // block writes the scales, and behind them the means.
  void scale_channels() {
    b_.when(b_.less(b_.tid(), constant(plan_.columns)), [&] {
      const Channel found = channel();
      const Value mean = found.mean, amax = found.amax;
      if (mean) b_.emit(Op::kStSharedF32, {b_.add(means_, b_.shl(b_.tid(), 2)), constant(0), mean});
      const Value is_zero = b_.emit1(Op::kEqF32, {amax, constant_f32(0)});
      const Value range = constant_f32(plan_.range);
      const Value inverse = b_.select(is_zero, constant_f32(0), b_.fdiv(range, amax));
      b_.emit(Op::kStSharedF32, {b_.add(inverses_, b_.shl(b_.tid(), 2)), constant(0), inverse});
      b_.when(b_.equal(tile_.first_token(), constant(0)), [&] {
        const Value row = b_.address(args_["v_scales"], tile_.batch_head(), plan_.scales() * 4);
        const Value mine = b_.address(row, b_.tid(), 4);
        b_.emit(Op::kStGlobalF32, {mine, constant(0), b_.fdiv(amax, range)});
        if (mean) b_.emit(Op::kStGlobalF32, {mine, constant(plan_.columns * 4), mean});
      });
    });
  }

  void quantize(const Item& item) {
    if (!item.in_range) return store_words(item);
    b_.when(item.in_range, [&] { store_words(item); });
  }

  void store_words(const Item& item) {
    std::vector<std::vector<Value>> x;
    for (const std::vector<Value>& pairs : item.tokens) x.push_back(unpack(b_, plan_.input, pairs));
    const Value channel_bytes = b_.shl(item.first_channel, 2);
    const std::vector<Value> inverses = load_shared_f32s(b_, b_.add(inverses_, channel_bytes));
    std::vector<Value> means(kLaneElements);
    if (plan_.subtract_mean) means = load_shared_f32s(b_, b_.add(means_, channel_bytes));
    const Value group =
        b_.add(b_.add(codes_, b_.mul(item.group, constant(kCoreBytes))), b_.shl(item.quad, 2));
    const Value turn = b_.mul(b_.rem(item.group, constant(8)), constant(kCoreRowBytes));
    for (int i = 0; i < kLaneElements; ++i) {
      std::vector<Value> codes;
      for (const std::vector<Value>& token : x) {
        const Value centred = means[i] ? b_.fsub(token[i], means[i]) : token[i];
        codes.push_back(scaled(centred, inverses[i]));
      }
      Value word = b_.emit1(Op::kPackE4M3, {codes[0], codes[1], codes[2], codes[3]});
      if (item.kept) word = b_.bit_and(word, item.kept);
      const Value column = b_.bit_xor(turn, constant(i * kCoreRowBytes));
      b_.emit(Op::kStSharedI32, {b_.add(group, column), constant(0), word});
    }
  }

  // x * inverse; 0 for a NaN, as int8 codes are.
  Value scaled(Value x, Value inverse) {
    const Value y = b_.fmul(x, inverse);
    return b_.select(b_.emit1(Op::kEqF32, {y, y}), y, constant_f32(0));
  }

  // The tile's codes, as far as there are (padded) tokens.
  void store() {
    const Value left = b_.sub(args_["padded_n"], tile_.first_token());
    const Value tokens = b_.min(b_.max(left, constant(0)), constant(plan_.tile_tokens));
    const Value end = b_.mul(b_.div(tokens, constant(kCoreRowBytes)), constant(plan_.columns));
    const Value codes = tile_.codes();
    for_each_item(b_, num_groups_ * kCoreRows, [&](Value column, Value in_range) {
      b_.when(both_if_set(b_, b_.less(column, end), in_range), [&] {
        const Value group = b_.div(column, constant(kCoreRows));
        const Value turned = b_.bit_xor(column, b_.rem(group, constant(8)));
        const Value address = b_.add(codes_, b_.mul(turned, constant(kCoreRowBytes)));
        std::vector<Value> operands = {b_.address(codes, column, kCoreRowBytes), constant(0)};
        for (const Value word : b_.emit(Op::kLdSharedV4, {address, constant(0)})) {
          operands.push_back(word);
        }
        b_.emit(Op::kStGlobalV4, operands);
      });
    });
  }

  Builder& b_;
  const KernelArgs& args_;
  const ValuePlan& plan_;
  ValueTile tile_;
  int groups_per_row_;
  int num_groups_;  // of 8 channels and 16 positions, in a tile
  Value codes_, inverses_, means_;
};

}  // namespace

void prepare_values(Builder& b, const KernelArgs& args, const ValuePlan& v,
                    const TilePlace& place) {
  if (v.is_scaled) {
    ValueQuantizer(b, args, v, place).run();
  } else {
    convert_values(b, args, v, place);
  }
}

}  // namespace sagejit
