// P V's products, of mma.sync and wgmma alike: how P, as the softmax left it, becomes the A operand
// in registers, and what the sums of integers are.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/ir/builder.h"
#include "compiler/kernels/scores.h"
#include "compiler/sema/variant.h"

namespace sagejit {

// Keys of one product, which consumes 32 bytes of P of a row.
constexpr int keys_of_product(DType p) {
  return 32 * 8 / bits_of(p);
}

// Integers, whose products add up in s32.
constexpr bool is_integer(DType p) {
  return p == DType::kS8 || p == DType::kU8;
}

// P of keys [first_key, first_key + k) of a 16-row tile as an A operand: the thread's own elements,
// converted. 8-bit P relies on the permutation of V's tokens (core_matrix.h), fp4 P on that of the
// keys (key_order.h); behind its registers comes one of scales, valid in every thread of a quad for
// thread_a = 0.
std::vector<ir::Value> p_fragment(ir::Builder& b, const Variant& variant, const Scores& p,
                                  int row_tile, int first_key);

// 32 bits of ones of the type of V, which sum the rows of P that they are multiplied by: no
// integer.
constexpr int32_t packed_ones(DType v) {
  switch (v) {
    case DType::kE4M3:
      return 0x38383838;
    case DType::kE5M2:
      return 0x3C3C3C3C;
    case DType::kBF16:
      return 0x3F803F80;
    default:
      return 0x3C003C00;
  }
}

// Sums of integers start at kBiasedZero and stay within 2^22 (specs/numerics.md, 4.2), so that
// their bits, read as f32, are kScoreBias + sum, as those of scores are: the sum as f32.
ir::Value unbias(ir::Builder& b, ir::Value sum);

}  // namespace sagejit
