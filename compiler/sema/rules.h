// Parts of the rules of contradictions.cc: what a rule says, checks that many of them are made of,
// and the rules of P and V.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "compiler/sema/variant.h"

namespace sagejit::rules {

struct Finding {
  std::string message;
  std::string note;
};
using Verdict = std::optional<Finding>;  // unset: no contradiction

inline constexpr int kMaxSpan = 1 << 16;  // tokens

bool one_of(DType type, std::initializer_list<DType> types);
bool is_half(DType type);  // f16, bf16
bool is_int(DType type);   // int8, uint8, int4
bool has_span(Granularity g);

Verdict type_in(DType type, std::string_view role, std::initializer_list<DType> allowed);
// A whole number within [low, high] that `step` divides.
Verdict multiple_in(int value, std::string_view what, int step, std::pair<int, int> range);
Verdict finite_in(double value, std::string_view what, double low, double high);

// pv_rules.cc
Verdict p_type(const Variant& v);
Verdict p_range(const Variant& v);
Verdict p_direct(const Variant& v);
Verdict direct_row_sum(const Variant& v);
Verdict v_type(const Variant& v);
Verdict v_granularity(const Variant& v);
Verdict v_span(const Variant& v);
Verdict v_range(const Variant& v);
Verdict pv_pair(const Variant& v);
Verdict outer_accumulator(const Variant& v);
Verdict inner_accumulator(const Variant& v);
Verdict accumulator_interval(const Variant& v);
Verdict rescale_threshold(const Variant& v);
Verdict f16_overflow(const Variant& v);

}  // namespace sagejit::rules
