// Preparation of V: 8-bit codes for either attention kernel, 16-bit ones for that of wgmma.
#include <functional>

#include "compiler/kernels/generators.h"
#include "compiler/kernels/group_scales.h"
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

constexpr int kElementBytes = 2;               // of V in memory
constexpr int kPairTokens = 2;                 // a 32-bit word of codes holds two pairs of tokens,
constexpr int kPairStride = kValuePairTokens;  // so far apart (token_at_position)
constexpr int kWordsPerGroup = 4;              // 16 positions of a channel

// `tile_tokens` tokens of V of one (batch, head), and where their codes go.
class ValueTile {
 public:
  ValueTile(Builder& b, const KernelArgs& args, const ValuePlan& plan, const TilePlace& place)
      : b_(b),
        args_(args),
        plan_(plan),
        batch_head_(place.kv_batch_head),
        first_token_(b.mul(place.tile, constant(plan.tile_tokens))),
        head_address_(row_address(b, args, "v", "n", {place.batch, place.head, constant(0)})) {}

  Value first_token() const { return first_token_; }
  Value batch_head() const { return batch_head_; }

  // Of a channel that has codes; unset: they all do.
  Value channel_exists(Value channel) const {
    if (plan_.columns == plan_.value_head_dim) return {};
    return b_.less(channel, constant(plan_.value_head_dim));
  }
  Value exists(Value token, Value channel) const {
    return both_if_set(b_, b_.less(token, args_["n"]), channel_exists(channel));
  }
  // load(whether all of the tile's tokens are known to exist): most tiles' do, and are loaded with
  // no look at them.
  void load_tokens(const std::function<void(bool)>& load) const {
    const Value end = b_.add(first_token_, constant(plan_.tile_tokens));
    b_.when_uniform(
        b_.less_equal(end, args_["n"]), [&] { load(true); }, [&] { load(false); });
  }
  // Of eight channels of a token.
  Value address(Value token, Value channel) const {
    const Value row = b_.add64(head_address_, b_.mul64(b_.zext(token), args_["v_stride_n"]));
    return b_.address(row, channel, kElementBytes);
  }

  // The tile's codes are one range of memory: the address of its first.
  Value codes() const { return first_of("v_codes", plan_.token_bytes()); }
  // And their group scales, whose tokens are whole blocks of kScaleWordElements.
  Value group_scales() const { return first_of("v_scales", plan_.scale_token_bytes()); }

 private:
  Value first_of(const std::string& buffer, int token_bytes) const {
    const Value first =
        b_.add64(b_.mul64(b_.zext(batch_head_), b_.zext(args_["padded_n"])), b_.zext(first_token_));
    return b_.add64(args_[buffer], b_.mul64(first, b_.zext(constant(token_bytes))));
  }

  Builder& b_;
  const KernelArgs& args_;
  const ValuePlan& plan_;
  Value batch_head_, first_token_, head_address_;
};

int passes_over(Builder& b, int count) {
  return (count + b.team_threads() - 1) / b.team_threads();
}
// The team's threads go over `count` items in passes, neighbours together. visit(item, in_range);
// in_range is unset where every thread has an item.
template <typename Visit>
void for_each_item(Builder& b, int count, Visit visit) {
  for (int first = 0; first < count; first += b.team_threads()) {
    const Value item = b.add(b.tid(), constant(first));
    const bool whole = first + b.team_threads() <= count;
    visit(item, whole ? Value{} : b.less(item, constant(count)));
  }
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
class ValueConverter {
 public:
  ValueConverter(Builder& b, const KernelArgs& args, const ValuePlan& plan, const TilePlace& place)
      : b_(b), args_(args), plan_(plan), tile_(b, args, plan, place) {}

  void run(const Meanwhile& meanwhile) const {
    const Pieces pieces(b_, passes_over(b_, num_pieces()));
    tile_.load_tokens([&](bool all_exist) {
      int piece = 0;
      for_each_piece([&](Value, Value in_range, Value token, Value channel) {
        const Value exists =
            all_exist ? tile_.channel_exists(channel) : tile_.exists(token, channel);
        pieces.load(piece++, tile_.address(token, channel), both_if_set(b_, exists, in_range));
      });
    });
    call(meanwhile.loading);
    call(meanwhile.last_work);
    const Value codes = tile_.codes();
    int piece = 0;
    for_each_piece([&](Value item, Value in_range, Value token, Value) {
      std::vector<Value> operands = {b_.address(codes, item, kCoreRowBytes), constant(0)};
      for (const Value pair : pieces.pairs(piece++)) {
        operands.push_back(convert_pair(b_, plan_.input, plan_.type, pair));
      }
      const Value stored = both_if_set(b_, b_.less(token, args_["padded_n"]), in_range);
      b_.when(stored, [&] { b_.emit(Op::kStGlobalV4, operands); });
    });
  }

 private:
  int num_pieces() const { return plan_.tile_tokens * plan_.columns / kLaneElements; }

  // visit(number, in_range, token, first channel).
  template <typename Visit>
  void for_each_piece(Visit visit) const {
    const int row_pieces = plan_.columns / kLaneElements;
    for_each_item(b_, num_pieces(), [&](Value item, Value in_range) {
      const Value band = b_.div(item, constant(row_pieces * kCoreRows));
      const Value in_tile =
          b_.add(b_.mul(band, constant(kCoreRows)), b_.rem(item, constant(kCoreRows)));
      const Value piece = b_.rem(b_.div(item, constant(kCoreRows)), constant(row_pieces));
      visit(item, in_range, b_.add(tile_.first_token(), in_tile),
            b_.mul(piece, constant(kLaneElements)));
    });
  }

  Builder& b_;
  const KernelArgs& args_;
  const ValuePlan& plan_;
  ValueTile tile_;
};

// Quantizes a tile and turns it: threads load 16 bytes along the channels of four tokens whose
// codes are neighbours, which makes a word of each of eight channels; the words meet in shared
// memory as they will lie in the codes, and leave it 16 bytes at a time.
//
// Shared memory holds columns of 16 bytes, 16 positions of a channel; those of eight channels fill
// all banks. Column c of group g lies at c ^ (g % 8): eight threads that write the same channel of
// eight groups then meet different banks.
class ValueQuantizer {
 public:
  ValueQuantizer(Builder& b, const KernelArgs& args, const ValuePlan& plan, const TilePlace& place,
                 Value scratch)
      : b_(b),
        args_(args),
        plan_(plan),
        tile_(b, args, plan, place),
        groups_per_row_(plan.columns / kLaneElements),
        num_groups_(plan.tile_tokens / kCoreRowBytes * groups_per_row_),
        codes_(scratch) {}

  void run(const Meanwhile& meanwhile) {
    const std::vector<Item> all = items();
    const Pieces pieces(b_, static_cast<int>(all.size()) * kWordTokens);
    tile_.load_tokens([&](bool all_exist) {
      for (size_t i = 0; i < all.size(); ++i) {
        load(all[i], pieces, static_cast<int>(i) * kWordTokens, all_exist);
      }
    });
    call(meanwhile.loading);
    wait_for_statistics(b_, args_, tile_.batch_head());
    call(meanwhile.last_work);
    int piece = 0;
    for (const Item& item : all) {
      load_channels(item);
      std::vector<std::vector<Value>> x;
      for (int i = 0; i < kWordTokens; ++i) {
        x.push_back(unpack(b_, plan_.input, pieces.pairs(piece++)));
      }
      if (item.in_range) {
        b_.when(item.in_range, [&] { store_words(item, x); });
      } else {
        store_words(item, x);
      }
    }
    b_.barrier();
    store();
  }

 private:
  // Four tokens of the eight channels of a group, the first pair's and that behind it.
  static constexpr int kWordTokens = 2 * kPairTokens;
  struct Item {
    Value in_range;
    Value group, quad, first_channel;
    Value token;  // the first
  };
  std::vector<Item> items() const {
    std::vector<Item> items;
    for_each_item(b_, num_groups_ * kWordsPerGroup,
                  [&](Value item, Value in_range) { items.push_back(item_of(item, in_range)); });
    return items;
  }

  // Eight groups in a row, then the next of their four words: a warp reads 128 bytes of a token
  // where it has that many.
  Item item_of(Value index, Value in_range) const {
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
    item.token = b_.add(tile_.first_token(), in_tile);
    return item;
  }

  // Tokens that do not exist are zeros; where a mean is subtracted NaNs, whose codes are 0.
  void load(const Item& item, const Pieces& pieces, int piece, bool all_exist) const {
    const Value one = args_["v_stride_n"],
                channel_exists = tile_.channel_exists(item.first_channel);
    const Value missing = constant(plan_.subtract_mean ? kNanPair : 0);
    const Value otherwise =
        channel_exists ? b_.select(channel_exists, missing, constant(0)) : missing;
    const Value first = tile_.address(item.token, item.first_channel);
    const Value pair = b_.add64(first, args_["v_pair_stride"]);
    const std::pair<Value, int> tokens[] = {{first, 0},
                                            {b_.add64(first, one), 1},
                                            {pair, kPairStride},
                                            {b_.add64(pair, one), kPairStride + 1}};
    for (const auto& [address, distance] : tokens) {
      const Value token = b_.add(item.token, constant(distance));
      const Value exists = all_exist ? channel_exists : tile_.exists(token, item.first_channel);
      pieces.load(piece++, address, both_if_set(b_, exists, item.in_range), otherwise);
    }
  }

  // What the codes of an item's channels are made with; the same as for the item before, where that
  // has the same channels.
  void load_channels(const Item& item) {
    const int groups_of_pass = b_.team_threads() / kWordsPerGroup;
    if (!inverses_.empty() && groups_of_pass % groups_per_row_ == 0) return;
    inverses_ = load_channels("v_inverses", plan_.columns, item.first_channel);
    means_.assign(kLaneElements, {});
    if (plan_.subtract_mean) {
      const Value first = b_.add(item.first_channel, constant(plan_.columns));  // behind the scales
      means_ = load_channels("v_scales", plan_.scales(), first);
    }
  }
  // Of a buffer f32 [b, hkv, row_elements], eight elements of this head's row.
  std::vector<Value> load_channels(const std::string& buffer, int row_elements, Value first) {
    const Value row = b_.address(args_[buffer], tile_.batch_head(), row_elements * 4);
    return load_f32s(b_, b_.address(row, first, 4));
  }

  void store_words(const Item& item, const std::vector<std::vector<Value>>& x) {
    const Places places = places_of(item);
    Value nans = constant(0);
    for (int i = 0; i < kLaneElements; ++i) {
      std::vector<Value> codes;
      for (const std::vector<Value>& token : x) {
        const Value centred = means_[i] ? b_.fsub(token[i], means_[i]) : token[i];
        codes.push_back(b_.fmul(centred, inverses_[i]));
      }
      const Value word = pack(codes);
      if (has_nans()) nans = b_.bit_or(nans, nan_flags(b_, word));
      b_.emit(Op::kStSharedI32, {place(places, i), constant(0), word});
    }
    if (!has_nans()) return;
    b_.when(b_.not_equal(b_.bit_and(nans, constant(kByteSigns)), constant(0)),
            [&] { clear_nans(places_of(item)); });
  }

  // Where the words of an item meet in shared memory. Made anew by every call: kept, the places
  // would take registers that other items, and the words, need.
  struct Places {
    Value group, turn;
  };
  Places places_of(const Item& item) {
    const Var number = b_.var(item.group);
    b_.tie({number});
    const Value group = b_.get(number);
    return {b_.add(b_.add(codes_, b_.mul(group, constant(kCoreBytes))), b_.shl(item.quad, 2)),
            b_.mul(b_.rem(group, constant(8)), constant(kCoreRowBytes))};
  }
  Value place(const Places& places, int channel) {
    return b_.add(places.group, b_.bit_xor(places.turn, constant(channel * kCoreRowBytes)));
  }

  Value pack(const std::vector<Value>& x) {
    if (plan_.type == DType::kS8) return pack_integers(b_, 8, x);
    return pack_floats(b_, plan_.type, x);
  }
  bool has_nans() const { return is_fp8(plan_.type); }

  // NaNs become 0, as int8 codes are: rare, and so looked for in the codes that are made.
  void clear_nans(const Places& places) {
    for (int i = 0; i < kLaneElements; ++i) {
      const Value address = place(places, i);
      const Value word = b_.emit1(Op::kLdSharedI32, {address, constant(0)});
      b_.emit(Op::kStSharedI32, {address, constant(0), without_nans(b_, word)});
    }
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
  Value codes_;
  std::vector<Value> inverses_, means_;  // by channel; means are unset where none is subtracted
};

// Quantizes a tile in groups of 16 tokens, fp4 with a scale for each channel of a group. A thread
// has eight channels of a group, eight threads those of 64 channels, side by side, and 32 the four
// groups whose scales make a word.
class ValueGroupQuantizer {
 public:
  ValueGroupQuantizer(Builder& b, const KernelArgs& args, const ValuePlan& plan,
                      const TilePlace& place)
      : b_(b), args_(args), plan_(plan), tile_(b, args, plan, place) {}

  void run(const Meanwhile& meanwhile) const {
    const int warps = (plan_.columns / kLaneElements + kPiecesOfWarp - 1) / kPiecesOfWarp;
    const int count = plan_.tile_tokens / kScaleWordElements * warps * kThreadsOfWord;
    for_each_item(b_, count, [&](Value index, Value in_range) {
      const Item item = item_of(index, in_range, warps);
      const Pieces pieces(b_, kGroupElements);
      load(item, pieces);
      call(meanwhile.loading);
      call(meanwhile.last_work);
      for (int pair = 0; pair < kLaneElements / 2; ++pair) quantize_pair(item, pieces, pair);
    });
  }

 private:
  static constexpr int kPiecesOfWarp = 8, kThreadsOfWord = kPiecesOfWarp * kScaleWordBytes;

  struct Item {
    Value in_range;  // unset: always
    Value block;     // of 64 tokens, in the tile
    Value group;     // of 16 tokens, in the block
    Value channel;   // the first of eight
    Value token;     // the group's first
  };
  Item item_of(Value index, Value in_range, int warps) const {
    Item item;
    item.in_range = in_range;
    const Value warp = b_.div(index, constant(kThreadsOfWord));
    item.block = b_.div(warp, constant(warps));
    item.group = b_.rem(b_.div(index, constant(kPiecesOfWarp)), constant(kScaleWordBytes));
    const Value piece = b_.add(b_.mul(b_.rem(warp, constant(warps)), constant(kPiecesOfWarp)),
                               b_.rem(index, constant(kPiecesOfWarp)));
    item.channel = b_.mul(piece, constant(kLaneElements));
    const Value in_tile = b_.add(b_.mul(item.block, constant(kScaleWordElements)),
                                 b_.mul(item.group, constant(kGroupElements)));
    item.token = b_.add(tile_.first_token(), in_tile);
    return item;
  }

  void load(const Item& item, const Pieces& pieces) const {
    Value address = tile_.address(item.token, item.channel);
    for (int i = 0; i < kGroupElements; ++i) {
      if (i > 0) address = b_.add64(address, args_["v_stride_n"]);
      const Value token = b_.add(item.token, constant(i));
      const Value exists = b_.both(b_.less(token, args_["n"]),
                                   b_.less(item.channel, constant(plan_.value_head_dim)));
      pieces.load(i, address, both_if_set(b_, exists, item.in_range));
    }
  }

  // Two channels of the group: 16 codes of each, and their scales.
  void quantize_pair(const Item& item, const Pieces& pieces, int pair) const {
    constexpr int kWordCodes = 8;
    std::vector<Value> x[2];
    Value amax[2] = {constant_f32(0), constant_f32(0)};
    for (int i = 0; i < kGroupElements; ++i) {
      const std::vector<Value> elements = unpack(b_, plan_.input, {pieces.pairs(i)[pair]});
      for (int c = 0; c < 2; ++c) {
        x[c].push_back(without_nan(b_, elements[c]));
        amax[c] = b_.fmax(amax[c], b_.emit1(Op::kAbsF32, {x[c].back()}));
      }
    }
    const Value scales = pack_group_scales(b_, {amax[0], amax[1]}, plan_.range);
    const Value exists = b_.less(item.token, args_["padded_n"]);
    const Value stored = both_if_set(
        b_, b_.both(exists, b_.less(item.channel, constant(plan_.columns))), item.in_range);
    for (int c = 0; c < 2; ++c) {
      const Value inverse = b_.fdiv(constant_f32(1), group_divisor(b_, scales, c));
      const auto word = [&](int first) {
        return pack_group_codes(b_, {x[c].begin() + first, x[c].begin() + first + kWordCodes},
                                inverse);
      };
      const Value low = word(0), high = word(kWordCodes);
      b_.when(stored, [&] {
        b_.emit(Op::kStGlobalV2,
                {code_address(item), constant((2 * pair + c) * kCoreRowBytes), low, high});
      });
    }
    store_scales(item, scales, pair, exists);
  }

  // kChannelRows (core_matrix.h), two tokens to a byte.
  Value code_address(const Item& item) const {
    constexpr int kRowTokens = 2 * kCoreRowBytes, kGroupBytes = kGroupElements / 2;
    const Value token = b_.sub(item.token, tile_.first_token());
    const Value chunk = b_.address(tile_.codes(), b_.div(token, constant(kRowTokens)),
                                   kCoreRowBytes * plan_.columns);
    const Value core = b_.mul(b_.div(item.channel, constant(kCoreRows)), constant(kCoreBytes));
    const Value half = b_.mul(b_.rem(item.group, constant(2)), constant(kGroupBytes));
    return b_.address(chunk, b_.add(core, half), 1);
  }

  // The words of two channels: what the four threads with their groups have in the two lower bytes,
  // transposed. The thread of group `pair` stores them.
  void store_scales(const Item& item, Value scales, int pair, Value exists) const {
    constexpr int kLowHalves = 0x5410, kEvenBytes = 0x6420, kOddBytes = 0x7531;
    const auto exchange = [&](Value own, int bit) {
      const Value other = b_.emit1(Op::kShflXorI32, {own, constant(bit * kPiecesOfWarp)});
      const Value is_upper = b_.not_equal(b_.bit_and(item.group, constant(bit)), constant(0));
      return std::pair(b_.select(is_upper, other, own), b_.select(is_upper, own, other));
    };
    const auto [low, high] = exchange(scales, 1);
    const auto [first, second] =
        exchange(b_.emit1(Op::kPrmt, {low, high, constant(kLowHalves)}), 2);
    const Value even = b_.emit1(Op::kPrmt, {first, second, constant(kEvenBytes)});
    const Value odd = b_.emit1(Op::kPrmt, {first, second, constant(kOddBytes)});
    const Value is_mine = b_.both(b_.equal(item.group, constant(pair)),
                                  b_.less(item.channel, constant(plan_.scale_columns)));
    b_.when(both_if_set(b_, b_.both(exists, is_mine), item.in_range), [&] {
      const Value block =
          b_.address(tile_.group_scales(), item.block, plan_.scale_columns * kScaleWordBytes);
      b_.emit(Op::kStGlobalV2, {b_.address(block, item.channel, kScaleWordBytes),
                                constant(2 * pair * kScaleWordBytes), even, odd});
    });
  }

  Builder& b_;
  const KernelArgs& args_;
  const ValuePlan& plan_;
  ValueTile tile_;
};

}  // namespace

void prepare_values(Builder& b, const KernelArgs& args, const ValuePlan& v, const TilePlace& place,
                    Value scratch, const Meanwhile& meanwhile) {
  if (v.group_scales) {
    ValueGroupQuantizer(b, args, v, place).run(meanwhile);
  } else if (v.is_scaled) {
    ValueQuantizer(b, args, v, place, scratch).run(meanwhile);
  } else {
    ValueConverter(b, args, v, place).run(meanwhile);
  }
}

}  // namespace sagejit
