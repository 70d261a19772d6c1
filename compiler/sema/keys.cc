#include "compiler/sema/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "compiler/sema/read_values.h"

namespace sagejit {
namespace {

using dsl::ValueReader;

std::string print_switch(bool on) {
  return on ? "on" : "off";
}
std::string print_type(DType type) {
  return std::string(name_of(type));
}
std::string print_smoothing(Smoothing s) {
  return s == Smoothing::kNone ? "none" : "mean";
}

bool is_integer(DType type) {
  return type == DType::kS8 || type == DType::kU8 || type == DType::kS4;
}

// The 16-bit type that products of unquantized inputs are taken in.
DType half_type(DType input) {
  return input == DType::kBF16 ? DType::kBF16 : DType::kF16;
}

bool is_given(const KeySet& given, std::string_view name) {
  return given[place_of(*find_key(name))];
}

void read_value_head_dim(ValueReader& reader, Variant& v) {
  v.value_head_dim = 0;  // stands for head_dim until fill_defaults, where that is known
  if (reader.accept("head_dim")) return;
  const dsl::Token token = reader.peek();
  v.value_head_dim = reader.integer("the head dimension of v");
  if (v.value_head_dim == 0) {
    reader.fail(token.span, "value_head_dim 0 is not a multiple of 8 from 16 to 256",
                "the nearest that works is 16");
  }
}

void read_smooth_q(ValueReader& reader, Variant& v) {
  v.smooth_q = read_smoothing(reader);
  v.smooth_q_span = v.smooth_q == Smoothing::kNone ? 0 : 128;
  if (v.smooth_q == Smoothing::kNone || !reader.accept("per")) return;
  reader.expect("block", "the mean of Q is taken per block of tokens: mean per block(128)");
  reader.expect("(", "the block has a number of tokens: mean per block(128)");
  v.smooth_q_span = reader.integer("the number of tokens that share a mean");
  reader.expect(")", "");
}

std::string print_smooth_q(const Variant& v) {
  return v.smooth_q == Smoothing::kNone ? "none"
                                        : fmt::format("mean per block({})", v.smooth_q_span);
}

void read_softcap(ValueReader& reader, Variant& v) {
  v.score.softcap.reset();
  if (!reader.accept("none")) v.score.softcap = reader.number("the softcap");
}

void default_p(Variant& v, const KeySet& given) {
  v.p = default_probability(is_given(given, "v") ? v.v.type : half_type(v.input));
}

void default_v(Variant& v, const KeySet& given) {
  // V is signed: beside unsigned P it has the signed type of the same width.
  DType type = is_given(given, "p") ? v.p.type : half_type(v.input);
  if (type == DType::kU8) type = DType::kS8;
  const Smoothing smoothing = v.v.smoothing;
  v.v = default_value_operand(type);
  v.v.smoothing = smoothing;
}

void default_pv_accumulator(Variant& v, const KeySet&) {
  v.pv_accumulator =
      is_integer(v.p.type) ? Accumulator{DType::kS32, DType::kF32, 64} : Accumulator{};
}

constexpr Key kKeys[] = {
    {"head_dim", "a multiple of 8 from 16 to 256", "must be given",
     [](ValueReader& r, Variant& v) { v.head_dim = r.integer("the head dimension"); },
     [](const Variant& v) { return fmt::format("{}", v.head_dim); },
     [](Variant&, const KeySet&) {}},
    {"value_head_dim", "a multiple of 8 from 16 to 256, or head_dim", "head_dim",
     read_value_head_dim, [](const Variant& v) { return fmt::format("{}", v.value_head_dim); },
     [](Variant& v, const KeySet&) { v.value_head_dim = v.head_dim; }},
    {"input", "f16, bf16, f32", "f16", [](ValueReader& r, Variant& v) { v.input = read_type(r); },
     [](const Variant& v) { return print_type(v.input); },
     [](Variant& v, const KeySet&) { v.input = DType::kF16; }},
    {"output", "f16, bf16, f32", "the type of input",
     [](ValueReader& r, Variant& v) { v.output = read_type(r); },
     [](const Variant& v) { return print_type(v.output); },
     [](Variant& v, const KeySet&) { v.output = v.input; }},
    {"lse", "on, off", "off", [](ValueReader& r, Variant& v) { v.lse = read_switch(r); },
     [](const Variant& v) { return print_switch(v.lse); },
     [](Variant& v, const KeySet&) { v.lse = false; }},
    {"q", "int8, int4, e4m3, fp4 [per granularity]", "int8 per block(128)",
     [](ValueReader& r, Variant& v) { v.q = read_quantization(r, Operand::kQ); },
     [](const Variant& v) { return print(v.q); },
     [](Variant& v, const KeySet& given) {
       v.q = default_quantization(is_given(given, "k") ? v.k.type : DType::kS8, Operand::kQ);
     }},
    {"k", "int8, int4, e4m3, fp4 [per granularity]", "the type of q, per block(64)",
     [](ValueReader& r, Variant& v) { v.k = read_quantization(r, Operand::kK); },
     [](const Variant& v) { return print(v.k); },
     [](Variant& v, const KeySet&) { v.k = default_quantization(v.q.type, Operand::kK); }},
    {"smooth_q", "none, mean [per block(n)]", "none", read_smooth_q, print_smooth_q,
     [](Variant& v, const KeySet&) { v.smooth_q = Smoothing::kNone, v.smooth_q_span = 0; }},
    {"smooth_k", "none, mean", "none",
     [](ValueReader& r, Variant& v) { v.smooth_k = read_smoothing(r); },
     [](const Variant& v) { return print_smoothing(v.smooth_k); },
     [](Variant& v, const KeySet&) { v.smooth_k = Smoothing::kNone; }},
    {"hadamard", "on, off", "off", [](ValueReader& r, Variant& v) { v.hadamard = read_switch(r); },
     [](const Variant& v) { return print_switch(v.hadamard); },
     [](Variant& v, const KeySet&) { v.hadamard = false; }},
    {"qk_accumulator", "s32, f32, f16", "s32 for int8 and int4, else f32",
     [](ValueReader& r, Variant& v) { v.qk_accumulator = read_type(r); },
     [](const Variant& v) { return print_type(v.qk_accumulator); },
     [](Variant& v, const KeySet&) {
       v.qk_accumulator = is_integer(v.q.type) ? DType::kS32 : DType::kF32;
     }},
    {"scale", "1/sqrt(head_dim), a number", "1/sqrt(head_dim)",
     [](ValueReader& r, Variant& v) { v.score.scale = read_scale(r); },
     [](const Variant& v) {
       return v.score.scale ? fmt::format("{}", *v.score.scale) : "1/sqrt(head_dim)";
     },
     [](Variant& v, const KeySet&) { v.score.scale.reset(); }},
    {"softcap", "none, a positive number", "none", read_softcap,
     [](const Variant& v) {
       return v.score.softcap ? fmt::format("{}", *v.score.softcap) : "none";
     },
     [](Variant& v, const KeySet&) { v.score.softcap.reset(); }},
    {"alibi", "on, off", "off", [](ValueReader& r, Variant& v) { v.score.alibi = read_switch(r); },
     [](const Variant& v) { return print_switch(v.score.alibi); },
     [](Variant& v, const KeySet&) { v.score.alibi = false; }},
    {"sinks", "on, off", "off", [](ValueReader& r, Variant& v) { v.score.sinks = read_switch(r); },
     [](const Variant& v) { return print_switch(v.score.sinks); },
     [](Variant& v, const KeySet&) { v.score.sinks = false; }},
    {"score", "an expression over s, q, k, head, batch", "s",
     [](ValueReader& r, Variant& v) { v.score.expression = read_score(r); },
     [](const Variant& v) {
       const std::string& text = v.score.expression.canonical_text;
       return text.empty() ? "s" : text;
     },
     [](Variant& v, const KeySet&) { v.score.expression = {}; }},
    {"mask",
     "none, causal(top_left), causal(bottom_right), window(left, right), tensor(bool), "
     "tensor(additive), a condition over q, k, head, batch",
     "none", [](ValueReader& r, Variant& v) { v.mask = read_mask(r); },
     [](const Variant& v) { return print(v.mask); },
     [](Variant& v, const KeySet&) { v.mask = {}; }},
    {"p", "f16, bf16, e4m3, e5m2, int8, uint8, fp4 [range x] [direct]",
     "the type of v, with its whole range; range 1 for f16 and bf16",
     [](ValueReader& r, Variant& v) { v.p = read_probability(r); },
     [](const Variant& v) { return print(v.p); }, default_p},
    {"v", "f16, bf16, e4m3, e5m2, int8, fp4 [per granularity] [range x]",
     "the type of p, else of input; per channel if it is narrow",
     [](ValueReader& r, Variant& v) { read_value_operand(r, v.v); },
     [](const Variant& v) { return print(v.v); }, default_v},
    {"smooth_v", "none, mean", "none",
     [](ValueReader& r, Variant& v) { v.v.smoothing = read_smoothing(r); },
     [](const Variant& v) { return print_smoothing(v.v.smoothing); },
     [](Variant& v, const KeySet&) { v.v.smoothing = Smoothing::kNone; }},
    {"pv_accumulator", "f32, f16, inner + f32 [every n]", "f32; s32 + f32 every 64 for int8 P",
     [](ValueReader& r, Variant& v) { v.pv_accumulator = read_accumulator(r); },
     [](const Variant& v) { return print(v.pv_accumulator); }, default_pv_accumulator},
    {"row_sum", "exact, quantized", "exact",
     [](ValueReader& r, Variant& v) { v.row_sum = read_row_sum(r); },
     [](const Variant& v) -> std::string {
       return v.row_sum == RowSum::kExact ? "exact" : "quantized";
     },
     [](Variant& v, const KeySet&) { v.row_sum = RowSum::kExact; }},
    {"rescale_threshold", "a number from 0 up, as far as p's type holds P", "0",
     [](ValueReader& r, Variant& v) { v.rescale_threshold = r.number("the threshold"); },
     [](const Variant& v) { return fmt::format("{}", v.rescale_threshold); },
     [](Variant& v, const KeySet&) { v.rescale_threshold = 0.0; }},
    {"exp2_polynomial", "a number from 0 to 1", "0",
     [](ValueReader& r, Variant& v) { v.exp2_polynomial_share = r.number("the share"); },
     [](const Variant& v) { return fmt::format("{}", v.exp2_polynomial_share); },
     [](Variant& v, const KeySet&) { v.exp2_polynomial_share = 0.0; }},
    {"structure", "dense, varlen, paged(n), block_sparse(n), split_kv(n)", "dense",
     [](ValueReader& r, Variant& v) { v.structure = read_structure(r); },
     [](const Variant& v) { return print(v.structure); },
     [](Variant& v, const KeySet&) { v.structure = {}; }},
};
static_assert(std::size(kKeys) <= kMaxKeys);

}  // namespace

std::span<const Key> all_keys() {
  return kKeys;
}

const Key* find_key(std::string_view name) {
  const auto key = std::find_if(std::begin(kKeys), std::end(kKeys),
                                [&](const Key& k) { return k.name == name; });
  return key == std::end(kKeys) ? nullptr : key;
}

size_t place_of(const Key& key) {
  return &key - kKeys;
}

std::span<const std::string_view> key_names() {
  static const std::vector<std::string_view> names = [] {
    std::vector<std::string_view> all;
    for (const Key& key : kKeys) all.push_back(key.name);
    return all;
  }();
  return names;
}

void fill_defaults(Variant& variant, const KeySet& given) {
  for (const Key& key : kKeys) {
    if (!given[place_of(key)]) key.set_default(variant, given);
  }
  if (variant.value_head_dim == 0) variant.value_head_dim = variant.head_dim;
}

}  // namespace sagejit
