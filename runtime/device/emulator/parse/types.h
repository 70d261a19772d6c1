// PTX scalar types and state spaces.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sagejit::emulator {

enum class Type : uint8_t {
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kF16x2,
  kBF16,
  kBF16x2,
  kF32,
  kF64,
  kU16x2,
  kS16x2,
};

struct TypeRow {
  std::string_view name;
  uint8_t bytes;  // 0 for predicates
  bool is_signed;
  bool is_float;
};

inline constexpr TypeRow kTypes[] = {
    {"pred", 0, false, false}, {"b8", 1, false, false},    {"b16", 2, false, false},
    {"b32", 4, false, false},  {"b64", 8, false, false},   {"u8", 1, false, false},
    {"u16", 2, false, false},  {"u32", 4, false, false},   {"u64", 8, false, false},
    {"s8", 1, true, false},    {"s16", 2, true, false},    {"s32", 4, true, false},
    {"s64", 8, true, false},   {"f16", 2, true, true},     {"f16x2", 4, true, true},
    {"bf16", 2, true, true},   {"bf16x2", 4, true, true},  {"f32", 4, true, true},
    {"f64", 8, true, true},    {"u16x2", 4, false, false}, {"s16x2", 4, true, false},
};

inline constexpr const TypeRow& info(Type t) {
  return kTypes[static_cast<size_t>(t)];
}

inline constexpr std::optional<Type> find_type(std::string_view name) {
  for (size_t i = 0; i < sizeof(kTypes) / sizeof(kTypes[0]); ++i) {
    if (kTypes[i].name == name) return static_cast<Type>(i);
  }
  return std::nullopt;
}

enum class Space : uint8_t { kReg, kParam, kGlobal, kConst, kShared, kLocal };

}  // namespace sagejit::emulator
