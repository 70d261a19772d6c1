// The parts that values are made of: types, granularities, switches; read and printed by the key
// table.
#pragma once

#include <string>

#include "compiler/dsl/value_reader.h"
#include "compiler/sema/variant.h"

namespace sagejit {

// Whose scales: the default spans differ (SageAttention 2, kernel tiles of 128 query and 64 key
// rows).
enum class Operand { kQ, kK };

DType read_type(dsl::ValueReader& reader);
bool read_switch(dsl::ValueReader& reader);  // on, off
Smoothing read_smoothing(dsl::ValueReader& reader);

// `int8 per block(128)`; the granularity and its span may be left out.
Quantization read_quantization(dsl::ValueReader& reader, Operand operand);
// `e4m3 per channel range 448`; keeps value.smoothing.
void read_value_operand(dsl::ValueReader& reader, ValueOperand& value);
// `e4m3 range 448 direct`
ProbabilityOperand read_probability(dsl::ValueReader& reader);
// `f16 + f32 every 64`
Accumulator read_accumulator(dsl::ValueReader& reader);
RowSum read_row_sum(dsl::ValueReader& reader);
// `none`, `causal(top_left)`, `window(128, 0)`, `tensor(bool)` or an expression
Mask read_mask(dsl::ValueReader& reader);
// An expression; empty for `s` alone.
ScoreExpression read_score(dsl::ValueReader& reader);
// `1/sqrt(head_dim)`, which is unset, or a number
std::optional<double> read_scale(dsl::ValueReader& reader);
Structure read_structure(dsl::ValueReader& reader);

std::string print(const Quantization& quantization);
std::string print(const ValueOperand& value);
std::string print(const ProbabilityOperand& probability);
std::string print(const Accumulator& accumulator);
std::string print(const Mask& mask);
std::string print(const Structure& structure);

// What an operand's scales are where only its type is given.
Quantization default_quantization(DType type, Operand operand);
ValueOperand default_value_operand(DType type);
ProbabilityOperand default_probability(DType type);

}  // namespace sagejit
