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
      : b_(b), plan_(plan), variant_(plan.variant), args_(args), tile_(tile) {}

  void store(const RowResults& results, float range_log2, Value tid) {
    const Value quad_lane = b_.bit_and(tid, constant(3));
    const Value column = b_.mul(quad_lane, constant(2));
    const std::vector<std::vector<Value>> scales = load_value_scales(column);
    const int num_rows = static_cast<int>(results.sums.size());
    for (int i = 0; i < num_rows; ++i) {
      const Value sum = results.sums[i];
      const Value empty = b_.emit1(Op::kEqF32, {sum, constant_f32(0)});
      const Value inverse = b_.select(empty, constant_f32(0), b_.fdiv(constant_f32(1), sum));
      const Value row = row_of_thread(b_, tile_, num_rows / 2, tid, i);
      b_.when(b_.less(row, args_["m"]), [&] {
        store_row(results, i, row, inverse, column, scales);
        if (!variant_.lse) return;
        // The quad's threads hold the same row: one writes.
        b_.when(b_.equal(quad_lane, constant(0)), [&] {
          const Value value = lse(row, results.maxima[i], sum, range_log2);
          store_lse(row, b_.select(empty, constant_f32(kNegativeInfinity), value));
        });
      });
    }
  }

 private:
  bool has_value_scales() const { return bits_of(variant_.v.type) == 8; }

  // V's scales of this thread's columns, two of each 8-column tile.
  std::vector<std::vector<Value>> load_value_scales(Value column) {
    std::vector<std::vector<Value>> scales;
    if (!has_value_scales()) return scales;
    const Value head = b_.address(args_["v_scales"], batch_kv_head_of(b_, args_, tile_),
                                  padded_value_head_dim(variant_) * 4);
    const Value address = b_.address(head, column, 4);
    for (int tile = 0; tile < variant_.value_head_dim / kFragmentColumns; ++tile) {
      scales.push_back(
          b_.emit(Op::kLdGlobalV2F32, {address, constant(tile * kFragmentColumns * 4)}));
    }
    return scales;
  }

  void store_row(const RowResults& results, int i, Value row, Value inverse, Value column,
                 const std::vector<std::vector<Value>>& scales) {
    const int element_bytes = bits_of(variant_.output) / 8;
    const Value address = b_.address(
        row_address(b_, args_, "o", "m", {tile_.batch, tile_.head, row}), column, element_bytes);
    for (int tile = 0; tile < variant_.value_head_dim / kFragmentColumns; ++tile) {
      const std::array<Value, 4> e = results.elements(i / 2, tile);
      Value x = b_.fmul(e[2 * (i % 2)], inverse), y = b_.fmul(e[2 * (i % 2) + 1], inverse);
      if (!scales.empty()) x = b_.fmul(x, scales[tile][0]), y = b_.fmul(y, scales[tile][1]);
      const Value offset = constant(tile * kFragmentColumns * element_bytes);
      if (variant_.output == DType::kF32) {
        b_.emit(Op::kStGlobalV2F32, {address, offset, x, y});
      } else {
        const Op pack = variant_.output == DType::kF16 ? Op::kPackF16 : Op::kPackBF16;
        b_.emit(Op::kStGlobalI32, {address, offset, b_.emit1(pack, {x, y})});
      }
    }
  }

  Value lse(Value row, Value maximum, Value sum, float range_log2) {
    Value log = b_.fadd(maximum, b_.emit1(Op::kLg2Approx, {sum}));
    if (range_log2 != 0) log = b_.fsub(log, constant_f32(range_log2));
    const Value smoothed = b_.fmul(log, constant_f32(static_cast<float>(std::numbers::ln2)));
    if (!plan_.q.lse_bias) return smoothed;
    const Value batch_head = batch_head_of(b_, args_, tile_);
    const Value index = b_.add64(b_.mul64(b_.zext(batch_head), b_.zext(args_["m"])), b_.zext(row));
    const Value address = b_.add64(args_["lse_bias"], b_.mul64(index, b_.zext(constant(4))));
    const Value bias = b_.emit1(Op::kLdGlobalF32, {address, constant(0)});
    return b_.fma(bias, constant_f32(static_cast<float>(score_scale(variant_))), smoothed);
  }

  void store_lse(Value row, Value value) {
    const Value head = b_.add64(b_.mul64(b_.zext(tile_.batch), args_["lse_stride_b"]),
                                b_.mul64(b_.zext(tile_.head), args_["lse_stride_h"]));
    const Value address = b_.address(b_.add64(args_["lse"], head), row, 4);
    b_.emit(Op::kStGlobalF32, {address, constant(0), value});
  }

  ir::Builder& b_;
  const ForwardPlan& plan_;
  const Variant& variant_;
  const KernelArgs& args_;
  const QueryTile& tile_;
};

}  // namespace

void store_output(ir::Builder& b, const ForwardPlan& plan, const KernelArgs& args,
                  const QueryTile& tile, const RowResults& results, float range_log2, Value tid) {
  OutputWriter(b, plan, args, tile).store(results, range_log2, tid);
}

}  // namespace sagejit
