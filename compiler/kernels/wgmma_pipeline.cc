#include "compiler/kernels/wgmma_pipeline.h"

#include "compiler/kernels/wgmma_operands.h"

namespace sagejit {

using ir::constant;
using ir::constant_f32;
using ir::Op;
using ir::RingCursor;
using ir::Value;
using ir::Var;

WgmmaPipeline::WgmmaPipeline(WgmmaBlock& block, const Rows& rows, RingCursor& kv)
    : block_(block), b_(block.b), scores_(block), state_(rows), kv_(kv) {}

void WgmmaPipeline::run(const MaskRegions& regions) {
  const Value first = regions.first_tile(), last = b_.sub(regions.end_tile(), constant(1));
  b_.when(b_.less_equal(first, last), [&] {
    begin_first(first);
    b_.when(
        b_.less(first, last), [&] { other_tiles(regions, first, last); },
        [&] { first_half(true, {}); });
    second_half();
    state_.o.finish(last);
    block_.kv_ring.release(kv_);
    kv_.advance();
  });
}

void WgmmaPipeline::begin_first(Value key_tile) {
  b_.comment("the first key tile: nothing to overlap with");
  next_ = scores_.create_from_zero(), s_ = scores_.create();
  half_ = s_.num_key_tiles() / 2;
  block_.kv_ring.wait(kv_);
  scores_.start(next_, state_.q_rows, kv_);
  scores_.finish(next_, 0);
  load_scales(kv_.stage());
  block_.kv_ring.release(kv_);
  kv_.advance();
  block_.kv_ring.wait(kv_);
  const OnlineSoftmax::Tile tile = maxima(key_tile, true);
  scores_.take(s_, next_);
  state_.softmax.refer(s_, tile, true);
  exponents_ = tile.exponents;
  sums_ = state_.softmax.new_sums();
  p_ = state_.o.new_operands(s_);
}

void WgmmaPipeline::other_tiles(const MaskRegions& regions, Value first, Value last) {
  first_half(false, {});
  for (const TileRun& run : regions.runs()) {
    b_.comment(run.masked ? "key tiles that need the mask" : "key tiles that every row sees");
    b_.loop(b_.max(run.begin, b_.add(first, constant(1))), block_.once(b_.min(run.end, last)),
            constant(1), [&](Value key_tile) { step(key_tile, run.masked, false); });
  }
  b_.comment("the last key tile");
  step(last, true, true);
}

void WgmmaPipeline::step(Value key_tile, bool masked, bool is_last) {
  const OnlineSoftmax::Tile tile = maxima(key_tile, masked);
  second_half();
  scores_.take(s_, next_);
  OnlineSoftmax::Rescale rescale = state_.softmax.refer(s_, tile, masked);
  state_.softmax.set(exponents_, tile.exponents);
  first_half(is_last, [&] {
    rescale.any = b_.either(rescale.any, state_.softmax.is_negative(sums_));
    state_.o.finish(rescale, b_.sub(key_tile, constant(1)), {});
  });
}

OnlineSoftmax::Tile WgmmaPipeline::maxima(Value key_tile, bool masked) {
  Dequantization factors = {state_.rows.factors(), {}};
  for (const Var& scale : key_scales_) factors.key_factors.push_back(b_.get(scale));
  if (masked) state_.rows.mask(next_, b_.mul(key_tile, constant(block_.schedule.block_n)));
  return state_.softmax.begin(next_, factors, masked);
}

// Half of the scores that were taken become P, while the next tile's products run, and P V of the
// tile before. The assembler would start the products behind the exponentials, or put these behind
// the wait; so they depend on what is loaded after the one, and the wait on them.
void WgmmaPipeline::first_half(bool is_last, const std::function<void()>& finish_values) {
  if (!is_last) scores_.start(next_, state_.q_rows, kv_);
  const Value stage = kv_.stage();
  kv_.advance();
  block_.kv_ring.wait(kv_);
  if (!is_last) {
    load_scales(stage);
    // No scale is negative, nor is a NaN; no compiler knows.
    const Value never = b_.emit1(Op::kLtF32, {b_.get(key_scales_[0]), constant_f32(0)});
    state_.softmax.delay(exponents_, b_.select(never, constant(1), constant(0)));
  }
  state_.softmax.exponentials(s_, exponents_, 0, half_, sums_);
  b_.tie(s_.registers());
  if (finish_values) finish_values();
  if (!is_last) scores_.finish(next_, 0);
  block_.kv_ring.release(stage);
}

// The other half, and its P V.
void WgmmaPipeline::second_half() {
  const int rest = s_.num_key_tiles() - half_;
  state_.softmax.exponentials(s_, exponents_, half_, rest, sums_);
  state_.softmax.add(sums_);
  const std::vector<Var> converted = state_.o.convert(s_);
  for (size_t i = 0; i < p_.size(); ++i) b_.set(p_[i], b_.get(converted[i]));
  const Value values = block_.kv_ring.units(kv_, WgmmaBlock::kValues);
  state_.o.start(p_, value_descriptor(b_, block_.variant, values));
}

// Factors of the keys of next_.
void WgmmaPipeline::load_scales(Value stage) {
  const std::vector<Value> loaded = state_.key_scales.load(block_.kv_ring.words(stage));
  for (size_t i = 0; i < loaded.size(); ++i) {
    if (key_scales_.size() == i) key_scales_.push_back(b_.var(loaded[i]));
    b_.set(key_scales_[i], loaded[i]);
  }
}

}  // namespace sagejit
