#include "compiler/ir/fold.h"

#include <bit>

namespace sagejit::ir {
namespace {

constexpr Value i32(uint32_t bits) {
  return {Value::Kind::kConst, Type::kI32, bits};
}
constexpr Value i64(uint64_t bits) {
  return {Value::Kind::kConst, Type::kI64, bits};
}

std::optional<Value> evaluate(Op op, uint64_t wide_a, uint64_t wide_b) {
  const auto a = static_cast<uint32_t>(wide_a), b = static_cast<uint32_t>(wide_b);
  switch (op) {
    case Op::kAddI32:
      return i32(a + b);
    case Op::kSubI32:
      return i32(a - b);
    case Op::kMulI32:
      return i32(a * b);
    case Op::kDivU32:
      return b ? std::optional(i32(a / b)) : std::nullopt;
    case Op::kRemU32:
      return b ? std::optional(i32(a % b)) : std::nullopt;
    case Op::kAndI32:
      return i32(a & b);
    case Op::kOrI32:
      return i32(a | b);
    case Op::kXorI32:
      return i32(a ^ b);
    case Op::kShlI32:
      return i32(b < 32 ? a << b : 0);
    case Op::kShrU32:
      return i32(b < 32 ? a >> b : 0);
    case Op::kMinS32:
      return i32(static_cast<int32_t>(a) < static_cast<int32_t>(b) ? a : b);
    case Op::kMaxS32:
      return i32(static_cast<int32_t>(a) > static_cast<int32_t>(b) ? a : b);
    case Op::kAddI64:
      return i64(wide_a + wide_b);
    case Op::kMulI64:
      return i64(wide_a * wide_b);
    case Op::kShlI64:
      return i64(b < 64 ? wide_a << b : 0);
    default:
      return std::nullopt;
  }
}

// x op c == x
bool is_right_identity(Op op, uint64_t c) {
  switch (op) {
    case Op::kAddI32:
    case Op::kSubI32:
    case Op::kOrI32:
    case Op::kXorI32:
    case Op::kShlI32:
    case Op::kShrU32:
    case Op::kAddI64:
    case Op::kShlI64:
      return c == 0;
    case Op::kMulI32:
    case Op::kDivU32:
    case Op::kMulI64:
      return c == 1;
    default:
      return false;
  }
}

}  // namespace

bool is_commutative(Op op) {
  return op == Op::kAddI32 || op == Op::kMulI32 || op == Op::kOrI32 || op == Op::kXorI32 ||
         op == Op::kAndI32 || op == Op::kAddI64 || op == Op::kMulI64;
}

Expression simplified(Expression expression) {
  auto& [op, a, b] = expression;
  if (a.is_const() && is_commutative(op)) std::swap(a, b);
  if (!b.is_const() || b.type != Type::kI32 || !std::has_single_bit(b.bits)) return expression;
  const Value log2 = i32(static_cast<uint32_t>(std::countr_zero(b.bits)));
  if (op == Op::kMulI32) return {Op::kShlI32, a, log2};
  if (op == Op::kDivU32) return {Op::kShrU32, a, log2};
  if (op == Op::kRemU32) return {Op::kAndI32, a, i32(static_cast<uint32_t>(b.bits) - 1)};
  return expression;
}

std::optional<Value> value_of(const Expression& expression) {
  const auto& [op, a, b] = expression;
  if (a.is_const() && b.is_const()) return evaluate(op, a.bits, b.bits);
  if (!b.is_const()) return std::nullopt;
  if (is_right_identity(op, b.bits)) return a;
  const bool absorbs = op == Op::kMulI32 || op == Op::kAndI32 || op == Op::kMulI64;
  if (absorbs && b.bits == 0) return b;
  return std::nullopt;
}

}  // namespace sagejit::ir
