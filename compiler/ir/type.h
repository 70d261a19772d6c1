// The types of kernel-IR registers. Signedness belongs to the operation, not to the type.
#pragma once

#include <cstdint>
#include <string_view>

namespace sagejit::ir {

enum class Type : uint8_t {
  kPred,  // one bit
  kB16,   // 16 bits: an f16 or bf16
  kI32,   // 32 bits: an integer, two packed 16-bit floats, four packed bytes, or a shared-memory
          // address
  kI64,   // 64 bits: an integer or a global address
  kF32,
};

constexpr std::string_view name_of(Type type) {
  constexpr std::string_view kNames[] = {"pred", "b16", "i32", "i64", "f32"};
  return kNames[static_cast<int>(type)];
}

// The letter that stands for the type in the signatures of ops.def.
constexpr char letter_of(Type type) {
  return "phrlf"[static_cast<int>(type)];
}

}  // namespace sagejit::ir
