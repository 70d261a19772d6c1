#include "compiler/sema/variant.h"

#include <cmath>

namespace sagejit {

bool same_computation(const Variant& a, const Variant& b) {
  Variant renamed = b;
  renamed.name = a.name;
  return a == renamed;
}

double score_scale(const Variant& variant) {
  return variant.score.scale.value_or(1.0 / std::sqrt(variant.head_dim));
}

double largest_p_range(DType type) {
  switch (type) {
    case DType::kF16:
      return 65504.0;
    case DType::kBF16:
      return 0x1.fep127;
    case DType::kF32:
      return 0x1.fffffep127;
    case DType::kE4M3:
      return 448.0;
    case DType::kE5M2:
      return 57344.0;
    case DType::kE2M1:
      return 448.0 * 6.0;
    case DType::kS8:
      return 127.0;
    case DType::kU8:
      return 255.0;
    case DType::kS4:
      return 7.0;
    case DType::kS32:
      return 2147483647.0;
  }
  return 0.0;
}

double largest_v_range(DType type) {
  if (type == DType::kF16 || type == DType::kBF16) return 0.0;
  return type == DType::kE2M1 ? 6.0 : largest_p_range(type);
}

}  // namespace sagejit
