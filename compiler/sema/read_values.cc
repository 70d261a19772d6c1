#include "compiler/sema/read_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "compiler/dsl/expression.h"
#include "compiler/support/suggest.h"

namespace sagejit {
namespace {

using dsl::Token;
using dsl::TokenKind;
using dsl::ValueReader;

template <typename T>
struct Word {
  std::string_view text;
  T value;
};

constexpr Word<DType> kTypes[] = {
    {"f16", DType::kF16},   {"bf16", DType::kBF16}, {"f32", DType::kF32}, {"e4m3", DType::kE4M3},
    {"e5m2", DType::kE5M2}, {"fp4", DType::kE2M1},  {"int8", DType::kS8}, {"uint8", DType::kU8},
    {"int4", DType::kS4},   {"s32", DType::kS32},
};
constexpr Word<bool> kSwitches[] = {{"on", true}, {"off", false}};
constexpr Word<Smoothing> kSmoothings[] = {{"none", Smoothing::kNone}, {"mean", Smoothing::kMean}};
constexpr Word<RowSum> kRowSums[] = {{"exact", RowSum::kExact}, {"quantized", RowSum::kQuantized}};
constexpr Word<StructureKind> kStructures[] = {
    {"dense", StructureKind::kDense},      {"varlen", StructureKind::kVarlen},
    {"paged", StructureKind::kPaged},      {"block_sparse", StructureKind::kBlockSparse},
    {"split_kv", StructureKind::kSplitKv},
};
constexpr Word<Granularity> kGranularities[] = {
    {"tensor", Granularity::kTensor},   {"head", Granularity::kHead},
    {"block", Granularity::kBlock},     {"warp", Granularity::kWarp},
    {"thread", Granularity::kThread},   {"token", Granularity::kToken},
    {"channel", Granularity::kChannel}, {"group16", Granularity::kGroup16},
};
constexpr Word<MaskKind> kAlignments[] = {{"top_left", MaskKind::kCausalTopLeft},
                                          {"bottom_right", MaskKind::kCausalBottomRight}};
constexpr Word<MaskKind> kTensors[] = {{"bool", MaskKind::kTensorBool},
                                       {"additive", MaskKind::kTensorAdditive}};

// Names that other tools use, and what the same thing is called here.
constexpr std::pair<std::string_view, std::string_view> kForeignWords[] = {
    {"fp16", "f16"},    {"half", "f16"},
    {"float16", "f16"}, {"bfloat16", "bf16"},
    {"fp32", "f32"},    {"float", "f32"},
    {"float32", "f32"}, {"fp8", "e4m3"},
    {"float8", "e4m3"}, {"e4m3fn", "e4m3"},
    {"i8", "int8"},     {"s8", "int8"},
    {"u8", "uint8"},    {"i4", "int4"},
    {"s4", "int4"},     {"int32", "s32"},
    {"i32", "s32"},     {"nvfp4", "fp4"},
    {"e2m1", "fp4"},    {"true", "on"},
    {"yes", "on"},      {"false", "off"},
    {"no", "off"},      {"lower_right", "bottom_right"},
    {"row", "token"},   {"upper_left", "top_left"},
};

template <typename T, size_t N>
std::vector<std::string_view> texts(const Word<T> (&words)[N]) {
  std::vector<std::string_view> result;
  for (const Word<T>& word : words) result.push_back(word.text);
  return result;
}

template <typename T, size_t N>
std::string_view text_of(const Word<T> (&words)[N], T value) {
  const auto word = std::find_if(std::begin(words), std::end(words),
                                 [&](const Word<T>& w) { return w.value == value; });
  return word == std::end(words) ? "?" : word->text;
}

// One of a table's words; `what` says what the table lists: "a type".
template <typename T, size_t N>
T read_word(ValueReader& reader, const Word<T> (&words)[N], std::string_view what) {
  const Token token = reader.peek();
  for (const Word<T>& word : words) {
    if (reader.accept(word.text)) return word.value;
  }
  const std::vector<std::string_view> known = texts(words);
  if (token.kind != TokenKind::kWord) {
    reader.fail_expected(fmt::format("{}: {}", what, list_words(known)));
  }
  std::string note;
  for (const auto& [foreign, ours] : kForeignWords) {
    const bool listed = std::find(known.begin(), known.end(), ours) != known.end();
    if (token.text == foreign && listed) note = fmt::format("it is written `{}` here", ours);
  }
  if (note.empty()) note = did_you_mean(token.text, known);
  if (note.empty()) note = fmt::format("it is one of {}", list_words(known));
  reader.fail(token.span, fmt::format("`{}` is not {}", token.text, what), std::move(note));
}

bool has_span(Granularity granularity) {
  return granularity == Granularity::kBlock || granularity == Granularity::kWarp ||
         granularity == Granularity::kThread;
}

// Tokens that share scales where the text does not say (SageAttention 2, core.py's tiles).
int default_span(Granularity granularity, Operand operand) {
  if (!has_span(granularity)) return 0;
  if (operand == Operand::kK) return 64;
  return granularity == Granularity::kBlock ? 128 : 32;
}

// `per block(128)`: sets granularity and span if the word `per` is next.
template <typename Scaled>
void read_granularity(ValueReader& reader, Operand operand, Scaled& scaled) {
  if (!reader.accept("per")) return;
  scaled.granularity = read_word(reader, kGranularities, "a granularity");
  scaled.span = default_span(scaled.granularity, operand);
  const Token open = reader.peek();
  if (!reader.accept("(")) return;
  if (!has_span(scaled.granularity)) {
    reader.fail(open.span,
                fmt::format("`per {}` has no span", text_of(kGranularities, scaled.granularity)),
                "block, warp and thread take a number of tokens: per block(128)");
  }
  scaled.span = reader.integer("the number of tokens that share scales");
  reader.expect(")", "");
}

template <typename Scaled>
std::string print_granularity(const Scaled& scaled) {
  const std::string_view word = text_of(kGranularities, scaled.granularity);
  return has_span(scaled.granularity) ? fmt::format("per {}({})", word, scaled.span)
                                      : fmt::format("per {}", word);
}

ScoreExpression expression_text(const dsl::Expr& expression) {
  return {dsl::print(expression)};
}

Mask read_causal(ValueReader& reader, const Token& word) {
  if (!reader.accept("(")) {
    reader.fail(word.span, "`causal` needs an alignment",
                "causal(top_left) lets query i see keys j <= i; causal(bottom_right) lets the last "
                "query see all keys; they agree where both lengths are equal");
  }
  Mask mask;
  mask.kind = read_word(reader, kAlignments, "an alignment");
  reader.expect(")", "");
  return mask;
}

constexpr std::string_view kUnbounded = "a side without a bound is written 1073741824";

Mask read_window(ValueReader& reader, const Token& word) {
  if (!reader.accept("(")) {
    reader.fail(word.span, "`window` needs its bounds",
                "window(left, right) lets a query see that many keys on each side of its own "
                "position, for example window(255, 0)");
  }
  Mask mask;
  mask.kind = MaskKind::kWindow;
  mask.window_left = reader.integer("the number of keys to the left", kUnbounded);
  reader.expect(",", "a window has two bounds: window(left, right)");
  mask.window_right = reader.integer("the number of keys to the right", kUnbounded);
  reader.expect(")", "");
  return mask;
}

Mask read_tensor(ValueReader& reader, const Token& word) {
  if (!reader.accept("(")) {
    reader.fail(word.span, "`tensor` needs its kind",
                "tensor(bool) keeps a score where it is true, tensor(additive) is added to it");
  }
  Mask mask;
  mask.kind = read_word(reader, kTensors, "a kind of mask tensor");
  reader.expect(")", "");
  return mask;
}

}  // namespace

DType read_type(ValueReader& reader) {
  return read_word(reader, kTypes, "a type");
}
bool read_switch(ValueReader& reader) {
  return read_word(reader, kSwitches, "a switch");
}
RowSum read_row_sum(ValueReader& reader) {
  return read_word(reader, kRowSums, "a row sum");
}
Smoothing read_smoothing(ValueReader& reader) {
  return read_word(reader, kSmoothings, "a smoothing");
}

Quantization default_quantization(DType type, Operand operand) {
  const auto granularity = type == DType::kE2M1 ? Granularity::kGroup16 : Granularity::kBlock;
  return {type, granularity, default_span(granularity, operand)};
}

Quantization read_quantization(ValueReader& reader, Operand operand) {
  Quantization quantization = default_quantization(read_type(reader), operand);
  read_granularity(reader, operand, quantization);
  return quantization;
}

ValueOperand default_value_operand(DType type) {
  ValueOperand value;
  value.type = type;
  if (largest_v_range(type) == 0.0) return value;
  value.granularity = type == DType::kE2M1 ? Granularity::kGroup16 : Granularity::kChannel;
  return value;
}

void read_value_operand(ValueReader& reader, ValueOperand& value) {
  const Smoothing smoothing = value.smoothing;
  value = default_value_operand(read_type(reader));
  value.smoothing = smoothing;
  const bool scaled = largest_v_range(value.type) != 0.0;
  if (!scaled && (reader.peek().is("per") || reader.peek().is("range"))) {
    reader.fail(
        reader.peek().span,
        fmt::format("V in {} is not scaled, so `{}` has no meaning", name_of(value.type),
                    reader.peek().text),
        fmt::format("write v = {}, or choose a narrower type such as e4m3", name_of(value.type)));
  }
  read_granularity(reader, Operand::kK, value);
  if (!reader.accept("range")) return;
  const Token token = reader.peek();
  value.range = reader.number("the range of V");
  // In the variant, 0 stands for the type's own maximum; one meaning has one form.
  if (value.range == 0.0) {
    reader.fail(token.span, "the range of V is 0, which keeps nothing of V",
                fmt::format("{} holds up to {}", name_of(value.type), largest_v_range(value.type)));
  }
  if (value.range == largest_v_range(value.type)) value.range = 0.0;
}

ProbabilityOperand default_probability(DType type) {
  const bool wide = type == DType::kF16 || type == DType::kBF16;
  return {type, wide ? 1.0 : largest_p_range(type), false};
}

ProbabilityOperand read_probability(ValueReader& reader) {
  ProbabilityOperand p = default_probability(read_type(reader));
  if (reader.accept("range")) p.range = reader.number("the range of P");
  if (reader.accept("direct")) {
    p.direct_code = true;
  } else {
    reader.accept("rounded");
  }
  return p;
}

Accumulator read_accumulator(ValueReader& reader) {
  Accumulator accumulator;
  accumulator.inner = read_type(reader);
  if (!reader.accept("+")) return accumulator;
  accumulator.outer = read_type(reader);
  accumulator.interval = 64;
  if (reader.accept("every")) {
    accumulator.interval = reader.integer("the number of keys between two additions");
  }
  return accumulator;
}

Mask read_mask(ValueReader& reader) {
  const Token word = reader.peek();
  if (reader.accept("none")) return {};
  if (reader.accept("causal")) return read_causal(reader, word);
  if (reader.accept("window")) return read_window(reader, word);
  if (reader.accept("tensor")) return read_tensor(reader, word);
  static constexpr std::string_view kForms[] = {"none", "causal", "window", "tensor"};
  Mask mask;
  mask.kind = MaskKind::kExpression;
  mask.expression = expression_text(*parse_expression(reader, {"a mask", false, true, kForms}));
  return mask;
}

ScoreExpression read_score(ValueReader& reader) {
  const dsl::ExprPtr expression = parse_expression(reader, {"a score", true, false, {}});
  if (expression->op == dsl::ExprOp::kScore) return {};
  return expression_text(*expression);
}

std::optional<double> read_scale(ValueReader& reader) {
  static constexpr std::string_view kDefault[] = {"1", "/", "sqrt", "(", "head_dim", ")"};
  bool matches = true;
  for (size_t i = 0; i < std::size(kDefault); ++i) matches &= reader.peek(i).text == kDefault[i];
  if (!matches) {
    if (reader.peek().kind == TokenKind::kNumber && reader.peek(1).is("/")) {
      reader.fail(reader.whole(), "a scale is a number or 1/sqrt(head_dim), not other arithmetic",
                  "write the number: 0.125 for 1/8");
    }
    if (reader.peek().kind == TokenKind::kWord) {
      reader.fail_expected("a number or 1/sqrt(head_dim)");
    }
    return reader.number("the scale");
  }
  for (size_t i = 0; i < std::size(kDefault); ++i) reader.take();
  return std::nullopt;
}

Structure read_structure(ValueReader& reader) {
  const Token word = reader.peek();
  Structure structure;
  structure.kind = read_word(reader, kStructures, "a structure");
  if (structure.kind == StructureKind::kDense || structure.kind == StructureKind::kVarlen) {
    if (reader.peek().is("(")) {
      reader.fail(reader.peek().span, fmt::format("`{}` has no size", word.text));
    }
    return structure;
  }
  if (!reader.accept("(")) {
    reader.fail(word.span, fmt::format("`{}` needs its size", word.text),
                "paged(64) has pages of 64 keys, block_sparse(128) blocks of 128 by 128, "
                "split_kv(4) splits the keys in 4");
  }
  structure.parameter = reader.integer("the size");
  reader.expect(")", "");
  return structure;
}

std::string print(const Quantization& q) {
  return fmt::format("{} {}", name_of(q.type), print_granularity(q));
}

std::string print(const ValueOperand& v) {
  const double largest = largest_v_range(v.type);
  if (largest == 0.0) return std::string(name_of(v.type));
  return fmt::format("{} {} range {}", name_of(v.type), print_granularity(v),
                     v.range == 0.0 ? largest : v.range);
}

std::string print(const ProbabilityOperand& p) {
  const bool has_code = p.direct_code || p.type == DType::kE4M3;
  return fmt::format("{} range {}{}", name_of(p.type), p.range,
                     !has_code       ? ""
                     : p.direct_code ? " direct"
                                     : " rounded");
}

std::string print(const Accumulator& a) {
  if (!a.outer) return std::string(name_of(a.inner));
  return fmt::format("{} + {} every {}", name_of(a.inner), name_of(*a.outer), a.interval);
}

std::string print(const Mask& mask) {
  switch (mask.kind) {
    case MaskKind::kNone:
      return "none";
    case MaskKind::kCausalTopLeft:
    case MaskKind::kCausalBottomRight:
      return fmt::format("causal({})", text_of(kAlignments, mask.kind));
    case MaskKind::kWindow:
      return fmt::format("window({}, {})", mask.window_left, mask.window_right);
    case MaskKind::kTensorBool:
    case MaskKind::kTensorAdditive:
      return fmt::format("tensor({})", text_of(kTensors, mask.kind));
    case MaskKind::kExpression:
      return mask.expression.canonical_text;
  }
  return "?";
}

std::string print(const Structure& structure) {
  const std::string_view word = text_of(kStructures, structure.kind);
  return structure.kind == StructureKind::kDense || structure.kind == StructureKind::kVarlen
             ? std::string(word)
             : fmt::format("{}({})", word, structure.parameter);
}

}  // namespace sagejit
