#include "compiler/kernels/output.h"

#include <limits>
#include <numbers>

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::Value;

namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

class OutputWriter {
 public:
  OutputWriter(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
               const QueryTile& tile)
      : b_(b),
        plan_(plan),
        variant_(plan.variant),
        args_(args),
        tile_(tile),
        heads_(b, plan, args) {}

  void store(const RowResults& results) {
    const Value quad_lane = b_.bit_and(b_.emit1(Op::kTidAgain, {}), constant(3));
    const int num_tiles = variant_.value_head_dim / kFragmentColumns;
    for (size_t i = 0; i < results.rows.size(); ++i) {
      const Value sum = results.sums[i];
      const Value empty = b_.emit1(Op::kEqF32, {sum, constant_f32(0)});
      const Value inverse = b_.select(empty, constant_f32(0), b_.fdiv(constant_f32(1), sum));
      Row values;
      for (int tile = 0; tile < num_tiles; ++tile) {
        values.columns.push_back(columns(results, static_cast<int>(i), tile, inverse));
        if (!results.value_scales) continue;
        const std::vector<Value> scales = results.value_scales(tile);  // loaded again for every row
        auto& [x, y] = values.columns.back();
        x = b_.fmul(x, scales[0]), y = b_.fmul(y, scales[1]);
        if (!results.value_means) continue;
        const std::vector<Value> means = results.value_means(tile);
        const Value share = b_.select(empty, constant_f32(0), constant_f32(1));  // sum of P / l
        x = b_.fma(share, means[0], x), y = b_.fma(share, means[1], y);
      }
      gather_tiles(values, quad_lane);
      const Value row = results.rows[i];
      b_.when(b_.less(row, heads_.num_rows()), [&] {
        const RowPlace place = heads_.place_of(tile_, row);
        store_row(values, row_address(b_, args_, "o", "m", place), quad_lane);
        if (!variant_.lse) return;
        // The quad's threads hold the same row: one writes.
        b_.when(b_.equal(quad_lane, constant(0)), [&] {
          const Value value = lse(place, results.offsets[i], sum);
          store_lse(place, b_.select(empty, constant_f32(kNegativeInfinity), value));
        });
      });
    }
  }

 private:
  // This thread's two columns of a tile of row i, normalised.
  std::pair<Value, Value> columns(const RowResults& results, int i, int tile, Value inverse) {
    const std::array<Value, 4> e = results.elements(i / 2, tile);
    return {b_.fmul(e[2 * (i % 2)], inverse), b_.fmul(e[2 * (i % 2) + 1], inverse)};
  }

  // Words of a row that this thread stores.
  struct Row {
    std::vector<std::pair<Value, Value>> columns;  // f32, two of every 8-column tile
    std::vector<std::vector<Value>> tiles;         // 16-bit output: a whole tile of every four
    std::vector<Value> words;                      // and two columns of each tile that is left
  };

  Value pack(std::pair<Value, Value> columns) {
    const Op op = variant_.output == DType::kF16 ? Op::kPackF16 : Op::kPackBF16;
    return b_.emit1(op, {columns.first, columns.second});
  }

  // 16-bit output: four tiles are transposed over the quad, so that thread t gets all of tile t and
  // can store 16 bytes at once.
  void gather_tiles(Row& row, Value quad_lane) {
    if (variant_.output == DType::kF32) return;
    const size_t num_tiles = row.columns.size();
    for (size_t first = 0; first + 4 <= num_tiles; first += 4) {
      std::vector<Value> w;
      for (size_t i = first; i < first + 4; ++i) w.push_back(pack(row.columns[i]));
      for (const int distance : {1, 2}) {
        const Value upper =
            b_.emit1(Op::kNeI32, {b_.bit_and(quad_lane, constant(distance)), constant(0)});
        for (const int i : {0, 3 - distance}) {
          Value &low = w[i], &high = w[i + distance];
          const Value received =
              b_.emit1(Op::kShflXorI32, {b_.select(upper, low, high), constant(distance)});
          low = b_.select(upper, received, low);
          high = b_.select(upper, high, received);
        }
      }
      row.tiles.push_back(w);
    }
    for (size_t i = num_tiles / 4 * 4; i < num_tiles; ++i)
      row.words.push_back(pack(row.columns[i]));
  }

  void store_row(const Row& row, Value address, Value quad_lane) {
    constexpr int kTileBytes = kFragmentColumns * 2;
    if (variant_.output == DType::kF32) {
      const Value mine = b_.address(address, quad_lane, 8);
      for (size_t tile = 0; tile < row.columns.size(); ++tile) {
        b_.emit(Op::kStGlobalV2F32, {mine, constant(static_cast<int>(tile) * kFragmentColumns * 4),
                                     row.columns[tile].first, row.columns[tile].second});
      }
      return;
    }
    const Value whole = b_.address(address, quad_lane, kTileBytes);
    int bytes = 0;
    for (const std::vector<Value>& w : row.tiles) {
      b_.emit(Op::kStGlobalV4, {whole, constant(bytes), w[0], w[1], w[2], w[3]});
      bytes += 4 * kTileBytes;
    }
    const Value part = b_.address(address, quad_lane, kTileBytes / 4);
    for (const Value word : row.words) {
      b_.emit(Op::kStGlobalI32, {part, constant(bytes), word});
      bytes += kTileBytes;
    }
  }

  Value lse(const RowPlace& place, Value offset, Value sum) {
    const Value log = b_.fsub(b_.emit1(Op::kLg2Approx, {sum}), offset);
    const Value smoothed = b_.fmul(log, constant_f32(static_cast<float>(std::numbers::ln2)));
    if (!plan_.q.lse_bias) return smoothed;
    const Value batch_head = batch_head_of(b_, args_, place.batch, place.head);
    const Value index =
        b_.add64(b_.mul64(b_.zext(batch_head), b_.zext(args_["m"])), b_.zext(place.token));
    const Value address = b_.add64(args_["lse_bias"], b_.mul64(index, b_.zext(constant(4))));
    const Value bias = b_.emit1(Op::kLdGlobalF32, {address, constant(0)});
    return b_.fma(bias, constant_f32(static_cast<float>(score_scale(variant_))), smoothed);
  }

  void store_lse(const RowPlace& place, Value value) {
    const Value head = b_.add64(b_.mul64(b_.zext(place.batch), args_["lse_stride_b"]),
                                b_.mul64(b_.zext(place.head), args_["lse_stride_h"]));
    const Value address = b_.address(b_.add64(args_["lse"], head), place.token, 4);
    b_.emit(Op::kStGlobalF32, {address, constant(0), value});
  }

  ir::Builder& b_;
  const ForwardPlan& plan_;
  const Variant& variant_;
  const KernelArgs& args_;
  const QueryTile& tile_;
  PackedHeads heads_;
};

}  // namespace

void store_output(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                  const QueryTile& tile, const RowResults& results) {
  OutputWriter(b, plan, args, tile).store(results);
}

}  // namespace sagejit
