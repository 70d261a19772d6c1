// Element types, by their usual names.
#pragma once

#include <cstdint>
#include <string_view>

namespace sagejit {

enum class DType : uint8_t {
  kF16,
  kBF16,
  kF32,  // IEEE binary16, bfloat16, IEEE binary32
  kE4M3,
  kE5M2,  // OCP 8-bit floats
  kE2M1,  // OCP 4-bit float (fp4)
  kS8,
  kU8,
  kS4,
  kS32,
};

// Bits of one element.
constexpr int bits_of(DType type) {
  switch (type) {
    case DType::kF32:
    case DType::kS32:
      return 32;
    case DType::kF16:
    case DType::kBF16:
      return 16;
    case DType::kE4M3:
    case DType::kE5M2:
    case DType::kS8:
    case DType::kU8:
      return 8;
    case DType::kE2M1:
    case DType::kS4:
      return 4;
  }
  return 0;
}

constexpr bool is_fp8(DType type) {
  return type == DType::kE4M3 || type == DType::kE5M2;
}

// The name the DSL, the IR and messages use: "f16", "bf16", "f32", "e4m3", "e5m2", "fp4", "int8",
// "uint8", "int4", "s32".
constexpr std::string_view name_of(DType type) {
  switch (type) {
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kF32:
      return "f32";
    case DType::kE4M3:
      return "e4m3";
    case DType::kE5M2:
      return "e5m2";
    case DType::kE2M1:
      return "fp4";
    case DType::kS8:
      return "int8";
    case DType::kU8:
      return "uint8";
    case DType::kS4:
      return "int4";
    case DType::kS32:
      return "s32";
  }
  return "?";
}

}  // namespace sagejit
